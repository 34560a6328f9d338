//! Where it is said: the NATS subjects of the bus.
//!
//! | space | subject |
//! |---|---|
//! | events | `<root>.events.<type>.<role>.<component>` |
//! | directed, replies included | `<root>.inbox.<dst-role>.<dst>.<type>.<role>.<component>` |
//! | probe | `<root>.control.bus.ping.<role>.<component>` |
//! | keys | `<root>.keys.<role>.<component>`, kept in a stream: a component's key bundles, no messages |
//! | sealing keys | `<root>.sealing.<role>.<component>`, kept in a stream: records of its sealing keys, no messages |
//!
//! The last two tokens always name the sender, and the broker pins them to the sender's certificate. A subject is only
//! ever built from values that passed their grammar, so no name can smuggle in a dot or a wildcard.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use crate::identity::{ComponentId, Endpoint, IdentityError, Principal, Role, check_token, printable};
use crate::message_type::{MessageType, UnknownMessageType};

/// The longest subject, in bytes.
pub const MAX_SUBJECT_LEN: usize = 512;

/// The longest subject root, in bytes.
pub const MAX_ROOT_LEN: usize = 128;

/// Why a subject is not one of the bus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubjectError {
    /// The root is malformed.
    #[error(
        "subject root `{text}` is malformed: it must be tokens of a-z, 0-9 and inner `-`, joined by dots, at most 128 bytes in all"
    )]
    Root {
        /// The text, shortened and escaped.
        text: String,
    },
    /// The subject is outside the spaces that carry messages.
    #[error("`{text}` is not a message subject under this root")]
    Shape {
        /// The text, shortened and escaped.
        text: String,
    },
    /// The type token names no message type.
    #[error(transparent)]
    Type(#[from] UnknownMessageType),
    /// A role or component token breaks its grammar.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// To whoever the policy lets receive events of its type.
    Events,
    /// To one component alone.
    Inbox(Endpoint),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events => f.write_str("events"),
            Self::Inbox(endpoint) => write!(f, "inbox of {endpoint}"),
        }
    }
}

/// What a message subject says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Where the message goes.
    pub destination: Destination,
    /// Its type.
    pub message_type: MessageType,
    /// Who sent it. The broker lets nobody else use these tokens.
    pub sender: Endpoint,
}

/// The first token or tokens of every subject of one bus; `ransomeye` unless configured.
///
/// ```
/// use bus_proto::{Destination, MessageType, SubjectRoot};
///
/// let root = SubjectRoot::default();
/// let agent = "spiffe://ransomeye.local/agent/agent-01".parse()?;
/// let subject = root.subject(&Destination::Events, &MessageType::Heartbeat, &agent);
/// assert_eq!(subject, "ransomeye.events.heartbeat.agent.agent-01");
/// assert_eq!(root.parse(&subject).unwrap().sender, agent.endpoint);
/// # Ok::<(), bus_proto::IdentityError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubjectRoot(Arc<str>);

impl Default for SubjectRoot {
    fn default() -> Self {
        Self("ransomeye".into())
    }
}

