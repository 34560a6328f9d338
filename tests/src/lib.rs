//! What the integration suites share: a small deployment with its own CA and a real nats-server.
//!
//! * [`deployment`]: a temporary CA, identities and a running server.
//! * [`cluster`]: the same with three nodes.
//! * [`attacks`]: what must be refused, each attempt with its evidence and its positive control.
//! * [`mod@bench`]: messages, requests, verification and memory, measured side by side with the broker client alone.
//! * [`python`]: an implementation of the wire in another language.
//! * [`vectors`]: the test vectors of the wire, and whether our own code agrees with them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

pub mod attacks;
pub mod bench;
pub mod cluster;
pub mod deployment;
pub mod python;
pub mod vectors;

/// The project README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
