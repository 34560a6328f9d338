//! A message whose sender is proven.

use std::sync::Arc;

use bus_crypto::KeyId;
use bus_proto::prost::Message as _;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{Reference, TraceContext};
use bus_proto::{MessageType, Principal};

use super::keyring::KnownKey;
use super::open::Disclosed;

/// A message whose sender is proven: it was signed with a key that the sender's certificate vouches for, it arrived
/// where it was sent, the policy allows it, and it is no repetition.
///
/// Only this crate makes one. The broker and everyone else on the way could have withheld the message, and nothing else.
///
/// Cloning it copies the payload; what it shares with others of its envelope stays shared.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    pub(super) head: Arc<Head>,
    pub(super) item: Item,
    pub(super) payload: T,
}

/// What the messages of one envelope have in common.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) sender: Principal,
    pub(super) subject: Arc<str>,
    pub(super) message_type: MessageType,
    pub(super) directed: bool,
    pub(super) key_id: KeyId,
    pub(super) sequence: u64,
    pub(super) priority: u32,
    pub(super) tags: Vec<String>,
    pub(super) trace_context: Option<TraceContext>,
    pub(super) digest: [u8; 32],
    pub(super) sealed: bool,
    pub(super) disclosed: Disclosed,
    /// The whole envelope with the bundle of its key, if they are to be kept.
    pub(super) evidence: Option<(Bytes, Arc<KnownKey>)>,
}

/// What one message of an envelope has of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) message_id: [u8; 36],
    pub(super) timestamp: i64,
    /// 0 for never.
    pub(super) expires_at: i64,
    pub(super) correlation: Option<[u8; 32]>,
    /// Its place in a batch, from 0.
    pub(super) member: Option<u16>,
}

/// What proves a message to others, and later: the envelope as it arrived, and the bundle of the key that signed it.
///
/// `bus verify` checks it against the deployment's CA. A message of a batch is proven by the whole batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evidence {
    /// The envelope, to the byte.
    pub envelope: Bytes,
    /// The encoded key bundle.
    pub bundle: Bytes,
}

impl<T> Verified<T> {
    /// Who sent it, as its signature proves.
    #[must_use]
    pub fn sender(&self) -> &Principal {
        &self.head.sender
    }

    /// The key that it is signed with. It stands for the sending process, and changes when that rotates its key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.head.key_id
    }

    /// The subject that it was published to.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.head.subject
    }

    /// Its type.
    #[must_use]
    pub fn message_type(&self) -> &MessageType {
        &self.head.message_type
    }

    /// Whether it was sent to this component alone.
    #[must_use]
    pub fn is_directed(&self) -> bool {
        self.head.directed
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
        // The scan lets nothing but hyphens and hexadecimal digits pass.
        std::str::from_utf8(&self.item.message_id).unwrap_or_default()
    }

    /// When its sender made it, in Unix milliseconds by the sender's clock.
    #[must_use]
    pub fn timestamp_unix_ms(&self) -> i64 {
        self.item.timestamp
    }

    /// When it stops being worth anything, in Unix milliseconds by the sender's clock; 0 for never.
    #[must_use]
    pub fn expires_unix_ms(&self) -> i64 {
        self.item.expires_at
    }

    /// The position of its envelope among those that its sender's key signed for this subject, from 1. The messages of a
    /// batch share one.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.head.sequence
    }

    /// Its place in the batch that it came in, from 0, or `None` if it came alone.
    #[must_use]
    pub fn batch_index(&self) -> Option<u16> {
        self.item.member
    }

    /// Its urgency, 1 to 10.
    #[must_use]
    pub fn priority(&self) -> u32 {
        self.head.priority
    }

    /// Its labels.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.head.tags
    }

    /// Its position in a distributed trace, if it has one.
    #[must_use]
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.head.trace_context.as_ref()
    }

    /// Whether it was sealed on its way, so that nobody but its recipients could read it.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.head.sealed
    }

    /// What it is about, as far as that is sealed to this component. The messages of a batch share it.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        &self.head.disclosed.references
    }

    /// Whether it says what it is about to others alone.
    #[must_use]
    pub fn has_hidden_references(&self) -> bool {
        self.head.disclosed.withheld
    }

    /// The SHA-256 of the signed bytes of its envelope, which the messages of a batch share.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.head.digest
    }

    /// What proves it to others, if the subscription keeps that
    /// ([`Subscription::keep_evidence`](crate::Subscription::keep_evidence)).
    #[must_use]
    pub fn evidence(&self) -> Option<Evidence> {
        let (envelope, key) = self.head.evidence.as_ref()?;
        Some(Evidence { envelope: envelope.clone(), bundle: key.encoded().clone() })
    }

    /// The same message with its payload turned into another, or the error and the payload as it was.
    pub(crate) fn try_map<U, E>(self, map: impl FnOnce(T) -> Result<U, E>) -> Result<Verified<U>, (E, T)>
    where
        T: Clone,
    {
        let Self { head, item, payload } = self;
        match map(payload.clone()) {
            Ok(payload) => Ok(Verified { head, item, payload }),
            Err(error) => Err((error, payload)),
        }
    }

    /// What an answer to it must carry. Only a directed message that came alone can be answered.
    pub(crate) fn answerable(&self) -> Option<[u8; 32]> {
        (self.head.directed && self.item.member.is_none()).then_some(self.head.digest)
    }

    pub(crate) fn correlation(&self) -> Option<[u8; 32]> {
        self.item.correlation
    }
}

impl Head {
    /// The labels and the trace context, out of the scan.
    pub(super) fn labels(scan: &bus_crypto::Scan<'_>) -> (Vec<String>, Option<TraceContext>) {
        let tags = scan.tags().iter().map(|tag| (*tag).to_owned()).collect();
        let trace = Some(scan.trace_context()).filter(|bytes| !bytes.is_empty());
        // The scan has read all of it already.
        (tags, trace.and_then(|bytes| TraceContext::decode(bytes).ok()))
    }
}
