//! Why a key bundle is refused, or cannot be made.

use bus_proto::{IdentityError, Role};

use crate::bundle::Scheme;
use crate::keys::{KeyError, SignatureError, SigningFailed};
use crate::scan::ScanError;

/// Why a key bundle, or the certificate under it, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The encoding is not canonical, or a field is missing or out of its bounds.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The principal is no SPIFFE ID of the bus.
    #[error("the principal of the key statement: {0}")]
    Principal(IdentityError),
    /// The role belongs to what stands between components.
    #[error("the role `{role}` is reserved and has no keys on the bus: give components a role of their own")]
    ReservedRole {
        /// The role.
        role: Role,
    },
    /// The times are not in order, or the key signs for more than 24 hours.
    #[error(
        "the key's times are out of order: not_before < sign_until <= verify_until, and 24 hours of signing at most"
    )]
    Lifetime,
    /// The key could still be accepted when a certificate of its chain has ended.
    #[error("the key is to be accepted for {excess_ms} ms longer than its certificates last: renew them or shorten it")]
    OutlivesChain {
        /// By how much, in milliseconds.
        excess_ms: i64,
    },
    /// The first certificate of the chain is not the one that was validated.
    #[error("it carries another certificate than the one that was validated")]
    OtherLeaf,
    /// The statement names another principal than its certificate.
    #[error("it names another principal than its certificate")]
    OtherPrincipal,
    /// `verify_until` is over.
    #[error("the key expired {late_ms} ms ago")]
    Expired {
        /// How long ago, in milliseconds.
        late_ms: i64,
    },
    /// `not_before` is still to come.
    #[error("the key is valid only in {early_ms} ms: check both clocks")]
    NotYetValid {
        /// In how long, in milliseconds.
        early_ms: i64,
    },
    /// The signing key is weak or malformed.
    #[error("the signing key: {0}")]
    SigningKey(KeyError),
    /// Nobody who holds the signing key vouches for the statement.
    #[error("the proof of possession: {0}")]
    Possession(SignatureError),
    /// The certificate's key is malformed, or of a kind that signs no bundles.
    #[error("the certificate's key is malformed, or none of P-256, P-384, Ed25519 and RSA")]
    UnsupportedLeafKey,
    /// The certificate's Ed25519 key is weak.
    #[error("the certificate's key: {0}")]
    LeafKey(KeyError),
    /// The scheme is not the one of the certificate's key.
    #[error("it is signed with scheme {stated:#06x}, but the certificate's key signs with {needed}")]
    SchemeMismatch {
        /// The number that the bundle, or its maker, states.
        stated: u32,
        /// The scheme of the key.
        needed: Scheme,
    },
    /// The certificate's key did not sign the statement, or is an RSA key of another size than 2,048 to 8,192 bits.
    #[error("the signature of the certificate's key does not match")]
    LeafSignature,
}

/// Why a key bundle cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError<E: core::error::Error + 'static> {
    /// Receivers would refuse it.
    #[error(transparent)]
    Refused(#[from] BundleError),
    /// The signing key did not sign.
    #[error(transparent)]
    Signing(#[from] SigningFailed),
    /// The certificate's key did not sign.
    #[error("the certificate's key did not sign the bundle")]
    Leaf(#[source] E),
}
