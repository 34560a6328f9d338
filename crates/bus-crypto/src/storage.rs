//! Encryption at rest: rows of a local store, sealed where they lie.
//!
//! A store has one key of 32 bytes, which its owner brings, and each of its files 16 random bytes that name it. HKDF-SHA-256
//! (RFC 5869) gives every file keys of its own:
//!
//! ```text
//! PRK = HKDF-Extract(salt = "ransomeye.v1 storage" ‖ 0x00, ikm = key)
//! OKM = HKDF-Expand(PRK, info = file id, 96) = content key (32) ‖ label key (32) ‖ commitment (32)
//! ```
//!
//! A row is sealed with AES-256-GCM-SIV (RFC 8452) under the content key, a nonce of 12 random bytes, and its [`Place`] as
//! the associated data, so that no row passes for another. Should a nonce come twice, as after the snapshot of a virtual
//! machine, it reveals no more than whether the same was sealed twice in one place. A sealed row is nonce ‖ ciphertext ‖ tag.
//!
//! The algorithm does not commit to its key. The commitment, kept in the file, does: it tells a wrong key from damage.
//!
//! ```
//! use bus_crypto::storage::{NONCE_LEN, Place, StorageKeys};
//! use bus_crypto::zeroize::Zeroizing;
//!
//! # let fill = |bytes: &mut [u8]| bytes.fill(7);
//! let (mut key, mut file, mut nonce) = (Zeroizing::new([0; 32]), [0; 16], [0; NONCE_LEN]);
//! fill(key.as_mut_slice()); // each from the operating system's random source
//! fill(&mut file);
//! fill(&mut nonce);
//! let keys = StorageKeys::derive(&key, &file)?;
//! let place = Place { table: "entries", row: 1 };
//! let mut sealed = keys.seal(place, nonce, b"an alert")?;
//! assert_eq!(keys.open(place, &mut sealed)?, b"an alert");
//! # Ok::<(), bus_crypto::storage::StorageError>(())
//! ```

use alloc::vec::Vec;
use core::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

/// The length of a store's key, in bytes.
pub const KEY_LEN: usize = 32;

/// The length of a file's name, in bytes.
pub const FILE_ID_LEN: usize = 16;

/// The length of a nonce, in bytes.
pub const NONCE_LEN: usize = 12;

/// The length of the tag at the end of a sealed row, in bytes.
pub const TAG_LEN: usize = 16;

/// By how much a sealed row is longer than what it holds, in bytes.
pub const OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// The length of a commitment, in bytes.
pub const COMMITMENT_LEN: usize = 32;

const SALT: &[u8] = b"ransomeye.v1 storage\0";
const ROW: &[u8] = b"ransomeye.v1 storage row\0";
const OKM_LEN: usize = 2 * KEY_LEN + COMMITMENT_LEN;

/// Why something was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The row was changed, belongs in another place or file, or was sealed under another key.
    #[error("the stored row does not open: it is damaged, or not of this place")]
    Damaged,
    /// For want of memory or in a self-test. Nothing was sealed.
    #[error("the cryptographic provider failed")]
    Provider,
}

/// Where a row lies. It is authenticated along with the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The row's number in it.
    pub row: i64,
}

impl Place<'_> {
    fn associated_data(self) -> Aad<Vec<u8>> {
        let mut bytes = Vec::with_capacity(ROW.len() + 16 + self.table.len());
        bytes.extend_from_slice(ROW);
        bytes.extend_from_slice(&(self.table.len() as u64).to_be_bytes());
        bytes.extend_from_slice(self.table.as_bytes());
        bytes.extend_from_slice(&self.row.to_be_bytes());
        Aad::from(bytes)
    }
}

/// The keys of one file of a store.
///
/// The provider overwrites the content key's memory when this is dropped. It can be neither copied nor printed.
pub struct StorageKeys {
    content: LessSafeKey,
    label: MacKey,
    commitment: [u8; COMMITMENT_LEN],
}

impl StorageKeys {
    /// The keys of the file of this name under a store's key, which has to come from a cryptographic source of random bytes.
    ///
    /// # Errors
    ///
    /// When the provider fails.
    pub fn derive(key: &Zeroizing<[u8; KEY_LEN]>, file: &[u8; FILE_ID_LEN]) -> Result<Self, StorageError> {
        let okm = expand(key, file).ok_or(StorageError::Provider)?;
        let (content, rest) = okm.split_at(KEY_LEN);
        let (label, stated) = rest.split_at(KEY_LEN);
        let content = UnboundKey::new(&AES_256_GCM_SIV, content).map_err(|_| StorageError::Provider)?;
        let mut commitment = [0; COMMITMENT_LEN];
        commitment.copy_from_slice(stated);
        Ok(Self { content: LessSafeKey::new(content), label: MacKey::from_slice(label), commitment })
    }

    /// What the file may keep, in the clear, to recognise its key.
    #[must_use]
    pub fn commitment(&self) -> &[u8; COMMITMENT_LEN] {
        &self.commitment
    }

    /// Whether these are the keys that a file's commitment was made with, found out in constant time.
    #[must_use]
    pub fn match_commitment(&self, commitment: &[u8]) -> bool {
        verify_slices_are_equal(&self.commitment, commitment).is_ok()
    }

    /// A name for `text` in this file that tells nothing about it without the key: its HMAC-SHA-256, the first 16 bytes.
    #[must_use]
    pub fn label(&self, text: &str) -> [u8; 16] {
        let mut label = [0; 16];
        label.copy_from_slice(&self.label.mac(text.as_bytes())[..16]);
        label
    }

