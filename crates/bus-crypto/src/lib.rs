//! Every message proves its sender: signing and verifying the envelopes of the Ransomeye message bus.
//!
//! A process makes a [`SigningKey`] when it starts and ties it to its TLS certificate with a key [`bundle`]. Every envelope
//! that it sends ends with a trailer: the key's id and an Ed25519 signature over all bytes before. A receiver reads those
//! bytes with one canonical [`scan()`], verifies the bundle once per key and the signature once per message, and gets a
//! [`VerifiedPrefix`], which only verification can make.
//!
//! ```
//! use bus_crypto::{Clock, LeafFacts, LeafKey, Lifetime, SigningKey, UnverifiedBundle, Unverified};
//! use bus_crypto::{bundle, envelope, zeroize::Zeroizing};
//! use bus_proto::{ComponentId, prost::Message, v1::{Envelope, Heartbeat}};
//! # use bus_crypto::{LeafSigner, Scheme, SigningFailed};
//! # struct Leaf(aws_lc_rs::signature::Ed25519KeyPair);
//! # impl LeafSigner for Leaf {
//! #     type Error = SigningFailed;
//! #     fn scheme(&self) -> Scheme { Scheme::Ed25519 }
//! #     fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> { Ok(self.0.sign(message).as_ref().to_vec()) }
//! # }
//! # use aws_lc_rs::{encoding::AsDer, signature::KeyPair};
//! # let leaf_signer = Leaf(aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[1; 32])?);
//! # let public_key_der = leaf_signer.0.public_key().as_der()?;
//! # let (chain, now, fill) = ([b"a certificate"], 1_790_000_000_000, |seed: &mut [u8]| seed.fill(7));
//! // What the caller knows about its own certificate, or has found out about a sender's: its chain was validated.
//! let leaf = LeafFacts {
//!     principal: "spiffe://ransomeye.local/agent/agent-01".parse()?,
//!     key: LeafKey::from_spki(public_key_der.as_ref())?,
//!     sha256: bundle::certificate_digest(chain[0]),
//!     chain_not_after_unix_ms: now + 86_400_000,
//! };
//!
//! // The sender, once per process and then once per message.
//! let clock = Clock::new(now, 30_000);
//! let mut seed = Zeroizing::new([0; 32]);
//! fill(seed.as_mut_slice()); // from the operating system's random source
//! let key = SigningKey::from_seed(&seed)?;
//! let lifetime = Lifetime { not_before: now, sign_until: now + 3_600_000, verify_until: now + 7_200_000 };
//! let made = bundle::make(&key, lifetime, &chain, &leaf, &leaf_signer, &clock)?;
//! let mut message = Envelope::new(&ComponentId::new("agent-01")?, Heartbeat::default(), now, [7; 10]);
//! message.subject = "ransomeye.events.heartbeat.agent.agent-01".into();
//! let signed = envelope::sign(message.encode_to_vec(), &key, &made.key_id)?;
//!
//! // The receiver, once per key and then once per message.
//! let bundle = UnverifiedBundle::read(&made.encoded)?.verify(&leaf, &clock)?;
//! let unverified = Unverified::read(&signed.bytes)?;
//! // Here the caller compares the subject, asks the policy, and looks for a verified bundle of `unverified.key_id()`.
//! let verified = unverified.verify(&bundle, &leaf.principal.trust_domain, &clock)?;
//! // Whatever is kept per key, such as the bundle and a `ReplayGuard`, is kept from here on and not earlier.
//! assert_eq!(verified.principal(), &leaf.principal);
//! assert_eq!(Envelope::decode(verified.prefix())?, message);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Map
//!
//! * [`scan()`], [`Scan`], [`Member`]: what a prefix says, in the one encoding that is accepted; [`Refusal`]: why not.
//! * [`SealedView`]: what everybody may read of a sealed payload; [`scan_content`], [`scan_decompressed`], [`scan_references`]:
//!   what was inside, once it is opened.
//! * [`trailer`]: splitting and appending the last bytes.
//! * [`keys`]: [`SigningKey`], [`VerifyingKey`], [`KeyId`], and what strict verification means.
//! * [`bundle`]: making, reading and verifying key bundles; [`LeafFacts`] is what the caller vouches for.
//! * [`sealing::record`]: making, reading and verifying the records that say whose a sealing key is.
//! * `compression`, with the feature `zstd`: compressing a payload, and decompressing it within bounds.
//! * [`envelope`]: signing and verifying messages; [`Unverified`], [`VerifiedPrefix`].
//! * [`replay`]: the sliding windows that find a repeated message.
//! * [`sealing`]: what only its recipients can read; sealing keys and epochs.
//! * [`storage`]: encryption at rest, for what a local store keeps.
//!
//! `docs/wire.md` in the repository specifies the bytes for other languages.
//!
//! # Features
//!
//! * `zstd`: the module `compression`. It brings in C code and the standard library. Off by default.
//!
//! # What it does not do
//!
//! This crate is pure: no IO, no clock, no ambient randomness, no async. It does not validate certificate chains, look up
//! revocation, ask a policy, judge the freshness of a message, or fetch bundles.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bundle;
mod clock;
#[cfg(feature = "zstd")]
pub mod compression;
pub mod envelope;
pub mod keys;
pub mod replay;
mod scan;
pub mod sealing;
pub mod storage;
pub mod trailer;

pub use bundle::{
    BundleError, LeafFacts, LeafKey, LeafSigner, Lifetime, MadeBundle, MakeError, Scheme, UnverifiedBundle,
    VerifiedBundle,
};
pub use clock::Clock;
pub use envelope::{EnvelopeError, SignedMessage, Unverified, VerifiedPrefix};
pub use keys::{KeyError, KeyId, SignatureError, SigningFailed, SigningKey, VerifyingKey, sha256};
pub use replay::{Gap, ReplayError, ReplayGuard};
pub use scan::{
    Content, MAX_BUNDLE_LEN, MAX_MEMBERS, MAX_PREFIX_LEN, MAX_RECIPIENTS, MAX_REFERENCES, Member, PayloadKind,
    PayloadView, Place, ReferenceView, Refusal, Scan, ScanError, SealedView, WrappedKeyView, scan, scan_content,
    scan_decompressed, scan_references,
};
pub use zeroize;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
