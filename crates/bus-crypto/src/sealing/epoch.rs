//! The sender's side: an epoch, from its secret to its last message.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bus_proto::Principal;
use bus_proto::prost::encoding::{encode_varint, encoded_len_varint};
use zeroize::Zeroizing;

use super::hpke;
use super::keys::{KEY_LEN, SealingFailed, SealingKey, SealingPublicKey};
use super::schedule::{About, DIGEST_LEN, ID_LEN, Keys, Names, SECRET_LEN, TAG_LEN};
use crate::KeyId;
use crate::scan::{MAX_RECIPIENTS, recipients_digest};

/// How many contents an epoch seals at most.
pub const MAX_MESSAGES: u64 = 1 << 32;

/// How long an epoch lasts at most, in milliseconds: one hour.
pub const MAX_AGE_MS: i64 = 3_600_000;

/// Someone to seal to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Who it is.
    pub principal: Principal,
    /// The version of its sealing key, from 1.
    pub version: u64,
    /// Its sealing key, out of a verified record.
    pub key: SealingPublicKey,
}

/// Why something was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// An epoch without recipients.
    #[error("there is nobody to seal to: name at least one recipient")]
    NoRecipients,
    /// More recipients than a message may name.
    #[error("there are {count} recipients, and at most {MAX_RECIPIENTS} are possible: seal to fewer")]
    TooManyRecipients {
        /// How many there are.
        count: usize,
    },
    /// A recipient is named twice.
    #[error("{recipient} is named twice: name each recipient once")]
    RepeatedRecipient {
        /// Who it is.
        recipient: Principal,
    },
    /// Versions begin with 1.
    #[error("the sealing key of {recipient} has the version 0: versions begin with 1")]
    NoVersion {
        /// Whose key it is.
        recipient: Principal,
    },
    /// The epoch has sealed as many contents as it may.
    #[error("the epoch has sealed {MAX_MESSAGES} contents: begin another")]
    UsedUp,
    /// No message has an empty content, and receivers refuse one.
    #[error("there is nothing to seal")]
    Empty,
    /// A text that the content is to be bound to has more than 65,535 bytes.
    #[error("the message's names are too long to be sealed")]
    NameTooLong,
    /// Nothing was sealed, for no reason of the caller's.
    #[error(transparent)]
    Failed(#[from] SealingFailed),
}

/// An epoch: what a sending process seals with on one subject, for at most an hour.
///
/// It is in memory only, belongs to one signing key, and keeps no more of its secret than what seals. See the
/// [module](super) for an example.
pub struct Epoch {
    keys: Keys,
    names: Names,
    /// The encoded `wrapped_keys` of a message.
    wrapped_keys: Vec<u8>,
    /// Of what is sealed next.
    counter: u64,
    began_unix_ms: i64,
}

impl Epoch {
    /// Begins an epoch of the signing key `key_id`, whose contents these recipients can open, in whatever order they are given.
    ///
    /// `fill` fills a buffer with bytes from a cryptographic source of random bytes. It is asked for the epoch's id (16
    /// bytes), its secret (32), and an ephemeral key (32) for each recipient in ascending order of their SPIFFE IDs.
    ///
    /// The cost is one key agreement per recipient, some 40 µs each.
    ///
    /// # Errors
    ///
    /// When there are no recipients or more than [`MAX_RECIPIENTS`], one of them is named twice or has a key of version 0, or
    /// when `fill` or the provider fails.
    pub fn new(
        key_id: KeyId,
        recipients: &[Recipient],
        now_unix_ms: i64,
        mut fill: impl FnMut(&mut [u8]) -> Result<(), SealingFailed>,
    ) -> Result<Self, SealError> {
        let recipients = in_order(recipients)?;
        let mut epoch_id = [0; ID_LEN];
        fill(&mut epoch_id)?;
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        fill(secret.as_mut_slice())?;
        let digest = recipients_digest(recipients.iter().map(|(id, recipient)| (id.as_str(), recipient.version)));
        let names = Names { key_id, epoch_id, recipients: digest };
        let keys = Keys::derive(&secret, &names).ok_or(SealingFailed)?;
        let mut wrapped_keys = Vec::new();
        for (id, recipient) in &recipients {
            let mut seed = Zeroizing::new([0; KEY_LEN]);
            fill(seed.as_mut_slice())?;
            let info = names.wrapping_info(id, recipient.version);
            let wrapped = hpke::seal(&recipient.key, &info, secret.as_slice(), &SealingKey::from_seed(&seed)?)?;
            put_wrapped_key(&mut wrapped_keys, id, recipient.version, &wrapped);
        }
        Ok(Self { keys, names, wrapped_keys, counter: 0, began_unix_ms: now_unix_ms })
    }

