//! X25519 keys (RFC 7748), with the checks that the provider leaves to its user.

use alloc::boxed::Box;
use core::fmt;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use zeroize::Zeroizing;

use crate::keys::{PRIME, hex};

/// The length of a public key, and of the seed of a private one, in bytes.
pub(super) const KEY_LEN: usize = 32;

/// The source of random bytes or the cryptographic provider failed. Nothing was sealed.
///
/// Whoever hands a source of random bytes to [`Epoch::new`](super::Epoch::new) reports its failure with this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the source of random bytes or the cryptographic provider failed")]
pub struct SealingFailed;

/// Why a public key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealingKeyError {
    /// The u-coordinate is not below the field's prime.
    #[error("the sealing key is not in its canonical encoding")]
    NotCanonical,
    /// The point is of small order, so that everyone could read what is sealed to it.
    #[error("the sealing key is of small order")]
    SmallOrder,
}

/// A private X25519 key, to which others seal: one per component and version.
///
/// Its memory is overwritten when this is dropped. It can be neither copied nor printed.
///
/// ```
/// use bus_crypto::sealing::SealingKey;
/// use bus_crypto::zeroize::Zeroizing;
///
/// let mut seed = Zeroizing::new([0; 32]);
/// # let fill = |seed: &mut [u8]| seed.fill(7);
/// fill(seed.as_mut_slice()); // from the operating system's random source
/// let key = SealingKey::from_seed(&seed)?;
/// assert!(format!("{key:?}").starts_with("SealingKey { public_key: "));
/// # Ok::<(), bus_crypto::sealing::SealingFailed>(())
/// ```
pub struct SealingKey {
    /// On the heap, so that no copy stays behind where this is moved.
    seed: Box<Zeroizing<[u8; KEY_LEN]>>,
    private: PrivateKey,
    public: SealingPublicKey,
}

impl SealingKey {
    /// The key with this seed, which has to come from a cryptographic source of random bytes, or from where
    /// [`SealingKey::seed`] was kept.
    ///
    /// # Errors
    ///
    /// When the provider fails.
    pub fn from_seed(seed: &Zeroizing<[u8; KEY_LEN]>) -> Result<Self, SealingFailed> {
        let private = PrivateKey::from_private_key(&X25519, seed.as_slice()).map_err(|_| SealingFailed)?;
        let public = private.compute_public_key().map_err(|_| SealingFailed)?;
        let public = public.as_ref().try_into().map_err(|_| SealingFailed)?;
        // None is refused: clamping rules out every multiple of the base point's order.
        let public = SealingPublicKey::from_bytes(public).map_err(|_| SealingFailed)?;
        let mut kept = Box::new(Zeroizing::new([0; KEY_LEN]));
        kept.copy_from_slice(seed.as_slice());
        Ok(Self { seed: kept, private, public })
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &SealingPublicKey {
        &self.public
    }

    /// The seed, for whoever keeps the key: encrypted, or in a file that nobody else can read.
    #[must_use]
    pub fn seed(&self) -> &Zeroizing<[u8; KEY_LEN]> {
        &self.seed
    }

    pub(super) fn private(&self) -> &PrivateKey {
        &self.private
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed: _, private: _, public } = self;
        f.write_str("SealingKey { public_key: ")?;
        hex(f, public.as_bytes())?;
        f.write_str(", .. }")
    }
}

/// A public X25519 key that is safe to seal to.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingPublicKey([u8; KEY_LEN]);

impl SealingPublicKey {
    /// Loads a key: its u-coordinate, little-endian.
    ///
    /// # Errors
    ///
    /// When it is not canonical, or of small order. RFC 7748 would ignore the highest bit and reduce the rest, which gives one
    /// key several encodings.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Result<Self, SealingKeyError> {
        if !bytes.iter().rev().lt(PRIME.iter().rev()) {
            return Err(SealingKeyError::NotCanonical);
        }
        if SMALL_ORDER.contains(&bytes) {
            return Err(SealingKeyError::SmallOrder);
        }
        Ok(Self(bytes))
    }

    /// The encoded u-coordinate.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingPublicKey(")?;
        hex(f, &self.0)?;
        f.write_str(")")
    }
}

/// The u-coordinates below the prime of the points whose order divides 8, on the curve and on its twist: 0, 1, −1, and two of
/// order 8. Whatever private key they are multiplied with, the outcome is 0.
const SMALL_ORDER: [[u8; KEY_LEN]; 5] = {
    let mut points = [[0; KEY_LEN], [0; KEY_LEN], PRIME, ORDER_8, ORDER_8_OTHER];
    points[1][0] = 1;
    points[2][0] = 0xec;
    points
};

/// A u-coordinate of a point of order 8.
const ORDER_8: [u8; KEY_LEN] = [
    0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d,
    0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
];

/// The other one.
const ORDER_8_OTHER: [u8; KEY_LEN] = [
    0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c,
    0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
];

#[cfg(test)]
mod tests;
