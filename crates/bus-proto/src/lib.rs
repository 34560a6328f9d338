//! The vocabulary of the Ransomeye message bus: who speaks, what is said, and where.
//!
//! * [`identity`]: [`Principal`], the SPIFFE identity in a component's certificate, and its parts.
//! * [`message_type`]: [`MessageType`], the kinds of message, with the aliases that configuration may use.
//! * [`subject`]: [`SubjectRoot`], which builds and takes apart the NATS subjects of the bus.
//! * [`key_stream`] and [`message_stream`]: the names of the streams that keep keys and durable messages, and of who reads them.
//! * [`v1`] (feature `messages`): the generated protobuf types of `ransomeye.v1`.
//! * [`envelope`] and [`payload`] (feature `messages`): building and checking an [`v1::Envelope`].
//!
//! This crate is pure: no IO, no clock, no randomness, no async. The time and random bytes come in as arguments. It
//! decides nothing about who may do what; that is `bus-acl`.
//!
//! # Features
//!
//! * `messages` (default): the protobuf messages. Without it the crate is `no_std` and depends on `thiserror` alone.
#![cfg_attr(not(feature = "messages"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "messages")]
pub mod envelope;
pub mod identity;
pub mod key_stream;
pub mod message_stream;
pub mod message_type;
#[cfg(feature = "messages")]
pub mod payload;
pub mod subject;

/// The generated protobuf types of package `ransomeye.v1`, made from `proto/` by `cargo xtask proto`.
#[cfg(feature = "messages")]
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
pub mod v1 {
    include!("generated/ransomeye.v1.rs");
}

#[cfg(feature = "messages")]
pub use envelope::EnvelopeError;
pub use identity::{ComponentId, ConsumerName, Endpoint, IdentityError, Principal, RESERVED_ROLES, Role, TrustDomain};
pub use key_stream::KeyStream;
pub use message_stream::{MessageStream, StreamConsumer};
pub use message_type::{CustomType, MessageType, UnknownMessageType};
#[cfg(feature = "messages")]
pub use payload::{
    AnyPayload, AttachedReferences, IntoOutgoing, Outgoing, Payload, PayloadError, Registered, TypeRegistry,
};
pub use subject::{Address, Destination, SubjectError, SubjectRoot};

#[cfg(feature = "messages")]
pub use prost;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
