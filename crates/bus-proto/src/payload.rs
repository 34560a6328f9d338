//! What an envelope carries: the built-in payloads, and the types that a program registers.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use prost::{Message, Name};

use crate::identity::{ComponentId, Endpoint};
use crate::message_type::{CustomType, MessageType, UnknownMessageType};
use crate::v1;
use crate::v1::envelope::Payload as Variant;

/// Any payload, of whatever type: the generated oneof of [`v1::Envelope`].
pub type AnyPayload = Variant;

/// Why a payload is not of the type that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The protobuf type was never registered.
    #[error("the protobuf type `{type_name}` is not registered: register it on both sides under one `x-` token")]
    Unregistered {
        /// The full protobuf name.
        type_name: String,
    },
    /// The payload is a form that this version cannot open.
    #[error("this version cannot open {form} payloads")]
    UnsupportedForm {
        /// Which form.
        form: &'static str,
    },
    /// The payload is of another type than asked for.
    #[error("the payload is {found}, not {wanted}")]
    WrongType {
        /// What was asked for.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// The bytes are not an encoded message of the registered type.
    #[error("the bytes are not a `{type_name}`: {reason}")]
    Undecodable {
        /// The full protobuf name.
        type_name: String,
        /// What the decoder says.
        reason: String,
    },
    /// A type was registered twice, or two types under one token.
    #[error("`{type_name}` or its token `{token}` is registered already")]
    RegisteredTwice {
        /// The full protobuf name.
        type_name: String,
        /// The subject token.
        token: String,
    },
    /// The token is no custom message type.
    #[error(transparent)]
    Token(#[from] UnknownMessageType),
}

/// The message types that a program adds to the built-in ones, each under a subject token that starts with `x-`.
///
/// Sender and receiver register the same types. What is not registered is refused on both sides.
#[derive(Debug, Clone, Default)]
pub struct TypeRegistry {
    by_name: BTreeMap<String, CustomType>,
}

impl TypeRegistry {
    /// Registers the protobuf type `T` under `token`.
    ///
    /// # Errors
    ///
    /// When the token is malformed, or the type or the token is taken.
    pub fn register<T: Name>(&mut self, token: &str) -> Result<(), PayloadError> {
        let token = CustomType::new(token)?;
        let type_name = T::full_name();
        if self.by_name.contains_key(&type_name) || self.by_name.values().any(|taken| *taken == token) {
            return Err(PayloadError::RegisteredTwice { type_name, token: token.as_str().into() });
        }
        self.by_name.insert(type_name, token);
        Ok(())
    }

    /// The token of a registered protobuf type.
    ///
    /// # Errors
    ///
    /// When the type is not registered.
    pub fn token(&self, type_name: &str) -> Result<&CustomType, PayloadError> {
        self.by_name
            .get(type_name)
            .ok_or_else(|| PayloadError::Unregistered { type_name: crate::identity::printable(type_name) })
    }

    /// The type of a payload.
    ///
    /// # Errors
    ///
    /// When it is a custom payload that is not registered, or a form (`sealed`, `batch`, `compressed`), which is no type.
    pub fn message_type(&self, payload: &AnyPayload) -> Result<MessageType, PayloadError> {
        Ok(match payload {
            Variant::Telemetry(_) => MessageType::Telemetry,
            Variant::Alert(_) => MessageType::Alert,
            Variant::Command(_) => MessageType::Command,
            Variant::Heartbeat(_) => MessageType::Heartbeat,
            Variant::CommandResult(_) => MessageType::CommandResult,
            Variant::Error(_) => MessageType::Error,
            Variant::Custom(custom) => MessageType::Custom(self.token(&custom.type_name)?.clone()),
            Variant::Sealed(_) => return Err(PayloadError::UnsupportedForm { form: "sealed" }),
            Variant::Batch(_) => return Err(PayloadError::UnsupportedForm { form: "batch" }),
            Variant::Compressed(_) => return Err(PayloadError::UnsupportedForm { form: "compressed" }),
        })
    }
}

/// A type that can be published and subscribed to.
///
/// Implemented for the built-in payloads, for [`Registered`] custom types, and for [`AnyPayload`], which stands for
/// every type.
pub trait Payload: Sized + Send + 'static {
    /// The one message type that values of this Rust type have, or `None` where they may have any.
    ///
    /// # Errors
    ///
    /// When it is a custom type that is not registered.
    fn message_type(registry: &TypeRegistry) -> Result<Option<MessageType>, PayloadError>;

    /// Wraps the value for an envelope.
    fn into_payload(self) -> AnyPayload;

    /// Takes the value out of an envelope.
    ///
    /// # Errors
    ///
    /// When the payload is of another type, or does not decode.
    fn from_payload(payload: AnyPayload) -> Result<Self, PayloadError>;

    /// Takes the value out of a custom payload that is still encoded: the protobuf name of its type, and its bytes.
    ///
    /// # Errors
    ///
    /// As [`Payload::from_payload`].
    fn from_custom(type_name: &str, value: &[u8]) -> Result<Self, PayloadError> {
        let value = prost::bytes::Bytes::copy_from_slice(value);
        Self::from_payload(Variant::Custom(v1::Custom { type_name: type_name.into(), value }))
    }
}

