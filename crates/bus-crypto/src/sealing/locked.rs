//! Secrets at rest: sealed under a passphrase, for whoever keeps sealing keys in a file.
//!
//! Argon2id (RFC 9106) makes 64 bytes of the passphrase and a salt: the key, and a check value that is written beside what
//! was sealed, so that a wrong passphrase and altered bytes are different errors. The cipher is AES-256-GCM-SIV (RFC 8452),
//! to which a nonce that is used twice reveals only whether the same was sealed twice.
//!
//! ```text
//! memory in KiB, passes, lanes (3 × u32) ‖ salt (16) ‖ nonce (12) ‖ check value (32) ‖ ciphertext and tag
//! ```
//!
//! Numbers are big-endian. What stands before the ciphertext, and before that what the caller names, is authenticated too.

use alloc::vec::Vec;
use core::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

/// The length of a salt, in bytes.
pub const SALT_LEN: usize = 16;

/// The length of a nonce, in bytes.
pub const NONCE_LEN: usize = 12;

const KEY_LEN: usize = 32;
const CHECK_LEN: usize = 32;
const TAG_LEN: usize = 16;
const COST_LEN: usize = 12;
const NONCE_AT: usize = COST_LEN + SALT_LEN;
const CHECK_AT: usize = NONCE_AT + NONCE_LEN;
const HEADER_LEN: usize = CHECK_AT + CHECK_LEN;

/// How many bytes longer what was sealed is than its content.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// Why nothing was sealed, or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Argon2id is to take more than is ever spent on a passphrase, or less than it can.
    #[error(
        "the cost of the passphrase is out of bounds: {memory_kib} KiB of memory, {passes} passes, {lanes} lanes, where \
         1 GiB, 16 passes and 4 lanes are the most"
    )]
    Cost {
        /// The memory, in KiB.
        memory_kib: u32,
        /// The passes over it.
        passes: u32,
        /// The lanes.
        lanes: u32,
    },
    /// The bytes are too few to have been sealed.
    #[error("it is cut off")]
    CutOff,
    /// Another passphrase sealed it.
    #[error("the passphrase is wrong")]
    Passphrase,
    /// The passphrase is right, and the bytes are not what was sealed with it.
    #[error("it was altered after it was sealed")]
    Altered,
    /// There is not enough memory to make a key of the passphrase.
    #[error("there are no {memory_kib} KiB of memory to make a key of the passphrase")]
    Memory {
        /// The memory that the cost names, in KiB.
        memory_kib: u32,
    },
    /// The cryptographic provider failed.
    #[error("the cryptographic provider failed")]
    Provider,
}

/// What it costs to try one passphrase.
///
/// ```
/// use bus_crypto::sealing::locked::Cost;
///
/// assert_eq!(Cost::DEFAULT, Cost::new(64 * 1024, 3, 1)?);
/// assert!(Cost::new(u32::MAX, 3, 1).is_err());
/// # Ok::<(), bus_crypto::sealing::locked::LockError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// 64 MiB, three passes, one lane: the memory and the passes that RFC 9106 recommends where memory is short.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

    /// The most memory, in KiB: 1 GiB.
    pub const MAX_MEMORY_KIB: u32 = 1024 * 1024;

    /// The most passes.
    pub const MAX_PASSES: u32 = 16;

    /// The most lanes.
    pub const MAX_LANES: u32 = 4;

    /// A cost within the bounds that this type names; the memory is at least 8 KiB for each lane.
    ///
    /// # Errors
    ///
    /// When it is out of bounds.
    pub const fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, LockError> {
        let passes_fit = passes >= 1 && passes <= Self::MAX_PASSES;
        let lanes_fit = lanes >= 1 && lanes <= Self::MAX_LANES;
        if lanes_fit && passes_fit && memory_kib >= 8 * lanes && memory_kib <= Self::MAX_MEMORY_KIB {
            Ok(Self { memory_kib, passes, lanes })
        } else {
            Err(LockError::Cost { memory_kib, passes, lanes })
        }
    }

    fn encode(self) -> [u8; COST_LEN] {
        let mut encoded = [0; COST_LEN];
        for (place, number) in encoded.chunks_exact_mut(4).zip([self.memory_kib, self.passes, self.lanes]) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        encoded
    }

    fn decode(encoded: &[u8; COST_LEN]) -> Result<Self, LockError> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *encoded;
        let number = u32::from_be_bytes;
        Self::new(number([a, b, c, d]), number([e, f, g, h]), number([i, j, k, l]))
    }
}