impl FromStr for SubjectRoot {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for SubjectRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SubjectRoot {
    /// Parses and checks a root: one or more tokens, so that `$SYS`, `_INBOX` and wildcards are impossible.
    ///
    /// # Errors
    ///
    /// When the text breaks that grammar.
    pub fn new(text: &str) -> Result<Self, SubjectError> {
        let tokens_hold = text.split('.').all(|token| check_token("subject root", token).is_ok());
        if text.len() > MAX_ROOT_LEN || !tokens_hold {
            return Err(SubjectError::Root { text: printable(text) });
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The subject of one message.
    #[must_use]
    pub fn subject(&self, destination: &Destination, message_type: &MessageType, sender: &Principal) -> String {
        let tail = format!("{}.{}.{}", message_type.token(), sender.role(), sender.component());
        match destination {
            Destination::Events => format!("{self}.events.{tail}"),
            Destination::Inbox(to) => format!("{self}.inbox.{}.{}.{tail}", to.role, to.component),
        }
    }

    /// What to subscribe to for events: of one type, or of every type.
    #[must_use]
    pub fn events_filter(&self, message_type: Option<&MessageType>) -> String {
        match message_type {
            Some(message_type) => format!("{self}.events.{}.>", message_type.token()),
            None => format!("{self}.events.>"),
        }
    }

    /// What to subscribe to for messages directed to `owner`: of one type, or of every type.
    #[must_use]
    pub fn inbox_filter(&self, owner: &Endpoint, message_type: Option<&MessageType>) -> String {
        let inbox = format!("{self}.inbox.{}.{}", owner.role, owner.component);
        match message_type {
            Some(message_type) => format!("{inbox}.{}.>", message_type.token()),
            None => format!("{inbox}.>"),
        }
    }

    /// A subject that only `sender` may publish to and nobody may subscribe to. The broker's answer, "no responders",
    /// proves an authenticated round trip.
    #[must_use]
    pub fn probe(&self, sender: &Endpoint) -> String {
        format!("{self}.control.bus.ping.{}.{}", sender.role, sender.component)
    }

    /// Takes a message subject apart. It must be concrete: a wildcard is no token of any name.
    ///
    /// # Errors
    ///
    /// When the subject is under another root, of another shape, or a token breaks its grammar.
    pub fn parse(&self, subject: &str) -> Result<Address, SubjectError> {
        let shape = || SubjectError::Shape { text: printable(subject) };
        if subject.len() > MAX_SUBJECT_LEN {
            return Err(shape());
        }
        let rest = subject.strip_prefix(self.as_str()).and_then(|rest| rest.strip_prefix('.')).ok_or_else(shape)?;
        let (space, rest) = rest.split_once('.').ok_or_else(shape)?;
        let mut tokens = rest.split('.');
        let mut token = || tokens.next().ok_or_else(shape);
        let destination = match space {
            "events" => Destination::Events,
            "inbox" => Destination::Inbox(endpoint(token()?, token()?)?),
            _ => return Err(shape()),
        };
        let address = Address {
            destination,
            message_type: MessageType::from_token(token()?)?,
            sender: endpoint(token()?, token()?)?,
        };
        match tokens.next() {
            None => Ok(address),
            Some(_) => Err(shape()),
        }
    }
}

fn endpoint(role: &str, component: &str) -> Result<Endpoint, IdentityError> {
    Ok(Endpoint { role: Role::new(role)?, component: ComponentId::new(component)? })
}

/// The prefix of the private subjects on which the broker answers `owner`: `_INBOX.<role>.<component>`.
#[must_use]
pub fn reply_prefix(owner: &Endpoint) -> String {
    let mut prefix = "_INBOX.".to_owned();
    prefix.push_str(owner.role.as_str());
    prefix.push('.');
    prefix.push_str(owner.component.as_str());
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_roots_are_refused() {
        let long = "a".repeat(10_000);
        for root in ["", ".", "a.", ".a", "$SYS", "_INBOX", "a.*", ">", "a b", "A", "ä", &long] {
            assert!(SubjectRoot::new(root).is_err(), "{root:?}");
        }
        assert!(SubjectRoot::new("acme.prod").is_ok());
    }

    #[test]
    fn subjects_of_another_shape_are_refused() {
        let root = SubjectRoot::default();
        for subject in [
            "",
            "ransomeye",
            "ransomeye.",
            "ransomeye.events",
            "ransomeye.events.>",
            "ransomeye.events.telemetry.agent",
            "ransomeye.events.telemetry.agent.a.b",
            "ransomeye.events.telemetry.*.a",
            "ransomeye.events.TelemetryEvent.agent.a",
            "ransomeye.inbox.core.c.telemetry.agent",
            "ransomeye.control.bus.ping.agent.a",
            "ransomeye.keys.agent.a",
            "ransomeye.keys.telemetry.agent.a",
            "ransomeye.sealing.agent.a",
            "ransomeye.sealing.telemetry.agent.a",
            "ransomeyes.events.telemetry.agent.a",
            "other.events.telemetry.agent.a",
        ] {
            assert!(root.parse(subject).is_err(), "{subject:?}");
        }
    }

    proptest! {
        #[test]
        fn building_and_parsing_a_subject_agree(
            directed in any::<bool>(),
            names in proptest::array::uniform4("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
            kind in 0_usize..6,
        ) {
            let root = SubjectRoot::default();
            let sender = Principal::new(
                crate::TrustDomain::new("td").unwrap(), Role::new(&names[0]).unwrap(), ComponentId::new(&names[1]).unwrap(),
            );
            let destination = if directed {
                Destination::Inbox(endpoint(&names[2], &names[3]).unwrap())
            } else {
                Destination::Events
            };
            let message_type = MessageType::BUILT_IN[kind].clone();
            let parsed = root.parse(&root.subject(&destination, &message_type, &sender)).unwrap();
            prop_assert_eq!(parsed, Address { destination, message_type, sender: sender.endpoint });
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "(ransomeye\\.)?\\PC*") {
            let _ = SubjectRoot::default().parse(&text);
        }
    }
}
