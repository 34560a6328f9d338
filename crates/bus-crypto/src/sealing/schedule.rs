//! What both ends of an epoch derive: its keys out of its secret, and what a content is bound to.

use alloc::vec::Vec;
use core::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::hpke::Length;
use crate::KeyId;
use crate::keys::hex;

/// The length of an epoch's id, in bytes.
pub(super) const ID_LEN: usize = 16;

/// The length of an epoch's secret, in bytes.
pub(super) const SECRET_LEN: usize = 32;

/// The length of a commitment and of the digest of the recipients, in bytes.
pub(super) const DIGEST_LEN: usize = 32;

/// The length of an authentication tag, in bytes.
pub(super) const TAG_LEN: usize = 16;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;

/// The bytes that go before what is derived, wrapped and bound, so that one is never taken for the other.
const SALT: &[u8] = b"ransomeye.v1 epoch\0";
const KEYS: &[u8] = b"ransomeye.v1 sealed\0";
const WRAPPED: &[u8] = b"ransomeye.v1 epoch secret\0";
const CONTENT: &[u8] = b"ransomeye.v1 sealed content\0";

/// What an epoch's secret is wrapped with: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
const SUITE: u16 = 1;

/// Which part of a message a content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// What the envelope's `sealed` holds.
    Payload,
    /// What the envelope's `references` hold.
    References,
}

/// The message that a content belongs to. It opens only as a part of this very message.
///
/// Each text is at most 65,535 bytes; the scan allows 512.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About<'a> {
    /// Which part of the message the content is.
    pub part: Part,
    /// The sender's SPIFFE ID.
    pub sender: &'a str,
    /// The subject that the message is published to.
    pub subject: &'a str,
    /// The subject's token for the message type.
    pub message_type: &'a str,
    /// `Envelope.sequence`, 0 where there is none.
    pub sequence: u64,
    /// `Envelope.message_id`.
    pub message_id: &'a str,
    /// `Envelope.expires_at` in Unix milliseconds, 0 for never.
    pub expires_at: i64,
}

/// Names an epoch, to the secret and to everything that derives from it.
pub(super) struct Names {
    /// The sender's signing key.
    pub(super) key_id: KeyId,
    pub(super) epoch_id: [u8; ID_LEN],
    /// The digest of the recipients and the versions of their keys.
    pub(super) recipients: [u8; DIGEST_LEN],
}

impl Names {
    /// What an epoch's secret is bound to when it is wrapped to one recipient.
    pub(super) fn wrapping_info(&self, recipient: &str, version: u64) -> Vec<u8> {
        let (suite, version) = (SUITE.to_be_bytes(), version.to_be_bytes());
        [WRAPPED, &suite, self.key_id.as_bytes(), &self.epoch_id, &version, recipient.as_bytes()].concat()
    }

    /// What a content is bound to. `None` if a text is too long.
    pub(super) fn associated_data(&self, about: &About<'_>) -> Option<Vec<u8>> {
        let texts = [about.sender, about.subject, about.message_type, about.message_id];
        let part = match about.part {
            Part::Payload => 1,
            Part::References => 2,
        };
        let fixed = CONTENT.len() + 1 + KeyId::LEN + DIGEST_LEN + 8 + 8;
        let mut data = Vec::with_capacity(fixed + texts.iter().map(|text| 2 + text.len()).sum::<usize>());
        data.extend_from_slice(CONTENT);
        data.push(part);
        data.extend_from_slice(self.key_id.as_bytes());
        data.extend_from_slice(&self.recipients);
        data.extend_from_slice(&about.sequence.to_be_bytes());
        data.extend_from_slice(&about.expires_at.to_be_bytes());
        for text in texts {
            data.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        Some(data)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key_id, epoch_id, recipients: _ } = self;
        hex(f, epoch_id)?;
        write!(f, " of {key_id}")
    }
}

/// What an epoch seals and opens with. The provider overwrites the key when this is dropped.
pub(super) struct Keys {
    key: LessSafeKey,
    nonce_base: Zeroizing<[u8; NONCE_LEN]>,
    commitment: [u8; DIGEST_LEN],
}

impl Keys {
    /// Derives the keys. `None` if the provider fails.
    pub(super) fn derive(secret: &[u8; SECRET_LEN], names: &Names) -> Option<Self> {
        let mut output = Zeroizing::new([0; KEY_LEN + NONCE_LEN + DIGEST_LEN]);
        let info: [&[u8]; 4] = [KEYS, names.key_id.as_bytes(), &names.epoch_id, &names.recipients];
        let prk = Salt::new(HKDF_SHA256, SALT).extract(secret);
        prk.expand(&info, Length(output.len())).ok()?.fill(output.as_mut_slice()).ok()?;
        let (key, rest) = output.split_at(KEY_LEN);
        let (nonce_base, commitment) = rest.split_first_chunk()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).ok()?);
        Some(Self { key, nonce_base: Zeroizing::new(*nonce_base), commitment: commitment.try_into().ok()? })
    }

    /// Which keys these are, for everybody to see, without a hint at what they are.
    pub(super) fn commitment(&self) -> &[u8; DIGEST_LEN] {
        &self.commitment
    }

    /// Seals `text` in place, bound to `data`, and returns its tag. `None` if the provider fails.
    pub(super) fn seal(&self, counter: u64, data: &[u8], text: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        let tag = self.key.seal_in_place_separate_tag(self.nonce(counter), Aad::from(data), text).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Opens `text`, a ciphertext and its tag, in place, and returns the length of the content. `None` if anything is not as
    /// it was sealed.
    pub(super) fn open(&self, counter: u64, data: &[u8], text: &mut [u8]) -> Option<usize> {
        Some(self.key.open_in_place(self.nonce(counter), Aad::from(data), text).ok()?.len())
    }

    /// The nonce base, with the counter in its last 8 bytes.
    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = *self.nonce_base;
        let (_, last) = nonce.split_at_mut(NONCE_LEN - 8);
        last.iter_mut().zip(counter.to_be_bytes()).for_each(|(byte, counted)| *byte ^= counted);
        Nonce::assume_unique_for_key(nonce)
    }
}
