//! Our own signing keys: one at a time, made in this process, and gone with it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use bus_crypto::zeroize::Zeroizing;
use bus_crypto::{
    BundleError, Clock, KeyId, LeafFacts, LeafKey, LeafSigner, Lifetime, MakeError, Scheme, SigningFailed, SigningKey,
    bundle,
};
use bus_proto::prost::bytes::Bytes;
use bus_tls::{OwnCredentials, TlsError, TlsIdentity};
use tokio::sync::Notify;

use crate::time::{millis, unix_ms};

/// The longest that a key signs, in milliseconds, whatever its age at rotation.
const SIGN_FOR_MS: i64 = bundle::MAX_SIGNING_MS;

/// How long after its last signature a key is good for verifying, in milliseconds, as far as the certificate is: seven
/// days.
const VERIFY_FOR_MS: i64 = 7 * 86_400_000;

/// How long before its last moment of signing a key is replaced at the latest, in milliseconds, so that what it signed
/// last is still accepted where clocks differ.
const MARGIN_MS: i64 = 60_000;

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The certificate's key is of a kind that signs no bundles, or receivers would refuse the bundle.
    #[error("no bundle can be made with this certificate: {0}")]
    Bundle(BundleError),
    /// The certificate's key did not sign.
    #[error("the certificate's key did not sign the bundle: {0}")]
    Certificate(TlsError),
    /// The certificate is about to expire.
    #[error("the certificate expires too soon to sign with it: rotate it")]
    Expiring,
    /// The system gives no randomness.
    #[error("the operating system gives no random bytes")]
    Randomness,
    /// The cryptographic provider failed.
    #[error(transparent)]
    Provider(#[from] SigningFailed),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl From<MakeError<TlsError>> for KeyError {
    fn from(error: MakeError<TlsError>) -> Self {
        match error {
            MakeError::Leaf(error) => Self::Certificate(error),
            MakeError::Refused(error) => Self::Bundle(error),
            MakeError::Signing(error) => Self::Provider(error),
            other => Self::Other(other.to_string()),
        }
    }
}

/// A signing key with its bundle. What it signed since it was made is one *session* of this component.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SigningKey,
    pub(crate) key_id: KeyId,
    pub(crate) bundle: Bytes,
    lifetime: Lifetime,
    /// When it is time for another one.
    renew_at: i64,
    /// The certificate that vouches for it.
    leaf: [u8; 32],
}

/// One key in place of another.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) former: KeyId,
    pub(crate) next: Arc<Session>,
}

/// Makes sessions, and holds the one in use.
#[derive(Debug)]
pub(crate) struct Signer {
    identity: TlsIdentity,
    max_age: Duration,
    skew_ms: i64,
    current: Mutex<Arc<Session>>,
    /// The length of its bundle.
    bundle_len: AtomicUsize,
    /// Whether anything was signed, and who waits for that.
    signs: AtomicBool,
    first: Notify,
}

/// The key of our certificate, as `bus-crypto` uses it.
pub(crate) struct Leaf<'a>(pub(crate) &'a OwnCredentials, pub(crate) Scheme);

impl LeafSigner for Leaf<'_> {
    type Error = TlsError;

    fn scheme(&self) -> Scheme {
        self.1
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        self.0.sign(self.1.code(), message)
    }
}

