//! What is said: the kinds of message, by the token that stands for each in a subject.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use crate::identity::{check_token, printable};

/// A text that names no message type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no message type: use Telemetry, Alert, Command, Heartbeat, CommandResult, Error, or `x-` and a name \
     of a-z, 0-9 and inner `-`, at most 63 bytes in all"
)]
pub struct UnknownMessageType {
    /// The text, shortened and escaped.
    pub text: String,
}

/// The subject token of a type that programs registered: `x-` and a name.
///
/// ```
/// use bus_proto::CustomType;
///
/// assert!(CustomType::new("x-disk-usage").is_ok());
/// assert!(CustomType::new("disk-usage").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomType(Arc<str>);

impl CustomType {
    /// Parses and checks the token.
    ///
    /// # Errors
    ///
    /// When it does not begin with `x-`, or breaks the grammar of a subject token.
    pub fn new(token: &str) -> Result<Self, UnknownMessageType> {
        if token.len() > 2 && token.starts_with("x-") && check_token("message type", token).is_ok() {
            Ok(Self(token.into()))
        } else {
            Err(UnknownMessageType { text: printable(token) })
        }
    }

    /// The token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A kind of message.
///
/// Parsing accepts the subject token (`telemetry`) and the names that configuration may use (`Telemetry`,
/// `TelemetryEvent`). Printing gives the name; [`MessageType::token`] gives what stands in a subject.
///
/// ```
/// use bus_proto::MessageType;
///
/// let a: MessageType = "TelemetryEvent".parse()?;
/// let b: MessageType = "telemetry".parse()?;
/// assert_eq!(a, b);
/// assert_eq!(a.token(), "telemetry");
/// # Ok::<(), bus_proto::UnknownMessageType>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageType {
    /// `TelemetryEvent`: a host's load.
    Telemetry,
    /// `AlertEvent`: something to look at.
    Alert,
    /// `CommandRequest`: an order to one component.
    Command,
    /// `Heartbeat`: a sign of life.
    Heartbeat,
    /// `CommandResult`: what came of a command. An answer.
    CommandResult,
    /// `Error`: why a request got no proper answer. An answer.
    Error,
    /// A type that programs registered.
    Custom(CustomType),
}

impl MessageType {
    /// Every type that is not [`MessageType::Custom`].
    pub const BUILT_IN: [Self; 6] =
        [Self::Telemetry, Self::Alert, Self::Command, Self::Heartbeat, Self::CommandResult, Self::Error];

    /// What stands for this type in a subject.
    #[must_use]
    pub fn token(&self) -> &str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Alert => "alert",
            Self::Command => "command",
            Self::Heartbeat => "heartbeat",
            Self::CommandResult => "result",
            Self::Error => "error",
            Self::Custom(token) => token.as_str(),
        }
    }

    /// The type that a subject token stands for. Aliases are not accepted here.
    ///
    /// # Errors
    ///
    /// When no type has that token.
    pub fn from_token(token: &str) -> Result<Self, UnknownMessageType> {
        match token {
            "telemetry" => Ok(Self::Telemetry),
            "alert" => Ok(Self::Alert),
            "command" => Ok(Self::Command),
            "heartbeat" => Ok(Self::Heartbeat),
            "result" => Ok(Self::CommandResult),
            "error" => Ok(Self::Error),
            _ => CustomType::new(token).map(Self::Custom),
        }
    }

    /// Whether this type only ever answers a request, and is never published on its own.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::CommandResult | Self::Error)
    }

    /// Whether a message of this type is worthless when it is late: live delivery, with a freshness check.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Telemetry | Self::Heartbeat | Self::Custom(_))
    }
}

impl FromStr for MessageType {
    type Err = UnknownMessageType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "Telemetry" | "TelemetryEvent" => Ok(Self::Telemetry),
            "Alert" | "AlertEvent" => Ok(Self::Alert),
            "Command" | "CommandRequest" => Ok(Self::Command),
            "Heartbeat" => Ok(Self::Heartbeat),
            "CommandResult" | "Result" => Ok(Self::CommandResult),
            "Error" => Ok(Self::Error),
            token => Self::from_token(token),
        }
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Telemetry => "Telemetry",
            Self::Alert => "Alert",
            Self::Command => "Command",
            Self::Heartbeat => "Heartbeat",
            Self::CommandResult => "CommandResult",
            Self::Error => "Error",
            Self::Custom(token) => token.as_str(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_tokens_and_aliases_agree() {
        for message_type in MessageType::BUILT_IN {
            assert_eq!(message_type.to_string().parse(), Ok(message_type.clone()));
            assert_eq!(message_type.token().parse(), Ok(message_type.clone()));
            assert_eq!(MessageType::from_token(message_type.token()), Ok(message_type));
        }
        assert_eq!("CommandRequest".parse(), Ok(MessageType::Command));
        assert_eq!("AlertEvent".parse(), Ok(MessageType::Alert));
    }

    #[test]
    fn an_alias_is_no_subject_token() {
        assert!(MessageType::from_token("TelemetryEvent").is_err());
        assert!(MessageType::from_token("Telemetry").is_err());
    }

    #[test]
    fn hostile_custom_types_are_refused() {
        let long = alloc::format!("x-{}", "a".repeat(62));
        for token in ["x-", "x-.", "x-*", "x->", "x-a b", "x-ä", "x-A", "y-a", "x-a-", "batch", "sealed", &long] {
            assert!(token.parse::<MessageType>().is_err(), "{token:?}");
        }
    }
}
