//! The asynchronous client of the Ransomeye message bus.
//!
//! [`BusClient::connect`] opens one mutually authenticated connection. From there:
//!
//! * [`BusClient::publish`] sends an event, [`BusClient::send`] a directed message. The policy is asked before anything
//!   is sent; a denied message never reaches the socket.
//! * [`BusClient::subscribe`] and [`BusClient::subscribe_inbox`] give a [`Subscription`]: a stream of
//!   `Result<Verified<T>, Rejected>` that no peer can stop.
//! * [`BusClient::request`] asks one component and waits for its answer; [`BusClient::serve_commands`] answers commands
//!   through a [`CommandHandler`].
//! * [`BusClient::status`], [`BusClient::events`] and [`BusClient::stats`] tell how the connection is doing.
//!
//! A [`Verified`] message is one whose sender is **proven**: it is signed with a key that the sender's certificate vouches
//! for, it arrived where it was sent, the policy allows it, and it is no repetition. Nothing unsigned is ever accepted.
//!
//! # Example
//!
//! ```no_run
//! use bus_client::{BusClient, BusOptions};
//! use bus_proto::v1::Heartbeat;
//! use bus_tls::{TlsIdentity, TlsOptions};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = TlsIdentity::load(TlsOptions::from_env()?)?;
//! let bus = BusClient::connect(BusOptions::new("tls://bus.example:4222", identity)).await?;
//! bus.publish(Heartbeat { uptime: 60, version: "0.1.0".into() }).await?;
//! bus.drain().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! `connection` owns the NATS connection and its background tasks, `dial` makes it, and `shared` is what its callbacks
//! know. `signer` makes our own keys, and `rotation` replaces them. `outbound` is the way out, `inbound` the way in, with a `backlog` before each reader. `probe` makes round trips
//! with the broker, and `verdict` turns its asynchronous refusals into the error of the call that caused them.
//! `provision` makes the streams, those of keys and those of durable messages, and `key_stream` asks the former.
#![forbid(unsafe_code)]

mod backlog;
mod connection;
mod dial;
mod error;
mod handler;
mod inbound;
mod key_stream;
mod lame_duck;
mod options;
mod outbound;
mod probe;
mod provision;
mod request;
mod rotation;
mod sealing;
mod shared;
mod signer;
mod status;
mod subscription;
mod time;
mod verdict;

pub use connection::BusClient;
pub use error::{ConnectError, DrainError, KeysError, ProvisionError, PublishError, RequestError, SubscribeError};
pub use handler::{CommandHandler, CommandServer};
pub use inbound::{Evidence, Gap, PublishedKey, PublishedKeys, Rejected, Verified};
pub use options::BusOptions;
pub use provision::{
    ConsumerStatus, Provisioned, ProvisionedConsumer, ProvisionedMessageStream, ProvisionedStreams, StreamOptions,
    StreamStatus,
};
pub use sealing::{Imported, NoSealingKey, OwnKey, SealingKeyInfo, SealingKeys, SealingKeysError};
pub use secrecy::SecretString;
pub use signer::{KeyError, leaf_facts};
pub use status::{BusEvent, CloseReason, Stats, Status};
pub use subscription::Subscription;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