    /// Its id, 16 bytes.
    #[must_use]
    pub fn id(&self) -> &[u8; ID_LEN] {
        &self.names.epoch_id
    }

    /// Whether another epoch has to begin: this one is an hour old, used up, or from the future, the clock having been set
    /// back.
    #[must_use]
    pub fn is_over(&self, now_unix_ms: i64) -> bool {
        let age_ms = now_unix_ms.saturating_sub(self.began_unix_ms);
        self.counter >= MAX_MESSAGES || !(0..MAX_AGE_MS).contains(&age_ms)
    }

    /// How many bytes the next [`Epoch::seal`] of a content of this length appends.
    #[must_use]
    pub fn sealed_len(&self, content_len: usize, with_keys: bool) -> usize {
        let counter = if self.counter == 0 { 0 } else { 1 + encoded_len_varint(self.counter) };
        let keys = if with_keys { self.wrapped_keys.len() } else { 0 };
        2 + ID_LEN + 2 + DIGEST_LEN + counter + 1 + prefixed_len(content_len + TAG_LEN) + keys
    }

    /// Seals a content and appends the encoded `Sealed` message to `out`, without a tag and a length of its own. With
    /// `with_keys`, the wrapped keys go along, for receivers that have not met the epoch.
    ///
    /// # Errors
    ///
    /// When the epoch is used up, the content is empty, a text of `about` is too long, or the provider fails. `out` is then as
    /// it was.
    pub fn seal(
        &mut self,
        about: &About<'_>,
        content: &[u8],
        with_keys: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let counter = self.counter;
        if counter >= MAX_MESSAGES {
            return Err(SealError::UsedUp);
        }
        if content.is_empty() {
            return Err(SealError::Empty);
        }
        let data = self.names.associated_data(about).ok_or(SealError::NameTooLong)?;
        let start = out.len();
        out.reserve(self.sealed_len(content.len(), with_keys));
        put_bytes(out, 1, &self.names.epoch_id);
        put_bytes(out, 2, self.keys.commitment());
        put_number(out, 3, counter);
        put_key(out, 4, LENGTH_DELIMITED);
        put_length(out, content.len() + TAG_LEN);
        let at = out.len();
        out.extend_from_slice(content);
        let (_, text) = out.split_at_mut(at);
        // The counter is never used again, whatever comes of this.
        self.counter += 1;
        let Some(tag) = self.keys.seal(counter, &data, text) else {
            out.truncate(start);
            return Err(SealingFailed.into());
        };
        out.extend_from_slice(&tag);
        if with_keys {
            out.extend_from_slice(&self.wrapped_keys);
        }
        Ok(())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys: _, names, wrapped_keys: _, counter, began_unix_ms } = self;
        f.debug_struct("Epoch")
            .field("id", names)
            .field("counter", counter)
            .field("began_unix_ms", began_unix_ms)
            .finish_non_exhaustive()
    }
}

/// The recipients under their SPIFFE IDs, in ascending order of these.
fn in_order(recipients: &[Recipient]) -> Result<Vec<(String, &Recipient)>, SealError> {
    match recipients.len() {
        0 => return Err(SealError::NoRecipients),
        1..=MAX_RECIPIENTS => {}
        count => return Err(SealError::TooManyRecipients { count }),
    }
    if let Some(Recipient { principal, .. }) = recipients.iter().find(|recipient| recipient.version == 0) {
        return Err(SealError::NoVersion { recipient: principal.clone() });
    }
    let mut named: Vec<_> = recipients.iter().map(|recipient| (recipient.principal.spiffe_id(), recipient)).collect();
    named.sort_by(|(one, _), (other, _)| one.cmp(other));
    match named.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(SealError::RepeatedRecipient { recipient: pair[0].1.principal.clone() }),
        None => Ok(named),
    }
}

const VARINT: u32 = 0;
const LENGTH_DELIMITED: u32 = 2;

fn put_wrapped_key(out: &mut Vec<u8>, recipient: &str, version: u64, wrapped: &[u8]) {
    let len = 1 + prefixed_len(recipient.len()) + 1 + encoded_len_varint(version) + 1 + prefixed_len(wrapped.len());
    put_key(out, 5, LENGTH_DELIMITED);
    put_length(out, len);
    put_bytes(out, 1, recipient.as_bytes());
    put_number(out, 2, version);
    put_bytes(out, 3, wrapped);
}

fn put_key(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    encode_varint(u64::from(number << 3 | wire_type), out);
}

/// 0 is what an absent number means, and is not written.
fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_key(out, number, VARINT);
        encode_varint(value, out);
    }
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_key(out, number, LENGTH_DELIMITED);
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_length(out: &mut Vec<u8>, len: usize) {
    encode_varint(len as u64, out);
}

/// How long bytes of this length are with their length before them.
fn prefixed_len(len: usize) -> usize {
    encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests;