impl Signer {
    /// Makes the first key.
    pub(crate) fn new(identity: TlsIdentity, max_age: Duration, skew_ms: i64) -> Result<Self, KeyError> {
        let current = Session::make(&identity, max_age, skew_ms)?;
        Ok(Self {
            identity,
            max_age,
            skew_ms,
            bundle_len: AtomicUsize::new(current.bundle.len()),
            current: Mutex::new(Arc::new(current)),
            signs: AtomicBool::new(false),
            first: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Session>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session in use.
    pub(crate) fn current(&self) -> Arc<Session> {
        Arc::clone(&self.lock())
    }

    /// The session to sign with now. One that may no longer sign is replaced here, should nobody have done so before:
    /// the host may have slept.
    pub(crate) fn session(&self, now_unix_ms: i64) -> Result<Arc<Session>, KeyError> {
        if !self.signs.swap(true, Ordering::AcqRel) {
            self.first.notify_one();
        }
        let current = self.current();
        let Lifetime { not_before, sign_until, .. } = current.lifetime;
        // The clock may have been set back: to receivers with the right time, the key would be yet to come.
        let yet_to_come = now_unix_ms.saturating_add(self.skew_ms / 2) < not_before;
        if now_unix_ms >= sign_until || yet_to_come {
            return self.rotate().map(|rotation| rotation.next);
        }
        Ok(current)
    }

    /// Waits until something is to be signed for the first time.
    pub(crate) async fn signs(&self) {
        if !self.signs.load(Ordering::Acquire) {
            self.first.notified().await;
        }
    }

    /// Makes another key, and returns the former one besides. Messages that are already signed stay good: their bundle
    /// travels with them.
    pub(crate) fn rotate(&self) -> Result<Rotation, KeyError> {
        // Made before anybody is kept from signing: the certificate's key may take its time.
        let next = Arc::new(Session::make(&self.identity, self.max_age, self.skew_ms)?);
        let former = std::mem::replace(&mut *self.lock(), Arc::clone(&next)).key_id;
        self.bundle_len.store(next.bundle.len(), Ordering::Relaxed);
        Ok(Rotation { former, next })
    }

    /// How long the bundle of the key in use is, in bytes.
    pub(crate) fn bundle_len(&self) -> usize {
        self.bundle_len.load(Ordering::Relaxed)
    }

    /// Makes another key if the present one is old enough, or its certificate has been replaced.
    pub(crate) fn renew(&self) -> Result<Option<Rotation>, KeyError> {
        let current = self.current();
        let outdated = current.leaf != *self.identity.credentials().leaf().sha256();
        if unix_ms() < current.renew_at && !outdated {
            return Ok(None);
        }
        self.rotate().map(Some)
    }
}

impl Session {
    fn make(identity: &TlsIdentity, max_age: Duration, skew_ms: i64) -> Result<Self, KeyError> {
        let credentials = identity.credentials();
        let leaf = leaf_facts(credentials.leaf()).map_err(KeyError::Bundle)?;
        let not_before = unix_ms();
        let end = leaf.chain_not_after_unix_ms;
        let sign_until = not_before.saturating_add(SIGN_FOR_MS).min(end);
        let verify_until = sign_until.saturating_add(VERIFY_FOR_MS).min(end);
        if sign_until <= not_before {
            return Err(KeyError::Expiring);
        }
        let lifetime = Lifetime { not_before, sign_until, verify_until };
        let mut seed = Zeroizing::new([0; 32]);
        rand::fill(seed.as_mut_slice()).map_err(|_| KeyError::Randomness)?;
        let key = SigningKey::from_seed(&seed)?;
        let signer = Leaf(&credentials, leaf.key.scheme());
        let clock = Clock::new(not_before, skew_ms);
        let made = bundle::make(&key, lifetime, credentials.chain(), &leaf, &signer, &clock)?;
        // A certificate at the end of its days is used as long as it lasts.
        let latest = sign_until.saturating_sub(MARGIN_MS).max(not_before.saturating_add(sign_until) / 2);
        let renew_at = not_before.saturating_add(millis(max_age)).min(latest);
        Ok(Self { key, key_id: made.key_id, bundle: made.encoded.into(), lifetime, renew_at, leaf: leaf.sha256 })
    }
}

/// What `bus-crypto` is told about a certificate that `bus-tls` has verified, to verify a key bundle under it.
///
/// # Errors
///
/// When the certificate's key is of a kind that signs no bundles.
pub fn leaf_facts(leaf: &bus_tls::VerifiedLeaf) -> Result<LeafFacts, BundleError> {
    Ok(LeafFacts {
        principal: leaf.principal().clone(),
        key: LeafKey::from_spki(leaf.spki())?,
        sha256: *leaf.sha256(),
        chain_not_after_unix_ms: leaf.chain_not_after_unix_ms(),
    })
}
