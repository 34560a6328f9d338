//! The asynchronous client of the Ransomeye message bus.
//!
//! [`BusClient::connect`] opens one mutually authenticated connection. From there:
//!
//! * [`BusClient::publish`] sends an event, [`BusClient::send`] a directed message. The policy is asked before anything
//!   is sent; a denied message never reaches the socket.
//! * [`BusClient::subscribe`] and [`BusClient::subscribe_inbox`] give a [`Subscription`]: a stream of
//!   `Result<Received<T>, Rejected>` that no peer can stop.
//! * [`BusClient::request`] asks one component and waits for its answer; [`BusClient::serve_commands`] answers commands
//!   through a [`CommandHandler`].
//! * [`BusClient::status`], [`BusClient::events`] and [`BusClient::stats`] tell how the connection is doing.
//!
//! A [`Received`] message is one whose sender **the broker attests**: the subject's last tokens name the sender, the
//! broker lets nobody else publish there, and every field of the envelope agrees with them.
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
//! know. `outbound` is the way out, `inbound` the way in, with a `backlog` before each reader. `probe` makes round trips
//! with the broker, and `verdict` turns its asynchronous refusals into the error of the call that caused them.
#![forbid(unsafe_code)]

mod backlog;
mod connection;
mod dial;
mod error;
mod gaps;
mod handler;
mod inbound;
mod options;
mod outbound;
mod probe;
mod request;
mod shared;
mod status;
mod subscription;
mod verdict;

pub use connection::BusClient;
pub use error::{ConnectError, DrainError, PublishError, RequestError, SubscribeError};
pub use handler::{CommandHandler, CommandServer};
pub use inbound::{Received, Rejected};
pub use options::BusOptions;
pub use status::{BusEvent, CloseReason, Stats, Status};
pub use subscription::Subscription;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