/// What was sealed, taken apart. Nothing is known of it yet but that its cost is within bounds.
#[derive(Debug, Clone, Copy)]
pub struct Locked<'a> {
    cost: Cost,
    salt: &'a [u8; SALT_LEN],
    nonce: &'a [u8; NONCE_LEN],
    check: &'a [u8; CHECK_LEN],
    header: &'a [u8; HEADER_LEN],
    ciphertext: &'a [u8],
}

impl<'a> Locked<'a> {
    /// Takes it apart.
    ///
    /// # Errors
    ///
    /// When it is too short, or its cost is out of bounds.
    pub fn read(bytes: &'a [u8]) -> Result<Self, LockError> {
        let (header, ciphertext) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(LockError::CutOff)?;
        if ciphertext.len() < TAG_LEN {
            return Err(LockError::CutOff);
        }
        let (cost, rest) = header.split_first_chunk().ok_or(LockError::CutOff)?;
        let (salt, rest) = rest.split_first_chunk().ok_or(LockError::CutOff)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(LockError::CutOff)?;
        let check = rest.first_chunk().ok_or(LockError::CutOff)?;
        Ok(Self { cost: Cost::decode(cost)?, salt, nonce, check, header, ciphertext })
    }

    /// What a try at the passphrase costs.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The salt that the key is made with.
    #[must_use]
    pub fn salt(&self) -> &'a [u8; SALT_LEN] {
        self.salt
    }
}

/// The key that a passphrase, a salt and a cost make. It is wiped when it is dropped, and can be neither copied nor printed.
///
/// ```
/// use bus_crypto::sealing::locked::{Cost, LockError, LockKey, Locked};
///
/// # let (salt, nonce, cost) = ([1; 16], [2; 12], Cost::new(8, 1, 1)?);
/// // The salt and the nonce come from the operating system's random source; the nonce is another one each time.
/// let key = LockKey::derive(b"correct horse battery staple", cost, &salt)?;
/// let mut file = Vec::new();
/// key.lock(&nonce, b"whose it is", b"a secret", &mut file)?;
///
/// let locked = Locked::read(&file)?;
/// let key = LockKey::derive(b"correct horse battery staple", locked.cost(), locked.salt())?;
/// assert_eq!(key.unlock(&locked, b"whose it is")?.as_slice(), b"a secret");
/// let other = LockKey::derive(b"Tr0ub4dor&3", locked.cost(), locked.salt())?;
/// assert_eq!(other.unlock(&locked, b"whose it is"), Err(LockError::Passphrase));
/// # Ok::<(), LockError>(())
/// ```
pub struct LockKey {
    cost: Cost,
    salt: [u8; SALT_LEN],
    /// The key, then the check value.
    derived: Zeroizing<[u8; KEY_LEN + CHECK_LEN]>,
}

impl LockKey {
    /// Makes the key, which takes the time and the memory that the cost names.
    ///
    /// # Errors
    ///
    /// When there is not enough memory.
    pub fn derive(passphrase: &[u8], cost: Cost, salt: &[u8; SALT_LEN]) -> Result<Self, LockError> {
        let Cost { memory_kib, passes, lanes } = cost;
        let refused = |_| LockError::Cost { memory_kib, passes, lanes };
        let mut derived = Zeroizing::new([0; KEY_LEN + CHECK_LEN]);
        let params = Params::new(memory_kib, passes, lanes, Some(derived.len())).map_err(refused)?;
        // Ours, so that it is wiped.
        let mut memory = Zeroizing::new(Vec::new());
        let blocks = params.block_count();
        memory.try_reserve_exact(blocks).map_err(|_| LockError::Memory { memory_kib })?;
        memory.resize(blocks, Block::new());
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hashed =
            argon2.hash_password_into_with_memory(passphrase, salt, derived.as_mut_slice(), memory.as_mut_slice());
        hashed.map_err(|_| LockError::Provider)?;
        Ok(Self { cost, salt: *salt, derived })
    }

