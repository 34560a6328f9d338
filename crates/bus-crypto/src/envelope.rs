//! Signing messages, and verifying what arrived.

use alloc::vec::Vec;

use bus_proto::{Principal, TrustDomain};

use crate::bundle::{Lifetime, VerifiedBundle};
use crate::clock::Clock;
use crate::keys::{KeyId, Signature, SignatureError, SigningFailed, SigningKey, sha256};
use crate::scan::{Scan, ScanError, scan};
use crate::trailer::{self, TrailerError};

const CONTEXT: &[u8] = b"ransomeye.v1 envelope\0";

/// What an Ed25519 signature of an envelope is made over: the context, the key's id, the digest of the prefix.
type ToSign = [u8; CONTEXT.len() + KeyId::LEN + 32];

fn to_sign(key_id: &KeyId, prefix_digest: &[u8; 32]) -> ToSign {
    let mut bytes = [0; CONTEXT.len() + KeyId::LEN + 32];
    let (context, rest) = bytes.split_at_mut(CONTEXT.len());
    let (id, digest) = rest.split_at_mut(KeyId::LEN);
    context.copy_from_slice(CONTEXT);
    id.copy_from_slice(key_id.as_bytes());
    digest.copy_from_slice(prefix_digest);
    bytes
}

/// A message ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedMessage {
    /// The prefix and the trailer.
    pub bytes: Vec<u8>,
    /// SHA-256 of the prefix: the `correlation_id` of an answer.
    pub digest: [u8; 32],
}

/// Signs the prefix of an envelope: the encoded message with its `authentication` absent. The trailer is appended in place;
/// with [`trailer::TRAILER_LEN`] bytes of spare capacity nothing is copied.
///
/// Bytes that no protobuf library wrote should go through [`scan()`] first: nothing here looks at them, and receivers will.
///
/// # Errors
///
/// When the provider fails.
pub fn sign(prefix: Vec<u8>, key: &SigningKey, key_id: &KeyId) -> Result<SignedMessage, SigningFailed> {
    let digest = sha256(&prefix);
    let signature = key.sign(&to_sign(key_id, &digest))?;
    let mut bytes = prefix;
    trailer::append(&mut bytes, key_id, &signature);
    Ok(SignedMessage { bytes, digest })
}

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// It is not signed.
    #[error(transparent)]
    Trailer(#[from] TrailerError),
    /// It is not in its one encoding, or something is missing or out of bounds.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The bundle at hand is of another key than the message's.
    #[error("the message names the key {stated}, but the bundle is of {given}")]
    OtherKey {
        /// The key that the trailer names.
        stated: KeyId,
        /// The key of the bundle.
        given: KeyId,
    },
    /// The signer belongs to another trust domain than the receiver listens to.
    #[error("the message is signed by {signer}, who does not belong to the trust domain {expected}")]
    ForeignTrustDomain {
        /// Whose bundle it is.
        signer: Principal,
        /// The trust domain that the caller named.
        expected: TrustDomain,
    },
    /// The bundle that came with the message is of another key than the message's.
    #[error("the message carries the bundle of another key than the one that it names")]
    ForeignBundle,
    /// The key's `verify_until` is over.
    #[error("the key expired {late_ms} ms ago")]
    KeyExpired {
        /// How long ago, in milliseconds.
        late_ms: i64,
    },
    /// The key's `not_before` is still to come.
    #[error("the key is valid only in {early_ms} ms: check both clocks")]
    KeyNotYetValid {
        /// In how long, in milliseconds.
        early_ms: i64,
    },
    /// The message says that it was made before its key existed.
    #[error("the message is {early_ms} ms older than its key: check the sender's clock")]
    OlderThanKey {
        /// By how much, in milliseconds.
        early_ms: i64,
    },
    /// The message says that it was made after its key's last moment of signing.
    #[error("the message was made {late_ms} ms after its key had stopped signing: check the sender's clock")]
    SignedTooLate {
        /// By how much, in milliseconds.
        late_ms: i64,
    },
    /// The signature does not hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The subject's last two tokens are not the signer's role and component.
    #[error("the subject names another sender than {signer}, who signed")]
    SubjectSender {
        /// Who signed.
        signer: Principal,
    },
    /// `source_component` is not the signer's component.
    #[error("source_component names another sender than {signer}, who signed")]
    SourceComponent {
        /// Who signed.
        signer: Principal,
    },
}

/// A message that was read and not yet verified. What it says are claims, good for cheap refusals and for finding the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified<'a> {
    scan: Scan<'a>,
    prefix: &'a [u8],
    key_id: KeyId,
    signature: Signature,
}

impl<'a> Unverified<'a> {
    /// Splits a message and scans its prefix.
    ///
    /// # Errors
    ///
    /// When it has no trailer, or its prefix is not in its one encoding.
    pub fn read(message: &'a [u8]) -> Result<Self, EnvelopeError> {
        let trailer::Split { prefix, key_id, signature } = trailer::split(message)?;
        Ok(Self { scan: scan(prefix)?, prefix, key_id, signature })
    }

