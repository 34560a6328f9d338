//! What a file of vectors holds.
//!
//! Bytes are hexadecimal, 64-bit numbers are decimal strings, so that no reader of JSON rounds them.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A file: what it is about, and its vectors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct File<V> {
    /// For people: how to read the file.
    pub about: String,
    /// The bundles that vectors name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bundles: BTreeMap<String, HeldBundle>,
    /// The vectors, each with a name of its own.
    pub vectors: Vec<V>,
}

/// A bundle that a receiver has verified at the bundle's `not_before`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldBundle {
    /// The encoded bundle.
    pub bundle: Bytes,
    /// The roots of its trust domain, in DER.
    pub roots: Vec<Bytes>,
    /// The trust domain that the roots belong to.
    pub trust_domain: String,
}

/// What a check comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// Accepted, with what was read.
    Accepted(T),
    /// Refused.
    Refused(Refused),
}

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The stable name, as in `docs/wire.md`.
    pub reason: String,
    /// Which message the offending bytes are part of, if the canonical scan refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// The receiver's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Unix milliseconds; absent for evidence that was captured earlier.
    pub now: Option<String>,
    /// How far clocks may differ, in milliseconds.
    pub skew: String,
}

/// A message and its trailer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrailerVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// The message.
    pub message: Bytes,
    /// The parts, or the refusal.
    pub outcome: Outcome<Parts>,
}

/// A message taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// How many bytes stand before the trailer.
    pub prefix_length: usize,
    /// The key id.
    pub key_id: Bytes,
    /// The signature.
    pub signature: Bytes,
}

/// The prefix of an envelope.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScanVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// The prefix.
    pub prefix: Bytes,
    /// What it says, or the refusal.
    pub outcome: Outcome<Reading>,
}

/// What the prefix of an envelope says, as far as checks depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct Reading {
    pub message_id: String,
    pub source_component: String,
    pub timestamp_utc: String,
    pub subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// The field number of the payload, and where it begins and ends in the prefix.
    pub payload: [usize; 3],
    /// The length of the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_length: Option<usize>,
    /// How many members the batch has; 0 if the payload is none.
    pub members: usize,
    /// What everybody reads of a sealed payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedReading>,
    /// What everybody reads of sealed references.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<SealedReading>,
    /// The length of a compressed payload once it is decompressed, and that of its frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed: Option<[usize; 2]>,
}

/// What everybody reads of something sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedReading {
    /// The epoch.
    pub epoch_id: Bytes,
    /// What it commits to.
    pub commitment: Bytes,
    /// The number of this in the epoch, 0 where it is absent.
    pub counter: String,
    /// The length of the ciphertext with its tag.
    pub ciphertext_length: usize,
    /// The recipients of the wrapped keys, and the versions of their keys.
    pub recipients: Vec<(String, String)>,
}

/// What was opened or decompressed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContentVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// What the bytes are: the content of a `sealed` payload, a `compressed` one, or of sealed `references`.
    pub of: String,
    /// The bytes.
    pub content: Bytes,
    /// What it holds, or the refusal.
    pub outcome: Outcome<Holding>,
}

/// What a content holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holding {
    /// The field number of its payload, and where that begins and ends; and how many members a batch has.
    Payload {
        /// Number, beginning and end.
        payload: [usize; 3],
        /// 0 if it is no batch.
        members: usize,
    },
    /// References, each with its kind and value.
    References(Vec<(String, String)>),
}

/// The record of a sealing key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// The encoded record.
    pub record: Bytes,
    /// The roots of the reader, in DER.
    pub roots: Vec<Bytes>,
    /// The trust domain of the roots.
    pub trust_domain: String,
    /// The reader's time.
    pub clock: Time,
    /// Whose key it is, or the refusal.
    pub outcome: Outcome<SealingKeyProof>,
}

/// What the record of a sealing key proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingKeyProof {
    /// Whose key it is.
    pub principal: String,
    /// Which of the owner's keys.
    pub version: String,
    /// The X25519 key.
    pub public_key: Bytes,
    /// The first and last moment of sealing to it, in Unix milliseconds.
    pub lifetime: [String; 2],
}

/// The secret of an epoch, wrapped to one recipient with HPKE.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HpkeVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// The recipient's private X25519 key: a scalar as of RFC 7748, before clamping.
    pub private_key: Bytes,
    /// The recipient's public key.
    pub public_key: Bytes,
    /// The private key that it was wrapped with, whose public key is the first 32 bytes of `wrapped`. Absent where no such key
    /// made those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Bytes>,
    /// The sender's key id.
    pub key_id: Bytes,
    /// The epoch.
    pub epoch_id: Bytes,
    /// The recipient's SPIFFE ID.
    pub recipient: String,
    /// The version of its key.
    pub key_version: String,
    /// HPKE's `info`, made of these four.
    pub info: Bytes,
    /// What HPKE gives: encapsulated key and ciphertext.
    pub wrapped: Bytes,
    /// The secret, or the refusal.
    pub outcome: Outcome<Secret>,
}

/// The secret of an epoch of one recipient, and what derives from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// 32 bytes.
    pub secret: Bytes,
    /// The digest of the one recipient.
    pub recipients_digest: Bytes,
    /// The key of the contents.
    pub key: Bytes,
    /// What the counters are added to.
    pub nonce_base: Bytes,
    /// The commitment.
    pub commitment: Bytes,
}

/// A frame of Zstandard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FrameVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// The length that is stated beside the frame.
    pub length: u32,
    /// The most that the receiver takes, in bytes.
    pub max: usize,
    /// The frame.
    pub frame: Bytes,
    /// What it holds, or the refusal.
    pub outcome: Outcome<Bytes>,
}

