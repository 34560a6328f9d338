//! The own certificate in use, for signing outside of a handshake.

use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;

use crate::credentials::{Credentials, Own};
use crate::error::TlsError;
use crate::leaf::VerifiedLeaf;

/// Our own certificate with its private key, as they were in use when
/// [`TlsIdentity::credentials`](crate::TlsIdentity::credentials) was called.
///
/// It signs, and never gives out the key. What it signs must not be mistaken for a handshake's signature, which begins with 64
/// spaces (RFC 8446, section 4.4.3): begin it with a text of its own.
///
/// ```no_run
/// use bus_tls::{TlsIdentity, TlsOptions};
///
/// let identity = TlsIdentity::load(TlsOptions::from_env()?)?;
/// let credentials = identity.credentials();
/// let signature = credentials.sign(0x0403, b"my protocol, version 1: a statement")?; // ecdsa_secp256r1_sha256
/// # let _ = signature;
/// # Ok::<(), bus_tls::TlsError>(())
/// ```
#[derive(Clone)]
pub struct OwnCredentials {
    own: Arc<Own>,
    generation: u64,
}

impl OwnCredentials {
    pub(crate) fn of(credentials: &Credentials) -> Self {
        Self { own: Arc::clone(&credentials.own), generation: credentials.generation }
    }

    /// The certificates, at least one: the leaf, then its intermediates, as the file has them.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.own.certified_key.cert
    }

    /// The first of them, as it was verified when it was taken into use.
    #[must_use]
    pub fn leaf(&self) -> &VerifiedLeaf {
        &self.own.leaf
    }

    /// As [`TlsIdentity::generation`](crate::TlsIdentity::generation). It also grows when only the trust roots or
    /// revocation lists change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Signs `message`, which is not yet hashed, with the private key of the certificate and exactly this signature scheme, as
    /// TLS numbers it (RFC 8446, section 4.2.3): 0x0403 for a P-256 key, 0x0503 for P-384, 0x0804 for RSA, 0x0807 for
    /// Ed25519.
    ///
    /// # Errors
    ///
    /// [`TlsError::UnsupportedScheme`] when the key is not of the scheme's kind, [`TlsError::Signing`] when the crypto provider
    /// fails.
    pub fn sign(&self, scheme: u16, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        let signer = self.own.certified_key.key.choose_scheme(&[SignatureScheme::from(scheme)]);
        let signer = signer.ok_or(TlsError::UnsupportedScheme { scheme })?;
        signer.sign(message).map_err(|reason| TlsError::Signing { reason })
    }
}

impl fmt::Debug for OwnCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own, generation } = self;
        let Own { certified_key: _, leaf } = &**own;
        f.debug_struct("OwnCredentials").field("leaf", leaf).field("generation", generation).finish_non_exhaustive()
    }
}
