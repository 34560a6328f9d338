//! Certificates in captured evidence, judged as of a time in the past.

use std::path::Path;
use std::time::Duration;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::ExpirationPolicy;

use crate::crl::RevocationLists;
use crate::error::TlsError;
use crate::leaf::{Judge, Usage, VerifiedLeaf};
use crate::place::Origin;
use crate::roots::Roots;
use crate::x509;

/// The deployment's authorities as of one moment, for verifying captured evidence years later, without an identity.
///
/// # What may be concluded
///
/// * From a [`VerifiedLeaf`]: the certificate stood for this component at that moment, by the word of an authority in the
///   trust root file that was valid then. Not that the evidence *is* of that moment: that is for whoever kept it to show,
///   because the owner of a key can sign any time into a message.
/// * With a revocation list, also: the list does not revoke it. A list from before that moment knows nothing of it, and an
///   authority may drop a certificate from its lists once it has expired: best is one from the certificate's last days.
///   Without a list nothing is known about revocation.
/// * From [`TlsError::RevokedSince`]: the certificate is revoked, and since when. A revocation counts whatever the list's age,
///   and whether it came before or after that moment: the caller compares. To verify a signature from before the
///   revocation nevertheless, load without a list.
///
/// A list that is out of date, then or now, does not refuse anything. But once there is a list file, every certificate of a
/// chain must be covered by a list in it that its issuer signed; of several lists of one authority the newest counts.
///
/// ```no_run
/// use bus_tls::{OfflineTrust, TlsError};
///
/// # let chain: &[&[u8]] = &[];
/// # let signed_unix_ms = 0;
/// let trust = OfflineTrust::load("ca.crt".as_ref(), Some("crl.pem".as_ref()), signed_unix_ms)?;
/// match trust.verify(chain) {
///     Ok(leaf) => println!("signed by {}", leaf.principal()),
///     Err(TlsError::RevokedSince { since_unix_ms, .. }) if since_unix_ms <= signed_unix_ms => println!("revoked before"),
///     Err(TlsError::RevokedSince { .. }) => println!("revoked after"),
///     Err(error) => println!("{error}"),
/// }
/// # Ok::<(), TlsError>(())
/// ```
pub struct OfflineTrust {
    roots: Roots,
    crls: Option<RevocationLists>,
    at: UnixTime,
    algorithms: WebPkiSupportedAlgorithms,
}

impl OfflineTrust {
    /// Reads the trust root file, and the revocation list file if there is one, both PEM. `at_unix_ms` is the moment, in Unix
    /// milliseconds, of which whole seconds count; one before 1970 is taken for 1970.
    ///
    /// The trust domain is the one that the trust root names; if it names none, any is accepted.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoTrustRootThen`] when no trust root was valid at that moment, or another [`TlsError`] that says which file is
    /// wrong, how, and what to do.
    pub fn load(trust_root: &Path, crl: Option<&Path>, at_unix_ms: i64) -> Result<Self, TlsError> {
        let at = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at_unix_ms).unwrap_or(0)));
        let roots = Roots::load(trust_root, None, at).map_err(|error| match error {
            TlsError::ExpiredTrustRoot { path, .. } => TlsError::NoTrustRootThen { path, at: date(at) },
            TlsError::NotYetValid { .. } => TlsError::NoTrustRootThen { path: trust_root.into(), at: date(at) },
            other => other,
        })?;
        let crls = crl.map(RevocationLists::load).transpose()?;
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        Ok(Self { roots, crls, at, algorithms })
    }

    /// Verifies a component's certificates, the leaf first, each in DER, as of the moment, and says whose they were. The bytes
    /// may be anything.
    ///
    /// # Errors
    ///
    /// * [`TlsError::NotValidThen`]: the certificate had expired, or was not valid yet;
    /// * [`TlsError::RevokedSince`]: it is revoked, or an intermediate is;
    /// * [`TlsError::ForeignCrl`]: there are lists, but none that its issuer signed;
    /// * else a [`TlsError`] with [`Origin::Evidence`] that says what is wrong with it.
    pub fn verify(&self, chain: &[&[u8]]) -> Result<VerifiedLeaf, TlsError> {
        let judge = Judge {
            algorithms: self.algorithms.all,
            roots: &self.roots,
            crls: self.crls.as_ref(),
            trust_domain: self.roots.trust_domain(),
            now: self.at,
            expiration: ExpirationPolicy::Ignore,
        };
        let certificates: Vec<_> = chain.iter().copied().map(CertificateDer::from).collect();
        judge.verify(&Origin::Evidence, &certificates, Usage::Client).map_err(|error| self.in_past_tense(chain, error))
    }

    fn in_past_tense(&self, chain: &[&[u8]], error: TlsError) -> TlsError {
        let then = |origin, bound| TlsError::NotValidThen { origin, at: date(self.at), bound };
        match error {
            TlsError::Expired { origin, not_after } => then(origin, format!("it expired at {not_after}")),
            TlsError::NotYetValid { origin, not_before } => then(origin, format!("it is valid from {not_before} on")),
            TlsError::Revoked { origin, serial, crl } => match self.revocation(chain) {
                Some((since, serial)) => {
                    TlsError::RevokedSince { origin, serial, crl, since_unix_ms: since.saturating_mul(1000) }
                }
                None => TlsError::Revoked { origin, serial, crl },
            },
            other => other,
        }
    }

    /// The first revocation of a certificate of the chain, in Unix seconds, and its serial number.
    fn revocation(&self, chain: &[&[u8]]) -> Option<(i64, String)> {
        let lists = self.crls.as_ref()?;
        let revoked = |der: &&[u8]| {
            let certificate = x509::parse(&Origin::Evidence, der).ok()?;
            Some((lists.revoked_since(&certificate)?, x509::serial(&certificate)))
        };
        chain.iter().filter_map(revoked).min()
    }
}

impl std::fmt::Debug for OfflineTrust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { roots, crls, at, algorithms: _ } = self;
        f.debug_struct("OfflineTrust").field("roots", roots).field("crls", crls).field("at", at).finish_non_exhaustive()
    }
}

fn date(at: UnixTime) -> String {
    x509::date(x509::seconds(at))
}
