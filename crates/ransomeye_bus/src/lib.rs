//! A zero-trust message bus: mutual TLS from the deployment's own CA, messages that prove their sender, one policy at three
//! places, typed messages, over NATS.
//!
//! This crate holds no logic. It gives the parts under one roof; take a part alone where that is all you need.
//!
//! | module | crate | what it is |
//! |---|---|---|
//! | [`client`] | `bus-client` | connect, publish, subscribe, request, serve commands |
//! | [`mtls`] | `bus-tls` | certificates and keys to a checked identity and `rustls` configurations |
//! | [`acl`] | `bus-acl` | the policy: who may publish and receive what |
//! | [`protocol`] | `bus-proto` | identities, subjects, and the protobuf messages |
//! | [`crypto`] | `bus-crypto` | key ids, key bundles, and the verification of signed messages without a client |
//!
//! # Example
//!
//! An agent that reports its load, and does as it is told by whom the policy lets command it:
//!
//! ```no_run
//! use ransomeye_bus::client::{BusClient, BusOptions, CommandHandler, Verified};
//! use ransomeye_bus::mtls::{TlsIdentity, TlsOptions};
//! use ransomeye_bus::protocol::v1::{CommandRequest, CommandResult, TelemetryEvent};
//!
//! struct Handler;
//!
//! impl CommandHandler for Handler {
//!     async fn handle(&self, command: Verified<CommandRequest>) -> CommandResult {
//!         CommandResult::refused(format!("{} asked, but this is an example", command.sender()))
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // RANSOMEYE_TLS_CLIENT_CERT, RANSOMEYE_TLS_CLIENT_KEY and RANSOMEYE_TRUST_ROOT_CA name the files.
//!     let identity = TlsIdentity::load(TlsOptions::from_env()?)?;
//!     let bus = BusClient::connect(BusOptions::new("tls://bus.example:4222", identity)).await?;
//!     let commands = bus.serve_commands(Handler).await?;
//!     bus.publish(TelemetryEvent { cpu_usage: 12.5, ram_usage: 40.0 }).await?;
//!     bus.drain().await?;
//!     commands.finished().await;
//!     Ok(())
//! }
//! ```
#![forbid(unsafe_code)]

/// The asynchronous client: everything of `bus-client`.
pub mod client {
    pub use bus_client::*;
}

/// Mutual TLS from the deployment's own CA: everything of `bus-tls`.
pub mod mtls {
    pub use bus_tls::*;
}

/// The policy: everything of `bus-acl`.
pub mod acl {
    pub use bus_acl::*;
}

/// Identities, subjects and messages: everything of `bus-proto`, and the generated messages by their bare names.
pub mod protocol {
    pub use bus_proto::v1::{
        AlertEvent, CommandRequest, CommandResult, CommandStatus, CommandType, Envelope, Heartbeat, Severity,
        TelemetryEvent,
    };
    pub use bus_proto::*;
}

/// Signed messages and key bundles: everything of `bus-crypto`. [`KeyId`](bus_crypto::KeyId), which tells the processes of a
/// sender apart, is what most programs take of it.
pub mod crypto {
    pub use bus_crypto::*;
}

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
