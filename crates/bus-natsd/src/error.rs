use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bus_proto::{Principal, TrustDomain};

/// Why no configuration can be rendered: what was asked for is inconsistent or cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The same component is listed twice.
    #[error("component {0} is listed twice: list each component once")]
    DuplicateComponent(Principal),
    /// Two trust domains would share one set of subjects, in which only role and component name a sender.
    #[error("component {component} is of another trust domain than {expected}: one server serves one trust domain")]
    ForeignTrustDomain {
        /// The component that does not fit.
        component: Principal,
        /// The trust domain of the first component.
        expected: TrustDomain,
    },
    /// A provisioner without JetStream.
    #[error("{0} is to provision streams, but there is no JetStream to keep them: give a JetStream directory")]
    NothingToProvision(Principal),
    /// A text holds what the configuration file cannot.
    #[error("{what} {text:?} cannot be written to a configuration file: it must be UTF-8 without control characters")]
    Unwritable {
        /// Which setting.
        what: &'static str,
        /// Its value, as far as it can be shown.
        text: String,
    },
    /// A relative path could not be made absolute.
    #[error("{what} {path:?} cannot be made absolute")]
    Path {
        /// Which setting.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A limit of zero, which nats-server would take for "no limit".
    #[error("{what} is 0, which nats-server reads as no limit: give the limit")]
    ZeroLimit {
        /// Which setting.
        what: &'static str,
    },
    /// The times of the lame duck mode are none that nats-server takes.
    #[error(
        "a lame duck mode of {duration:?} with a grace period of {grace:?} cannot be: it takes at least 30 s, and longer than \
         its grace period"
    )]
    LameDuck {
        /// Within how long clients are closed.
        duration: Duration,
        /// How long they are left to go by themselves.
        grace: Duration,
    },
    /// A cluster without pins, whose routes anybody with a certificate could use.
    #[error("the cluster has no pins, so that any certificate would make a node: pin the keys of its nodes")]
    UnpinnedCluster,
    /// A cluster of one.
    #[error("the cluster has no other node: give the routes to the others, or no cluster")]
    LoneNode,
    /// A route that is not `host:port`.
    #[error("the route {route:?} is none: give it as host:port")]
    Route {
        /// What was given.
        route: String,
    },
    /// A pin that is not a digest.
    #[error("the pin {text:?} is none: give the SHA-256 digest of a public key, 64 hexadecimal digits")]
    Pin {
        /// What was given.
        text: String,
    },
    /// A cluster on this machine without streams.
    #[error("a cluster on this machine keeps streams: give a JetStream directory")]
    NoStreams,
}

/// Why a nats-server was not found, did not start or did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// There is no nats-server to use.
    #[error(
        "no nats-server of 2.15 or newer: {why}; install a release from https://github.com/nats-io/nats-server/releases \
         on PATH, or name one in BUS_NATS_SERVER"
    )]
    NotFound {
        /// Where it was looked for, and what was wrong there.
        why: String,
    },
    /// The configuration cannot be rendered.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or the process could not be handled.
    #[error("cannot {what}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The server refused its configuration.
    #[error("nats-server refused the configuration: {reason}")]
    Refused {
        /// The server's own words.
        reason: String,
    },
    /// The server ended before it was ready.
    #[error("nats-server ended before it was ready; its last words were:\n{log}")]
    Ended {
        /// The last lines of its log.
        log: String,
    },
    /// The server did not say in time what was waited for.
    #[error("nats-server was not {what} within {waited:?}; its last words were:\n{log}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        waited: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// The server is not running.
    #[error("nats-server is not running: restart it first")]
    NotRunning,
    /// The cluster has no node of this number.
    #[error("the cluster has no node {index}: they are numbered from 0 to {last}")]
    NoSuchNode {
        /// The number.
        index: usize,
        /// The number of the last node.
        last: usize,
    },
    /// No port could be had.
    #[error("no free port was found on {host}")]
    NoPort {
        /// The address to listen on.
        host: IpAddr,
    },
    /// This platform has no signals to tell a server with.
    #[error("a running nats-server cannot be told anything on this platform: restart it")]
    Unsupported,
}

impl ServerError {
    /// For `map_err`: what was tried when the operating system said no.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