    /// What it says.
    #[must_use]
    pub fn scan(&self) -> &Scan<'a> {
        &self.scan
    }

    /// The key that it names.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Verifies that the owner of `bundle` signed this message, and that it names its signer as the sender.
    ///
    /// The subject names the sender's role and component and no trust domain. So the caller says which one it expects: the
    /// one whose components publish on the subject, as a rule its own. A bundle of another one is refused, even where its
    /// certificate is trusted for something else.
    ///
    /// The caller has checked before that it arrived on the subject that it names, and that `bundle`'s certificate is not
    /// revoked.
    ///
    /// # Errors
    ///
    /// The first of the checks that fails, in the order: key, trust domain, bundle that came along, time, signature, sender.
    pub fn verify(
        self,
        bundle: &VerifiedBundle,
        trust_domain: &TrustDomain,
        clock: &Clock,
    ) -> Result<VerifiedPrefix<'a>, EnvelopeError> {
        if self.key_id != bundle.key_id() {
            return Err(EnvelopeError::OtherKey { stated: self.key_id, given: bundle.key_id() });
        }
        let signer = bundle.principal();
        if signer.trust_domain != *trust_domain {
            return Err(EnvelopeError::ForeignTrustDomain { signer: signer.clone(), expected: trust_domain.clone() });
        }
        if self.scan.bundle().is_some_and(|encoded| KeyId::of_bundle(encoded) != self.key_id) {
            return Err(EnvelopeError::ForeignBundle);
        }
        check_time(self.scan.timestamp(), bundle.lifetime(), clock)?;
        let digest = sha256(self.prefix);
        bundle.key().verify(&to_sign(&self.key_id, &digest), &self.signature)?;
        check_sender(&self.scan, signer)?;
        let principal = signer.clone();
        Ok(VerifiedPrefix { scan: self.scan, prefix: self.prefix, key_id: self.key_id, digest, principal })
    }
}

/// Reads and verifies a message in one step.
///
/// # Errors
///
/// As [`Unverified::read`] and [`Unverified::verify`].
pub fn verify<'a>(
    message: &'a [u8],
    bundle: &VerifiedBundle,
    trust_domain: &TrustDomain,
    clock: &Clock,
) -> Result<VerifiedPrefix<'a>, EnvelopeError> {
    Unverified::read(message)?.verify(bundle, trust_domain, clock)
}

fn check_time(timestamp: i64, lifetime: Lifetime, clock: &Clock) -> Result<(), EnvelopeError> {
    if let Some(late_ms) = clock.late_for(lifetime.verify_until) {
        return Err(EnvelopeError::KeyExpired { late_ms });
    }
    if let Some(early_ms) = clock.early_for(lifetime.not_before) {
        return Err(EnvelopeError::KeyNotYetValid { early_ms });
    }
    let early_ms = lifetime.not_before.saturating_sub(timestamp);
    if early_ms > clock.skew_ms() {
        return Err(EnvelopeError::OlderThanKey { early_ms });
    }
    let late_ms = timestamp.saturating_sub(lifetime.sign_until);
    if late_ms > clock.skew_ms() {
        return Err(EnvelopeError::SignedTooLate { late_ms });
    }
    Ok(())
}

fn check_sender(scan: &Scan<'_>, signer: &Principal) -> Result<(), EnvelopeError> {
    let mut tokens = scan.subject().rsplit('.');
    let (component, role) = (tokens.next(), tokens.next());
    if component != Some(signer.component().as_str()) || role != Some(signer.role().as_str()) {
        return Err(EnvelopeError::SubjectSender { signer: signer.clone() });
    }
    if scan.source_component() != signer.component().as_str() {
        return Err(EnvelopeError::SourceComponent { signer: signer.clone() });
    }
    Ok(())
}

/// The proof that a principal signed these bytes, and that they name it as their sender. Only verification makes one.
///
/// It is no proof that the message is new, meant for the receiver, or allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct VerifiedPrefix<'a> {
    scan: Scan<'a>,
    prefix: &'a [u8],
    key_id: KeyId,
    digest: [u8; 32],
    principal: Principal,
}

impl<'a> VerifiedPrefix<'a> {
    /// What the message says.
    #[must_use]
    pub fn scan(&self) -> &Scan<'a> {
        &self.scan
    }

    /// The signed bytes, which decode as an envelope without `authentication`: the scan has read everything in them that a
    /// decoder reads, and leaves it one reading. It is opaque what a `Custom.value` holds.
    #[must_use]
    pub fn prefix(&self) -> &'a [u8] {
        self.prefix
    }

    /// The key that signed, which stands for the sending process.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// SHA-256 of the signed bytes: the `correlation_id` of an answer.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Who signed.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
}
