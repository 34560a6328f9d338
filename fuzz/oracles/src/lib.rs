//! What each fuzz target does with its input, and what must hold of it.
//!
//! A target is a function of bytes that panics when something does not hold. The fuzzer calls it with what it invents,
//! and the tests of this package call it with every file of the target's corpus, with any compiler.
//!
//! Beyond "nothing panics", a target compares two answers to one question: the scan's and the protobuf decoder's, the
//! policy's and the broker's, a parser's and a grammar written another way. Where the question is who signed, the target
//! holds the keys, and plays the outsider, who has none, as well as the insider, who signs whatever it likes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a target reports")]

mod batch;
mod bundle;
mod content;
mod credentials;
mod envelope;
mod fixture;
mod known;
mod limits;
mod names;
mod policy;
mod reading;
mod script;
mod sealing;
mod trailer;

pub use batch::batch;
pub use bundle::{bundle, leaf_key};
pub use content::{compressed, content, references};
pub use credentials::{certificate, pem, record, revocation_list};
pub use envelope::{envelope, scan};
pub use names::{spiffe_id, subject};
pub use policy::policy;
pub use sealing::{locked, sealing_record};
pub use trailer::trailer;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which its binary and its corpus bear.
    pub name: &'static str,
    /// Tries one input.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "batch", run: batch },
    Target { name: "bundle", run: bundle },
    Target { name: "certificate", run: certificate },
    Target { name: "compressed", run: compressed },
    Target { name: "content", run: content },
    Target { name: "envelope", run: envelope },
    Target { name: "leaf_key", run: leaf_key },
    Target { name: "locked", run: locked },
    Target { name: "pem", run: pem },
    Target { name: "policy", run: policy },
    Target { name: "record", run: record },
    Target { name: "references", run: references },
    Target { name: "revocation_list", run: revocation_list },
    Target { name: "scan", run: scan },
    Target { name: "sealing_record", run: sealing_record },
    Target { name: "spiffe_id", run: spiffe_id },
    Target { name: "subject", run: subject },
    Target { name: "trailer", run: trailer },
];
