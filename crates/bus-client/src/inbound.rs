//! The way in: from the broker's bytes to a message whose sender is attested.

use aws_lc_rs::digest;
use bus_acl::{Action, Denied, Policy};
use bus_proto::prost::Message as _;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{Envelope, TraceContext};
use bus_proto::{
    Address, Delivery, Destination, EnvelopeError, MessageType, Payload, PayloadError, Principal, SubjectError,
    SubjectRoot, TypeRegistry,
};

use crate::connection::unix_ms;

/// Why a message that arrived was refused. The subscription goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// It is larger than the bus carries.
    #[error("the message has {size} bytes, at most {max} are accepted")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The most, in bytes.
        max: usize,
    },
    /// It arrived on a subject that is none of the bus.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// Its bytes are not an envelope.
    #[error("the bytes are not an envelope: {reason}")]
    Undecodable {
        /// What the decoder says.
        reason: String,
    },
    /// The envelope breaks a rule, or does not belong where it arrived.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The policy denies its sender this message.
    #[error(transparent)]
    Denied(Box<Denied>),
    /// The payload is not of the type that was subscribed to.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// It answers no request of this client.
    #[error("an answer from {sender} matches no request that waits for it")]
    Unsolicited {
        /// Who sent it.
        sender: Principal,
    },
    /// The broker withdrew the subscription: its permissions changed. Nothing more arrives on it unless they change
    /// back and the client reconnects.
    #[error("the broker withdrew the subscription to `{filter}`")]
    Withdrawn {
        /// What was subscribed to.
        filter: String,
    },
}

impl From<Denied> for Rejected {
    fn from(denied: Denied) -> Self {
        Self::Denied(Box::new(denied))
    }
}

impl Rejected {
    /// A short, stable name of the reason, for counting and searching.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Subject(_) => "subject",
            Self::Undecodable { .. } => "undecodable",
            Self::Envelope(EnvelopeError::SubjectMismatch { .. }) => "subject_mismatch",
            Self::Envelope(EnvelopeError::DestinationMismatch { .. }) => "destination_mismatch",
            Self::Envelope(EnvelopeError::SourceMismatch { .. }) => "source_mismatch",
            Self::Envelope(EnvelopeError::TypeMismatch { .. }) => "type_mismatch",
            Self::Envelope(EnvelopeError::ClockSkew { .. }) => "clock_skew",
            Self::Envelope(EnvelopeError::Expired { .. }) => "expired",
            Self::Envelope(EnvelopeError::Payload(_)) | Self::Payload(_) => "payload",
            Self::Envelope(_) => "envelope",
            Self::Denied(_) => "policy",
            Self::Unsolicited { .. } => "unsolicited",
            Self::Withdrawn { .. } => "withdrawn",
        }
    }
}

/// A message whose sender the broker attests.
///
/// Only this crate makes one, after the subject, the envelope and the policy agreed on who sent it. It says what the
/// broker vouches for; a broker that lies is not excluded by it.
#[derive(Debug, Clone, PartialEq)]
pub struct Received<T> {
    sender: Principal,
    subject: String,
    message_type: MessageType,
    directed: bool,
    digest: Option<[u8; 32]>,
    envelope: Envelope,
    payload: T,
}

impl<T> Received<T> {
    /// Who sent it, as the broker attests.
    #[must_use]
    pub fn sender(&self) -> &Principal {
        &self.sender
    }

    /// The subject that it was published to.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Its type.
    #[must_use]
    pub fn message_type(&self) -> &MessageType {
        &self.message_type
    }

    /// Whether it was sent to this component alone.
    #[must_use]
    pub fn is_directed(&self) -> bool {
        self.directed
    }

    /// What it carries.
    #[must_use]
    pub fn payload(&self) -> &T {
        &self.payload
    }

    /// What it carries, by value.
    #[must_use]
    pub fn into_payload(self) -> T {
        self.payload
    }

