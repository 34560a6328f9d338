//! HPKE (RFC 9180) in base mode, single shot, without additional data: what an epoch's secret is wrapped with.
//!
//! One suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. The ephemeral key comes in as an argument, so that the
//! same arguments give the same bytes.

use alloc::vec::Vec;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::keys::{KEY_LEN, SealingFailed, SealingKey, SealingPublicKey};

const HASH_LEN: usize = 32;
const NONCE_LEN: usize = 12;

const VERSION: &[u8] = b"HPKE-v1";

/// The suites' names in the labels: of the KEM alone, and of all three algorithms.
const KEM: &[u8] = &[b'K', b'E', b'M', 0x00, 0x20];
const SUITE: &[u8] = &[b'H', b'P', b'K', b'E', 0x00, 0x20, 0x00, 0x01, 0x00, 0x02];

const MODE_BASE: u8 = 0;

/// The bytes were not sealed to this key with this `info`, or were changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

/// Seals `plaintext` to `recipient`: `SealBase` of section 6.1. Returns the encapsulated key and the ciphertext, as one. `ephemeral`
/// is of fresh random bytes and used for nothing else.
pub(super) fn seal(
    recipient: &SealingPublicKey,
    info: &[u8],
    plaintext: &[u8],
    ephemeral: &SealingKey,
) -> Result<Vec<u8>, SealingFailed> {
    let enc = ephemeral.public_key();
    let shared = shared_secret(ephemeral, recipient, enc, recipient).map_err(|_| SealingFailed)?;
    let (key, nonce) = key_schedule(&shared, info).ok_or(SealingFailed)?;
    let mut sealed = Vec::with_capacity(KEY_LEN + plaintext.len() + AES_256_GCM.tag_len());
    sealed.extend_from_slice(enc.as_bytes());
    sealed.extend_from_slice(plaintext);
    let (_, text) = sealed.split_at_mut(KEY_LEN);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), text).map_err(|_| SealingFailed)?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// Opens what [`seal`] gave: `OpenBase` of section 6.1.
pub(super) fn open(key: &SealingKey, info: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let (enc, ciphertext) = sealed.split_first_chunk().ok_or(Refused)?;
    let enc = SealingPublicKey::from_bytes(*enc).map_err(|_| Refused)?;
    let shared = shared_secret(key, &enc, &enc, key.public_key())?;
    let (key, nonce) = key_schedule(&shared, info).ok_or(Refused)?;
    let mut text = Zeroizing::new(ciphertext.to_vec());
    let len = key.open_in_place(nonce, Aad::empty(), &mut text).map_err(|_| Refused)?.len();
    text.truncate(len);
    Ok(text)
}

/// `Encap` and `Decap` of section 4.1, which differ in whose private key is at hand. The provider refuses keys that agree on
/// zeros, as section 7.1.4 demands.
fn shared_secret(
    own: &SealingKey,
    other: &SealingPublicKey,
    enc: &SealingPublicKey,
    recipient: &SealingPublicKey,
) -> Result<Zeroizing<[u8; HASH_LEN]>, Refused> {
    let other = UnparsedPublicKey::new(&X25519, other.as_bytes());
    agree(own.private(), other, Refused, |agreed| {
        let prk = labeled_extract(KEM, b"", b"eae_prk", agreed).ok_or(Refused)?;
        labeled_expand(&prk, KEM, b"shared_secret", &[enc.as_bytes(), recipient.as_bytes()]).ok_or(Refused)
    })
}

/// `KeySchedule` of section 5.1 in base mode, as far as the first message needs it.
fn key_schedule(shared: &[u8; HASH_LEN], info: &[u8]) -> Option<(LessSafeKey, Nonce)> {
    let psk_id_hash = labeled_extract(SUITE, b"", b"psk_id_hash", b"")?;
    let info_hash = labeled_extract(SUITE, b"", b"info_hash", info)?;
    let context: [&[u8]; 3] = [&[MODE_BASE], psk_id_hash.as_slice(), info_hash.as_slice()];
    let secret = labeled_extract(SUITE, shared, b"secret", b"")?;
    let key: Zeroizing<[u8; 32]> = labeled_expand(&secret, SUITE, b"key", &context)?;
    let nonce: Zeroizing<[u8; NONCE_LEN]> = labeled_expand(&secret, SUITE, b"base_nonce", &context)?;
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).ok()?;
    Some((LessSafeKey::new(key), Nonce::assume_unique_for_key(*nonce)))
}

/// `LabeledExtract` of section 4. Extracting is HMAC with the salt as its key.
fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> Option<Zeroizing<[u8; HASH_LEN]>> {
    let labeled = Zeroizing::new([VERSION, suite, label, ikm].concat());
    let mut output = Zeroizing::new([0; HASH_LEN]);
    hmac::sign_to_buffer(&hmac::Key::new(hmac::HMAC_SHA256, salt), &labeled, output.as_mut_slice()).ok()?;
    Some(output)
}

/// `LabeledExpand` of section 4, of the concatenation of `info`.
fn labeled_expand<const N: usize>(
    prk: &[u8; HASH_LEN],
    suite: &[u8],
    label: &[u8],
    info: &[&[u8]],
) -> Option<Zeroizing<[u8; N]>> {
    let length = u16::try_from(N).ok()?.to_be_bytes();
    let labeled = [&[&length, VERSION, suite, label], info].concat();
    let mut output = Zeroizing::new([0; N]);
    let prk = Prk::new_less_safe(HKDF_SHA256, prk);
    prk.expand(&labeled, Length(N)).ok()?.fill(output.as_mut_slice()).ok()?;
    Some(output)
}

/// How many bytes an expansion gives.
pub(super) struct Length(pub(super) usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests;
