//! What proves a refusal, and who refused.

use std::fmt;

use bus_client::{ConnectError, Rejected};
use rustls::AlertDescription;
use serde::Serialize;

/// Who refused an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Layer {
    /// The broker's TLS: the handshake did not succeed.
    #[serde(rename = "broker TLS")]
    BrokerTls,
    /// The broker's authentication: TLS succeeded, but the certificate names no configured component.
    #[serde(rename = "broker authentication")]
    BrokerAuthentication,
    /// The permissions that the broker enforces for a component.
    #[serde(rename = "broker permissions")]
    BrokerPermissions,
    /// The broker's limits on sizes and numbers.
    #[serde(rename = "broker limits")]
    BrokerLimits,
    /// The TLS of the client that was attacked.
    #[serde(rename = "client TLS")]
    ClientTls,
    /// The checks of the receiver that was attacked.
    #[serde(rename = "receiver")]
    Receiver,
    /// Nobody.
    #[serde(rename = "none")]
    None,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BrokerTls => "broker TLS",
            Self::BrokerAuthentication => "broker authentication",
            Self::BrokerPermissions => "broker permissions",
            Self::BrokerLimits => "broker limits",
            Self::ClientTls => "client TLS",
            Self::Receiver => "receiver",
            Self::None => "none",
        })
    }
}

/// The words of whoever refused an attack.
#[derive(Debug)]
pub enum Evidence {
    /// An error that the server sent on the attacker's connection.
    ServerError(String),
    /// Why the server closed the connection, in its own record of closed connections.
    ServerClosed(String),
    /// The server ended a live connection, and gave this error to the client that came back at once.
    ServerDisconnected(String),
    /// A TLS alert that the server sent.
    ServerAlert(AlertDescription),
    /// The attacked client's refusal of the server's handshake.
    ClientHandshake(String),
    /// The attacked receiver's refusal of a message.
    Rejected(Rejected),
    /// What else the attacked client noticed, so that nobody was deceived.
    Noticed(String),
}

impl Evidence {
    /// Who refused. Words that say something else than a refusal are nobody's.
    #[must_use]
    pub fn layer(&self) -> Layer {
        match self {
            Self::ServerError(text) | Self::ServerDisconnected(text) => layer_of_error(&text.to_lowercase()),
            Self::ServerClosed(reason) if reason == "TLS Handshake Failure" => Layer::BrokerTls,
            Self::ServerClosed(_) => Layer::None,
            Self::ServerAlert(_) => Layer::BrokerTls,
            Self::ClientHandshake(_) => Layer::ClientTls,
            Self::Rejected(Rejected::Withdrawn { .. }) => Layer::None,
            Self::Rejected(_) | Self::Noticed(_) => Layer::Receiver,
        }
    }

    /// What an attempt to connect with async-nats says, if it was a refusal.
    pub(crate) fn of_raw_connect(error: &async_nats::ConnectError) -> Option<Self> {
        if error.kind() == async_nats::ConnectErrorKind::AuthorizationViolation {
            return Some(Self::ServerError("Authorization Violation".into()));
        }
        alert(error).map(Self::ServerAlert)
    }

    /// What a raw TLS connection says, if it was a refusal.
    pub(crate) fn of_raw_socket(error: &std::io::Error) -> Option<Self> {
        alert(error).map(Self::ServerAlert)
    }

    /// What our own client says, if it refused the server.
    pub(crate) fn of_victim(error: &ConnectError) -> Option<Self> {
        match error {
            ConnectError::Handshake { reason, .. } => Some(Self::ClientHandshake(reason.clone())),
            _ => None,
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerError(text) => write!(f, "{text}"),
            Self::ServerClosed(reason) => write!(f, "closed: {reason}"),
            Self::ServerDisconnected(text) => write!(f, "disconnected, then: {text}"),
            Self::ServerAlert(alert) => write!(f, "TLS alert: {alert:?}"),
            Self::ClientHandshake(reason) => write!(f, "{reason}"),
            Self::Rejected(rejected) => write!(f, "{rejected}"),
            Self::Noticed(what) => write!(f, "{what}"),
        }
    }
}

fn layer_of_error(text: &str) -> Layer {
    if text.starts_with("permissions violation") {
        Layer::BrokerPermissions
    } else if text.starts_with("authorization violation") {
        Layer::BrokerAuthentication
    } else if text.starts_with("maximum payload violation") || text.starts_with("maximum subscriptions exceeded") {
        Layer::BrokerLimits
    } else {
        Layer::None
    }
}

/// The TLS alert that the other side sent, anywhere inside an error.
fn alert(error: &(dyn std::error::Error + 'static)) -> Option<AlertDescription> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref() {
            return Some(*alert);
        }
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        current = inside.map(|inside| inside as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    None
}