/// Messages that one receiver verifies and opens, one after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealedVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// The receiver's SPIFFE ID.
    pub receiver: String,
    /// The receiver's private sealing keys.
    pub keys: Vec<OwnKey>,
    /// The trust domain that the receiver expects.
    pub trust_domain: String,
    /// The receiver's time.
    pub clock: Time,
    /// The messages.
    pub steps: Vec<SealedStep>,
}

/// A private sealing key: for tests alone, as everybody knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OwnKey {
    /// Its version.
    pub version: String,
    /// 32 bytes, a scalar as of RFC 7748 before clamping.
    pub private_key: Bytes,
}

/// One message at a receiver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealedStep {
    /// The message.
    pub message: Bytes,
    /// The name of the bundle that the receiver holds for it.
    pub bundle: String,
    /// What it says, or the refusal.
    pub outcome: Outcome<Opened>,
}

/// What a receiver has read of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Who signed it.
    pub principal: String,
    /// The sealed content, opened. Absent if the payload was not sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Bytes>,
    /// The messages: one, or the members of a batch.
    pub messages: Vec<Said>,
    /// The references, each with its kind and value. Absent if there are none, or none for this receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<Vec<(String, String)>>,
}

/// What one message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The field number of the payload.
    pub field: usize,
    /// Each field of it, with its value: numbers in decimal digits, bytes in hexadecimal ones.
    pub values: BTreeMap<String, String>,
}

/// A certificate chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChainVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// The leaf and its intermediates, in DER.
    pub chain: Vec<Bytes>,
    /// The roots, in DER.
    pub roots: Vec<Bytes>,
    /// The trust domain of the roots.
    pub trust_domain: String,
    /// The receiver's time.
    pub clock: Time,
    /// What the chain proves, or the refusal.
    pub outcome: Outcome<Leaf>,
}

/// What a chain proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Whose certificate the leaf is.
    pub principal: String,
    /// The earliest end of the leaf and its intermediates, in Unix milliseconds.
    pub chain_not_after: String,
}

/// A key bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// The encoded bundle.
    pub bundle: Bytes,
    /// The roots of the receiver, in DER.
    pub roots: Vec<Bytes>,
    /// The trust domain of the roots.
    pub trust_domain: String,
    /// The receiver's time.
    pub clock: Time,
    /// Whose key it is, or the refusal.
    pub outcome: Outcome<Key>,
}

/// What a bundle proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The key id.
    pub key_id: Bytes,
    /// Whose key it is.
    pub principal: String,
    /// The Ed25519 key.
    pub public_key: Bytes,
}

/// A signed message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvelopeVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// The message.
    pub message: Bytes,
    /// The name of the bundle that the receiver holds for it.
    pub bundle: String,
    /// The trust domain that the receiver expects.
    pub trust_domain: String,
    /// The receiver's time.
    pub clock: Time,
    /// What is proven, or the refusal.
    pub outcome: Outcome<Proof>,
}

/// What a signed message proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Who signed.
    pub principal: String,
    /// With which key.
    pub key_id: Bytes,
    /// SHA-256 of the prefix: what an answer carries as its `correlation_id`.
    pub digest: Bytes,
    /// The subject that it is for.
    pub subject: String,
}

/// Messages of verified origin, one after the other, at one replay guard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplayVector {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub comment: String,
    /// The messages.
    pub steps: Vec<Step>,
}

/// One message at a replay guard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// `own` for the guard's key, `other` for any other.
    pub key: String,
    /// The subject.
    pub subject: String,
    /// The sequence, absent if it is not counted.
    pub sequence: Option<String>,
    /// Whether it is committed after the check: whether it could be decoded.
    pub commit: bool,
    /// What comes of it.
    pub outcome: Outcome<New>,
}

/// A message that is new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct New {
    /// The first and last number that it leaves out, if it is committed and leaves out any.
    pub gap: Option<[String; 2]>,
}

/// Bytes in hexadecimal. Where one byte stands very often, as a list of parts, of which some are repeated.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// From this many on, equal bytes in a row are written as one and their number.
const LONG_RUN: usize = 200;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Whole(String),
    Parts(Vec<Part>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Part {
    Once(String),
    Repeated { repeat: String, times: usize },
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let runs: Vec<&[u8]> = self.0.chunk_by(|a, b| a == b).collect();
        if runs.iter().all(|run| run.len() < LONG_RUN) {
            return Written::Whole(hex(&self.0)).serialize(serializer);
        }
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        for run in runs {
            if run.len() < LONG_RUN {
                plain.extend_from_slice(run);
                continue;
            }
            if !plain.is_empty() {
                parts.push(Part::Once(hex(&std::mem::take(&mut plain))));
            }
            parts.push(Part::Repeated { repeat: hex(&run[..1]), times: run.len() });
        }
        if !plain.is_empty() {
            parts.push(Part::Once(hex(&plain)));
        }
        Written::Parts(parts).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = match Written::deserialize(deserializer)? {
            Written::Whole(text) => vec![Part::Once(text)],
            Written::Parts(parts) => parts,
        };
        let mut bytes = Vec::new();
        for part in parts {
            let (text, times) = match part {
                Part::Once(text) => (text, 1),
                Part::Repeated { repeat, times } => (repeat, times),
            };
            let piece = unhex(&text).ok_or_else(|| D::Error::custom("this is not hexadecimal"))?;
            bytes.extend(piece.repeat(times));
        }
        Ok(Self(bytes))
    }
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes out of hexadecimal.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}