    /// Seals a row. The nonce has to come from a cryptographic source of random bytes.
    ///
    /// # Errors
    ///
    /// When the provider fails.
    pub fn seal(&self, place: Place<'_>, nonce: [u8; NONCE_LEN], plaintext: &[u8]) -> Result<Vec<u8>, StorageError> {
        let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let content = &mut sealed[NONCE_LEN..];
        let tag = self.content.seal_in_place_separate_tag(nonce, place.associated_data(), content);
        sealed.extend_from_slice(tag.map_err(|_| StorageError::Provider)?.as_ref());
        Ok(sealed)
    }

    /// Opens a row in place.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damaged`], whatever is wrong with it.
    pub fn open<'s>(&self, place: Place<'_>, sealed: &'s mut [u8]) -> Result<&'s [u8], StorageError> {
        let (nonce, content) = sealed.split_first_chunk_mut::<NONCE_LEN>().ok_or(StorageError::Damaged)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.content.open_in_place(nonce, place.associated_data(), content);
        opened.map(|plaintext| &*plaintext).map_err(|_| StorageError::Damaged)
    }
}

impl fmt::Debug for StorageKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { content: _, label: _, commitment: _ } = self;
        f.debug_struct("StorageKeys").finish_non_exhaustive()
    }
}

/// A secret for HMAC-SHA-256 (RFC 2104): what it gives for an input can be neither guessed nor checked without it.
///
/// ```
/// use bus_crypto::storage::MacKey;
/// use bus_crypto::zeroize::Zeroizing;
///
/// let key = MacKey::new(&Zeroizing::new([7; 32]));
/// assert_eq!(key.mac(b"an id"), key.mac(b"an id"));
/// assert_ne!(key.mac(b"an id"), key.mac(b"another"));
/// ```
pub struct MacKey(hmac::Key);

impl MacKey {
    /// The key with this secret, which has to come from a cryptographic source of random bytes.
    #[must_use]
    pub fn new(secret: &Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self::from_slice(secret.as_slice())
    }

    fn from_slice(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// HMAC-SHA-256 of `bytes`.
    #[must_use]
    pub fn mac(&self, bytes: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.0, bytes);
        let mut output = [0; 32];
        output.copy_from_slice(tag.as_ref());
        output
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("MacKey(..)")
    }
}

fn expand(key: &Zeroizing<[u8; KEY_LEN]>, file: &[u8; FILE_ID_LEN]) -> Option<Zeroizing<[u8; OKM_LEN]>> {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            OKM_LEN
        }
    }
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(key.as_slice());
    let info = [file.as_slice()];
    let mut okm = Zeroizing::new([0; OKM_LEN]);
    extracted.expand(&info, Length).ok()?.fill(okm.as_mut_slice()).ok()?;
    Some(okm)
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    const PLACE: Place<'_> = Place { table: "entries", row: 7 };

    fn keys(key: u8, file: u8) -> StorageKeys {
        StorageKeys::derive(&Zeroizing::new([key; 32]), &[file; 16]).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_again() {
        let mut sealed = keys(1, 2).seal(PLACE, [3; NONCE_LEN], b"an alert").unwrap();
        assert_eq!(sealed.len(), 8 + OVERHEAD);
        assert!(!sealed.windows(5).any(|window| window == b"alert"));
        assert_eq!(keys(1, 2).open(PLACE, &mut sealed), Ok(&b"an alert"[..]));
    }

    #[test]
    fn a_row_opens_in_its_own_place_and_file_alone() {
        let sealed = keys(1, 2).seal(PLACE, [3; NONCE_LEN], b"an alert").unwrap();
        for (keys, place) in [
            (keys(1, 2), Place { table: "entries", row: 8 }),
            (keys(1, 2), Place { table: "signed", row: 7 }),
            (keys(1, 3), PLACE),
            (keys(2, 2), PLACE),
        ] {
            assert_eq!(keys.open(place, &mut sealed.clone()), Err(StorageError::Damaged));
        }
    }

    #[test]
    fn every_changed_bit_and_every_lost_byte_is_noticed() {
        let sealed = keys(1, 2).seal(PLACE, [3; NONCE_LEN], b"an alert").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys(1, 2).open(PLACE, &mut changed), Err(StorageError::Damaged), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert_eq!(keys(1, 2).open(PLACE, &mut sealed[..len].to_vec()), Err(StorageError::Damaged), "{len} bytes");
        }
    }

    #[test]
    fn a_commitment_is_of_one_key_and_one_file() {
        let commitment = *keys(1, 2).commitment();
        assert!(keys(1, 2).match_commitment(&commitment));
        for other in [keys(1, 3), keys(2, 2)] {
            assert!(!other.match_commitment(&commitment));
        }
        assert!(!keys(1, 2).match_commitment(&commitment[..31]));
    }

    #[test]
    fn a_label_is_of_one_text_one_key_and_one_file() {
        let label = keys(1, 2).label("a lane");
        assert_eq!(keys(1, 2).label("a lane"), label);
        assert_ne!(keys(1, 2).label("a lane "), label);
        assert_ne!(keys(1, 3).label("a lane"), label);
    }

    /// RFC 4231, test case 2, whose key is shorter than ours always is.
    #[test]
    fn the_mac_is_hmac_sha_256() {
        let mac = MacKey::from_slice(b"Jefe").mac(b"what do ya want for nothing?");
        assert_eq!(mac[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
        assert_eq!(mac[24..], [0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43]);
    }

    #[test]
    fn the_debug_texts_hold_no_key() {
        assert_eq!(format!("{:?}", keys(1, 2)), "StorageKeys { .. }");
        assert_eq!(format!("{:?}", MacKey::from_slice(&[7; 32])), "MacKey(..)");
    }
}
