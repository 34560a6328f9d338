//! The broker of the Ransomeye message bus: renders configurations for nats-server, and runs a local one.
//!
//! * [`ServerConfig`] turns the bus policy and a list of components into a complete configuration: mutual TLS 1.3 for
//!   every connection, one user per component, named by the SPIFFE identity in its certificate, with the publish and
//!   subscribe permissions that `bus-acl` derives from the policy. Nobody else gets in.
//! * [`NatsServer`] runs a nats-server with such a configuration: readiness, log, reload, restart, clean stop.
//! * [`ClusterConfig`] makes a configuration that of one node of a cluster, whose routes only pinned keys can use, and
//!   [`LocalCluster`] runs a whole one on this machine, and does to its nodes what befalls nodes.
//! * [`find_server`] finds the nats-server of this machine.
//!
//! It decides nothing about who may do what (that is `bus-acl`), makes no certificates (that is `bus-tls`), never
//! downloads a server, and speaks no NATS protocol. Everything is synchronous: processes and threads, no async runtime.
//!
//! ```no_run
//! use bus_natsd::{NatsServer, ServerConfig, TlsFiles};
//!
//! let tls = TlsFiles {
//!     cert: "pki/server.crt".into(),
//!     key: "pki/server.key".into(),
//!     trust_root: "pki/ca.crt".into(),
//! };
//! let components = vec![
//!     "spiffe://ransomeye.local/core/core-01".parse()?,
//!     "spiffe://ransomeye.local/agent/agent-01".parse()?,
//! ];
//! let mut config = ServerConfig::new(tls, components);
//! config.port = 0; // any free one
//! let mut server = NatsServer::start(bus_natsd::find_server()?, config)?;
//! println!("{}", server.url());
//! server.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Platforms
//!
//! Linux and macOS. Elsewhere the crate compiles and a server runs, but [`NatsServer::stop`] kills it, and
//! [`NatsServer::reload`], [`lame_duck`](NatsServer::lame_duck), [`pause`](NatsServer::pause) and
//! [`resume`](NatsServer::resume) are refused, as there are no signals.
#![forbid(unsafe_code)]

mod cluster;
mod config;
mod error;
mod find;
mod launch;
mod local_cluster;
mod log;
mod port;
mod server;
mod signal;
mod syntax;

pub use cluster::{ClusterConfig, KeyPin};
pub use config::{ServerConfig, TlsFiles};
pub use error::{ConfigError, ServerError};
pub use find::{MINIMUM_VERSION, SERVER_VARIABLE, find_server};
pub use launch::Launch;
pub use local_cluster::{ClusterLaunch, LocalCluster, Node};
pub use server::{NatsServer, check_config};

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