    /// Whether it was made with the same salt and cost as what was sealed, so that it opens it if the passphrase was the
    /// same.
    #[must_use]
    pub fn is_for(&self, locked: &Locked<'_>) -> bool {
        self.cost == locked.cost && self.salt == *locked.salt
    }

    /// Appends the sealed content to `out`: [`OVERHEAD`] bytes more than it has. `context` is authenticated with it and has
    /// to be the same when it is opened. The nonce is random, and another one each time.
    ///
    /// # Errors
    ///
    /// When the provider fails; `out` is then as it was.
    pub fn lock(
        &self,
        nonce: &[u8; NONCE_LEN],
        context: &[u8],
        content: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), LockError> {
        let mut header = [0; HEADER_LEN];
        header[..COST_LEN].copy_from_slice(&self.cost.encode());
        header[COST_LEN..NONCE_AT].copy_from_slice(&self.salt);
        header[NONCE_AT..CHECK_AT].copy_from_slice(nonce);
        header[CHECK_AT..].copy_from_slice(self.check());
        // Room for all of it from the start: encrypting in place must leave no copy of the content behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(content.len() + TAG_LEN));
        sealed.extend_from_slice(content);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.cipher()?
            .seal_in_place_append_tag(nonce, Aad::from(associated(context, &header)), &mut *sealed)
            .map_err(|_| LockError::Provider)?;
        out.extend_from_slice(&header);
        out.extend_from_slice(&sealed);
        Ok(())
    }

    /// Opens what was sealed with this key and in this context.
    ///
    /// # Errors
    ///
    /// [`LockError::Passphrase`] when another passphrase sealed it, [`LockError::Altered`] when the passphrase is right, but
    /// the bytes or the context are not the same.
    pub fn unlock(&self, locked: &Locked<'_>, context: &[u8]) -> Result<Zeroizing<Vec<u8>>, LockError> {
        verify_slices_are_equal(self.check(), locked.check).map_err(|_| LockError::Passphrase)?;
        let mut content = Zeroizing::new(locked.ciphertext.to_vec());
        let nonce = Nonce::assume_unique_for_key(*locked.nonce);
        let opened = self.cipher()?.open_in_place(nonce, Aad::from(associated(context, locked.header)), &mut content);
        let len = opened.map_err(|_| LockError::Altered)?.len();
        content.truncate(len);
        Ok(content)
    }

    fn check(&self) -> &[u8] {
        &self.derived[KEY_LEN..]
    }

    fn cipher(&self) -> Result<LessSafeKey, LockError> {
        let key = UnboundKey::new(&AES_256_GCM_SIV, &self.derived[..KEY_LEN]).map_err(|_| LockError::Provider)?;
        Ok(LessSafeKey::new(key))
    }
}

impl fmt::Debug for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cost, salt: _, derived: _ } = self;
        f.debug_struct("LockKey").field("cost", cost).finish_non_exhaustive()
    }
}