    /// Its identifier, a UUIDv7.
    #[must_use]
    pub fn message_id(&self) -> &str {
        &self.envelope.message_id
    }

    /// When its sender made it, in Unix milliseconds by the sender's clock.
    #[must_use]
    pub fn timestamp_unix_ms(&self) -> i64 {
        self.envelope.timestamp_utc
    }

    /// When it stops being worth anything, in Unix milliseconds by the sender's clock; 0 for never.
    #[must_use]
    pub fn expires_unix_ms(&self) -> i64 {
        self.envelope.expires_at
    }

    /// Its position among what its sender's session published on this subject, from 1; 0 when not counted.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.envelope.sequence
    }

    /// Its urgency, 1 to 10.
    #[must_use]
    pub fn priority(&self) -> u32 {
        self.envelope.effective_priority()
    }

    /// Its labels.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.envelope.tags
    }

    /// Its position in a distributed trace, if it has one.
    #[must_use]
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.envelope.trace_context.as_ref()
    }

    /// The same message with its payload turned into another, or the error and the payload as it was.
    pub(crate) fn try_map<U, E>(self, map: impl FnOnce(T) -> Result<U, E>) -> Result<Received<U>, (E, T)>
    where
        T: Clone,
    {
        let Self { sender, subject, message_type, directed, digest, envelope, payload } = self;
        match map(payload.clone()) {
            Ok(payload) => Ok(Received { sender, subject, message_type, directed, digest, envelope, payload }),
            Err(error) => Err((error, payload)),
        }
    }

    /// What an answer to it must carry: the SHA-256 of the message as it arrived. Only a directed message has one.
    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        self.digest
    }

    pub(crate) fn correlation_id(&self) -> &Bytes {
        &self.envelope.correlation_id
    }

    pub(crate) fn session(&self) -> Bytes {
        self.envelope.authentication.as_ref().map(|trailer| trailer.key_id.clone()).unwrap_or_default()
    }
}

/// The SHA-256 of a message's encoded bytes, by which an answer names its request.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// What a receiver checks an arriving message against.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) receiver: Principal,
    pub(crate) root: SubjectRoot,
    pub(crate) policy: Policy,
    pub(crate) registry: TypeRegistry,
    pub(crate) max_payload: usize,
    pub(crate) skew_ms: i64,
}

impl Gate {
    /// Lets a message through, or says why not. Changes no state.
    pub(crate) fn admit<T: Payload>(&self, message: &async_nats::Message) -> Result<Received<T>, Rejected> {
        let size = message.payload.len();
        if size > self.max_payload {
            return Err(Rejected::TooLarge { size, max: self.max_payload });
        }
        let subject = message.subject.as_str();
        let address = self.root.parse(subject)?;
        let mut envelope = Envelope::decode(message.payload.clone())
            .map_err(|error| Rejected::Undecodable { reason: error.to_string() })?;
        envelope.check_form()?;
        let delivery = Delivery {
            subject,
            address: &address,
            receiver: &self.receiver,
            now_unix_ms: unix_ms(),
            skew_ms: self.skew_ms,
        };
        envelope.check_delivery(&delivery, &self.registry)?;
        let Address { destination, message_type, sender } = address;
        let sender = Principal { trust_domain: self.receiver.trust_domain.clone(), endpoint: sender };
        // Both ends are judged: whether the sender may say this here, and whether this receiver may hear it.
        let _may_send = self.policy.authorize(&sender, Action::Publish, &message_type, &destination)?;
        let _may_hear = self.policy.authorize(&self.receiver, Action::Subscribe, &message_type, &destination)?;
        let directed = matches!(destination, Destination::Inbox(_));
        let payload = T::from_payload(envelope.payload.take().ok_or(EnvelopeError::NoPayload)?)?;
        Ok(Received {
            sender,
            subject: std::mem::take(&mut envelope.subject),
            message_type,
            directed,
            digest: directed.then(|| sha256(&message.payload)),
            envelope,
            payload,
        })
    }
}