/// A value of a protobuf type that the program registered with [`TypeRegistry::register`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registered<T>(pub T);

impl<T: Message + Name + Default + 'static> Payload for Registered<T> {
    fn message_type(registry: &TypeRegistry) -> Result<Option<MessageType>, PayloadError> {
        Ok(Some(MessageType::Custom(registry.token(&T::full_name())?.clone())))
    }

    fn into_payload(self) -> AnyPayload {
        Variant::Custom(v1::Custom { type_name: T::full_name(), value: self.0.encode_to_vec().into() })
    }

    fn from_payload(payload: AnyPayload) -> Result<Self, PayloadError> {
        match payload {
            Variant::Custom(custom) => Self::from_custom(&custom.type_name, &custom.value),
            other => Err(wrong_type(&T::full_name(), &other)),
        }
    }

    fn from_custom(type_name: &str, value: &[u8]) -> Result<Self, PayloadError> {
        if !is_named::<T>(type_name) {
            return Err(PayloadError::WrongType {
                wanted: T::full_name(),
                found: crate::identity::printable(type_name),
            });
        }
        T::decode(value)
            .map(Self)
            .map_err(|error| PayloadError::Undecodable { type_name: T::full_name(), reason: alloc::format!("{error}") })
    }
}

/// Whether this is the full name of a type. The usual one is found without putting it together.
fn is_named<T: Name>(text: &str) -> bool {
    let usual =
        text.strip_prefix(T::PACKAGE).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| rest == T::NAME);
    (usual && !T::PACKAGE.is_empty()) || text == T::full_name()
}

impl Payload for AnyPayload {
    fn message_type(_: &TypeRegistry) -> Result<Option<MessageType>, PayloadError> {
        Ok(None)
    }

    fn into_payload(self) -> AnyPayload {
        self
    }

    fn from_payload(payload: AnyPayload) -> Result<Self, PayloadError> {
        Ok(payload)
    }
}

/// What is on its way out: a payload alone, or a whole envelope whose further fields (expiry, priority, tags) are set.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// A payload, to be wrapped.
    Payload(AnyPayload),
    /// An envelope.
    Envelope(Box<v1::Envelope>),
    /// Either, and what it is about.
    Referring(Box<Outgoing>, AttachedReferences),
}

/// What a message is about, for those who may know.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachedReferences {
    /// What it is about: 1 to 64.
    pub references: Vec<v1::Reference>,
    /// Whom that is sealed to: 1 to 256. Whoever else receives the message learns only that there are some, and for whom.
    pub readers: Vec<Endpoint>,
}

impl Outgoing {
    /// Makes the envelope, which the references are apart from. `source`, `now_unix_ms` and `random` are used where there is
    /// none yet.
    #[must_use]
    pub fn into_envelope(
        self,
        source: &ComponentId,
        now_unix_ms: i64,
        random: [u8; 10],
    ) -> (v1::Envelope, Option<AttachedReferences>) {
        let (message, references) = self.take_references();
        match message {
            Self::Envelope(envelope) => (*envelope, references),
            Self::Payload(payload) => (v1::Envelope::new(source, payload, now_unix_ms, random), references),
            Self::Referring(message, _) => message.into_envelope(source, now_unix_ms, random),
        }
    }

    /// The message without its references, and these. Of several that were attached, the last count.
    #[must_use]
    pub fn take_references(self) -> (Self, Option<AttachedReferences>) {
        match self {
            Self::Referring(message, references) => (message.take_references().0, Some(references)),
            message => (message, None),
        }
    }
}

/// What can be published: a payload, or a whole envelope whose further fields are set.
pub trait IntoOutgoing: Send {
    /// Gives it away.
    fn into_outgoing(self) -> Outgoing;

    /// Says what the message is about, to `readers` alone: that is sealed apart from the payload (requirement C1).
    ///
    /// ```
    /// use bus_proto::IntoOutgoing;
    /// use bus_proto::v1::{AlertEvent, Reference, Severity};
    ///
    /// let alert = AlertEvent { threat_type: "exfiltration".into(), severity: Severity::High.into(), ..AlertEvent::default() };
    /// let case = Reference { kind: "case".into(), value: "2026-0117".into() };
    /// let message = alert.with_references([case], ["core/core-01".parse()?]);
    /// # let _ = message;
    /// # Ok::<(), bus_proto::IdentityError>(())
    /// ```
    fn with_references(
        self,
        references: impl IntoIterator<Item = v1::Reference>,
        readers: impl IntoIterator<Item = Endpoint>,
    ) -> Outgoing
    where
        Self: Sized,
    {
        let references = references.into_iter().collect();
        let readers = readers.into_iter().collect();
        Outgoing::Referring(Box::new(self.into_outgoing()), AttachedReferences { references, readers })
    }
}