/// What is authenticated besides the content. The header has a fixed length, so the two cannot run into each other.
fn associated(context: &[u8], header: &[u8; HEADER_LEN]) -> Vec<u8> {
    [context, header].concat()
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn key(passphrase: &[u8]) -> LockKey {
        LockKey::derive(passphrase, CHEAP, &[1; SALT_LEN]).unwrap()
    }

    fn sealed() -> Vec<u8> {
        let mut sealed = Vec::new();
        key(b"right").lock(&[2; NONCE_LEN], b"context", b"content", &mut sealed).unwrap();
        sealed
    }

    /// Opens it as a reader does, who makes the key of what stands there.
    fn opened(sealed: &[u8], passphrase: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, LockError> {
        let locked = Locked::read(sealed)?;
        LockKey::derive(passphrase, locked.cost(), locked.salt())?.unlock(&locked, context)
    }

    #[test]
    fn the_right_passphrase_opens_it_and_another_is_told() {
        let sealed = sealed();
        assert_eq!(sealed.len(), b"content".len() + OVERHEAD);
        assert_eq!(opened(&sealed, b"right", b"context").unwrap().as_slice(), b"content");
        for wrong in [&b"wrong"[..], b"", b"right ", b"Right"] {
            assert_eq!(opened(&sealed, wrong, b"context"), Err(LockError::Passphrase));
        }
    }

    #[test]
    fn no_byte_can_be_changed_and_no_context_exchanged() {
        let sealed = sealed();
        assert_eq!(opened(&sealed, b"right", b"contexT"), Err(LockError::Altered));
        for place in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[place] ^= 1;
            let error = opened(&altered, b"right", b"context").unwrap_err();
            let expected = match place {
                // Another cost, if it is one at all, or another salt makes another key.
                0..NONCE_AT | CHECK_AT..HEADER_LEN => {
                    matches!(error, LockError::Passphrase | LockError::Cost { .. })
                }
                _ => error == LockError::Altered,
            };
            assert!(expected, "{place}: {error:?}");
        }
        for len in 0..sealed.len() {
            let error = opened(&sealed[..len], b"right", b"context").unwrap_err();
            assert_eq!(error, if len < OVERHEAD { LockError::CutOff } else { LockError::Altered }, "{len}");
        }
    }

    #[test]
    fn a_cost_out_of_bounds_is_refused_before_anything_is_spent() {
        let mut sealed = sealed();
        for (memory_kib, passes, lanes) in [
            (u32::MAX, 1, 1),
            (1024 * 1024 + 1, 1, 1),
            (7, 1, 1),
            (8, 0, 1),
            (8, 17, 1),
            (8, 1, 0),
            (64, 1, 5),
            (15, 1, 2),
        ] {
            let cost = Cost { memory_kib, passes, lanes };
            sealed[..COST_LEN].copy_from_slice(&cost.encode());
            assert_eq!(Locked::read(&sealed).unwrap_err(), LockError::Cost { memory_kib, passes, lanes });
        }
        for (memory_kib, passes, lanes) in [(8, 1, 1), (1024 * 1024, 16, 4), (32, 1, 4)] {
            let cost = Cost::new(memory_kib, passes, lanes).unwrap();
            assert_eq!(Cost::decode(&cost.encode()), Ok(cost));
        }
    }

    #[test]
    fn a_key_is_for_its_salt_and_cost() {
        let sealed = sealed();
        let locked = Locked::read(&sealed).unwrap();
        assert!(key(b"right").is_for(&locked) && key(b"wrong").is_for(&locked));
        assert!(!LockKey::derive(b"right", CHEAP, &[3; SALT_LEN]).unwrap().is_for(&locked));
        let dearer = Cost { passes: 2, ..CHEAP };
        assert!(!LockKey::derive(b"right", dearer, &[1; SALT_LEN]).unwrap().is_for(&locked));
    }

    #[test]
    fn a_key_is_printed_without_its_bytes() {
        let text = "LockKey { cost: Cost { memory_kib: 8, passes: 1, lanes: 1 }, .. }";
        assert_eq!(format!("{:?}", key(b"right")), text);
    }

    /// What OpenSSL makes of the same.
    #[test]
    fn the_key_is_what_argon2id_makes() {
        let cost = Cost::new(64, 2, 1).unwrap();
        let key = LockKey::derive(b"passphrase", cost, b"0123456789abcdef").unwrap();
        let hex: alloc::string::String = key.derived.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "7e4b9c24f43a8a4e2f2aa06bbfbf8afad9cda4f07e00ee4b94d6d46af7baf6939ed86b803636efb063853afd84b93fc48b262020981beb29c8e2a7ba440e290b"
        );
    }
}
