//! Ed25519 keys (RFC 8032), with the checks that the provider leaves to its user.
//!
//! # What strict verification means here
//!
//! aws-lc recomputes `R` from the signature's `S`, the key and the message, and compares its canonical encoding with the
//! signature's first half byte for byte (the equation without the cofactor). It refuses `S` that is not below the group's
//! order. So there is one accepted encoding of a signature, and `R` in a non-canonical encoding never matches. This crate
//! adds what is missing:
//!
//! * a public key whose y-coordinate is not below the field's prime, or of small order, is refused when it is loaded: a
//!   key of small order verifies messages that nobody signed;
//! * a signature whose `R` is of small order is refused: no signer makes one by chance.
//!
//! This is what `verify_strict` of other libraries does. A key that is no point of the curve loads and verifies nothing.

use core::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use zeroize::Zeroizing;

/// The length of an Ed25519 signature, in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// The length of an Ed25519 public key, and of the seed of a private one, in bytes.
pub const KEY_LEN: usize = 32;

/// Names a signing key together with all that its bundle states: the SHA-256 of the encoded bundle.
///
/// Key ids are public and are compared in the ordinary way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; Self::LEN]);

impl KeyId {
    /// The length, in bytes.
    pub const LEN: usize = 32;

    /// The id of the key in an encoded bundle.
    #[must_use]
    pub fn of_bundle(encoded: &[u8]) -> Self {
        Self(sha256(encoded))
    }

    /// The id that a trailer states.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// An Ed25519 signature, of which nothing is known yet but its length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; SIGNATURE_LEN]);

impl Signature {
    /// The signature in these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; SIGNATURE_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes: `R`, then `S`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; SIGNATURE_LEN] {
        &self.0
    }

    fn r(&self) -> [u8; KEY_LEN] {
        let mut r = [0; KEY_LEN];
        r.copy_from_slice(&self.0[..KEY_LEN]);
        r
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(")?;
        hex(f, &self.0)?;
        f.write_str(")")
    }
}

/// The cryptographic provider failed, for want of memory or in a self-test. Nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic provider failed to sign")]
#[non_exhaustive]
pub struct SigningFailed;

/// Why a public key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The y-coordinate is not below the field's prime.
    #[error("the public key is not in its canonical encoding")]
    NotCanonical,
    /// The point is of small order, so that others than the holder of a private key could sign for it.
    #[error("the public key is of small order")]
    SmallOrder,
    /// The provider does not take it.
    #[error("the cryptographic provider refuses the key")]
    Refused,
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// `R` is of small order.
    #[error("the signature's first half is a point of small order")]
    SmallOrder,
    /// The signature was not made by this key over these bytes, or is malformed.
    #[error("the signature does not match")]
    Mismatch,
}

/// A private Ed25519 key: one per process, from 32 random bytes, gone with the process.
///
/// The provider overwrites its memory when this is dropped. It can be neither copied nor printed.
///
/// ```
/// use bus_crypto::SigningKey;
/// use bus_crypto::zeroize::Zeroizing;
///
/// let mut seed = Zeroizing::new([0; 32]);
/// # let fill = |seed: &mut [u8]| seed.fill(7);
/// fill(seed.as_mut_slice()); // from the operating system's random source
/// let key = SigningKey::from_seed(&seed)?;
/// assert!(format!("{key:?}").starts_with("SigningKey { public_key: "));
/// # Ok::<(), bus_crypto::SigningFailed>(())
/// ```
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// The key with this seed, which has to come from a cryptographic source of random bytes and to be used once. It is
    /// filled in place and borrowed, so that no copy of it is left behind unwiped.
    ///
    /// # Errors
    ///
    /// When the provider fails.
    pub fn from_seed(seed: &Zeroizing<[u8; KEY_LEN]>) -> Result<Self, SigningFailed> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| SigningFailed)?;
        Ok(Self { pair })
    }

    /// The public half.
    ///
    /// # Errors
    ///
    /// When the provider fails.
    pub fn public_key(&self) -> Result<[u8; KEY_LEN], SigningFailed> {
        self.pair.public_key().as_ref().try_into().map_err(|_| SigningFailed)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Signature, SigningFailed> {
        let signature = self.pair.try_sign(message).map_err(|_| SigningFailed)?;
        signature.as_ref().try_into().map(Signature).map_err(|_| SigningFailed)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pair } = self;
        f.write_str("SigningKey { public_key: ")?;
        hex(f, pair.public_key().as_ref())?;
        f.write_str(", .. }")
    }
}

/// A public Ed25519 key that is safe to verify with.
#[derive(Clone)]
pub struct VerifyingKey {
    bytes: [u8; KEY_LEN],
    parsed: ParsedPublicKey,
}

impl VerifyingKey {
    /// Loads a key.
    ///
    /// # Errors
    ///
    /// When it is not canonical, or of small order.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Result<Self, KeyError> {
        if is_small_order(&bytes) {
            return Err(KeyError::SmallOrder);
        }
        if !is_canonical(&bytes) {
            return Err(KeyError::NotCanonical);
        }
        let parsed = ParsedPublicKey::new(&ED25519, bytes).map_err(|_| KeyError::Refused)?;
        Ok(Self { bytes, parsed })
    }

    /// The encoded point.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    /// Verifies strictly, as the module says.
    pub(crate) fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        if is_small_order(&signature.r()) {
            return Err(SignatureError::SmallOrder);
        }
        self.parsed.verify_sig(message, signature.as_bytes()).map_err(|_| SignatureError::Mismatch)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifyingKey(")?;
        hex(f, &self.bytes)?;
        f.write_str(")")
    }
}

/// The field's prime 2²⁵⁵ − 19, little-endian.
pub(crate) const PRIME: [u8; KEY_LEN] = {
    let mut prime = [0xff; KEY_LEN];
    prime[0] = 0xed;
    prime[KEY_LEN - 1] = 0x7f;
    prime
};

/// The y-coordinates of the eight points whose order divides 8, without the sign of x, and the two of them (0 and 1) that
/// have a second encoding, p and p + 1.
const SMALL_ORDER: [[u8; KEY_LEN]; 7] = {
    let mut points = [[0; KEY_LEN], [0; KEY_LEN], PRIME, PRIME, PRIME, ORDER_8, ORDER_8_NEGATED];
    points[1][0] = 1;
    points[2][0] = 0xec;
    points[4][0] = 0xee;
    points
};

/// A y-coordinate of a point of order 8.
const ORDER_8: [u8; KEY_LEN] = [
    0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac,
    0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
];

/// The other one: 2²⁵⁵ − 19 minus the first.
const ORDER_8_NEGATED: [u8; KEY_LEN] = [
    0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53,
    0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
];

/// An encoded point without the sign of its x-coordinate.
fn y_coordinate(point: &[u8; KEY_LEN]) -> [u8; KEY_LEN] {
    let mut y = *point;
    y[KEY_LEN - 1] &= 0x7f;
    y
}

fn is_small_order(point: &[u8; KEY_LEN]) -> bool {
    SMALL_ORDER.contains(&y_coordinate(point))
}

/// Whether the y-coordinate is below the prime. That x = 0 has one sign only matters for points of small order.
fn is_canonical(point: &[u8; KEY_LEN]) -> bool {
    y_coordinate(point).iter().rev().lt(PRIME.iter().rev())
}

/// SHA-256 (FIPS 180-4).
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut output = [0; 32];
    output.copy_from_slice(digest.as_ref());
    output
}

pub(crate) fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests;