impl IntoOutgoing for Outgoing {
    fn into_outgoing(self) -> Outgoing {
        self
    }
}

impl IntoOutgoing for v1::Envelope {
    fn into_outgoing(self) -> Outgoing {
        Outgoing::Envelope(Box::new(self))
    }
}

impl IntoOutgoing for AnyPayload {
    fn into_outgoing(self) -> Outgoing {
        Outgoing::Payload(self)
    }
}

impl<T: Message + Name + Default + 'static> IntoOutgoing for Registered<T> {
    fn into_outgoing(self) -> Outgoing {
        Outgoing::Payload(self.into_payload())
    }
}

fn wrong_type(wanted: &str, found: &AnyPayload) -> PayloadError {
    PayloadError::WrongType { wanted: wanted.into(), found: name(found).into() }
}

fn name(payload: &AnyPayload) -> &'static str {
    match payload {
        Variant::Telemetry(_) => "Telemetry",
        Variant::Alert(_) => "Alert",
        Variant::Command(_) => "Command",
        Variant::Heartbeat(_) => "Heartbeat",
        Variant::CommandResult(_) => "CommandResult",
        Variant::Error(_) => "Error",
        Variant::Custom(_) => "a custom type",
        Variant::Sealed(_) => "sealed",
        Variant::Batch(_) => "a batch",
        Variant::Compressed(_) => "compressed",
    }
}

macro_rules! built_in {
    ($($message:ident => $variant:ident),* $(,)?) => {$(
        impl From<v1::$message> for AnyPayload {
            fn from(message: v1::$message) -> Self {
                Variant::$variant(message)
            }
        }

        impl IntoOutgoing for v1::$message {
            fn into_outgoing(self) -> Outgoing {
                Outgoing::Payload(self.into())
            }
        }

        impl Payload for v1::$message {
            fn message_type(_: &TypeRegistry) -> Result<Option<MessageType>, PayloadError> {
                Ok(Some(MessageType::$variant))
            }

            fn into_payload(self) -> AnyPayload {
                self.into()
            }

            fn from_payload(payload: AnyPayload) -> Result<Self, PayloadError> {
                match payload {
                    Variant::$variant(message) => Ok(message),
                    other => Err(wrong_type(stringify!($variant), &other)),
                }
            }
        }
    )*};
}

built_in! {
    TelemetryEvent => Telemetry,
    AlertEvent => Alert,
    CommandRequest => Command,
    Heartbeat => Heartbeat,
    CommandResult => CommandResult,
    Error => Error,
}

impl v1::CommandResult {
    /// The command was carried out; `detail` says how, for people.
    #[must_use]
    pub fn completed(detail: impl Into<String>) -> Self {
        Self { status: v1::CommandStatus::Completed.into(), detail: detail.into() }
    }

    /// The command was tried and did not work; `detail` says why, for people.
    #[must_use]
    pub fn failed(detail: impl Into<String>) -> Self {
        Self { status: v1::CommandStatus::Failed.into(), detail: detail.into() }
    }

    /// This component will not do that; `detail` says why, for people.
    #[must_use]
    pub fn refused(detail: impl Into<String>) -> Self {
        Self { status: v1::CommandStatus::Refused.into(), detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_type_round_trips() {
        let mut registry = TypeRegistry::default();
        registry.register::<v1::TraceContext>("x-trace").unwrap();
        let sent = Registered(v1::TraceContext { traceparent: "00".into(), tracestate: String::new() });
        let payload = sent.clone().into_payload();
        assert_eq!(registry.message_type(&payload).unwrap().token(), "x-trace");
        assert_eq!(Registered::<v1::TraceContext>::from_payload(payload).unwrap(), sent);
    }

    #[test]
    fn an_unregistered_type_is_refused() {
        let registry = TypeRegistry::default();
        let payload = Registered(v1::TraceContext::default()).into_payload();
        assert!(matches!(registry.message_type(&payload), Err(PayloadError::Unregistered { .. })));
        assert!(Registered::<v1::TraceContext>::message_type(&registry).is_err());
    }

    #[test]
    fn a_type_or_a_token_cannot_be_registered_twice() {
        let mut registry = TypeRegistry::default();
        registry.register::<v1::TraceContext>("x-trace").unwrap();
        assert!(registry.register::<v1::TraceContext>("x-other").is_err());
        assert!(registry.register::<v1::Authentication>("x-trace").is_err());
        assert!(registry.register::<v1::Authentication>("trace").is_err());
    }

    #[test]
    fn another_payload_than_asked_for_is_refused() {
        let payload = AnyPayload::from(v1::Heartbeat::default());
        assert!(matches!(v1::TelemetryEvent::from_payload(payload), Err(PayloadError::WrongType { .. })));
    }

    #[test]
    fn forms_are_no_types() {
        let registry = TypeRegistry::default();
        assert!(registry.message_type(&Variant::Batch(v1::Batch::default())).is_err());
        assert!(registry.message_type(&Variant::Sealed(v1::Sealed::default())).is_err());
    }
}
