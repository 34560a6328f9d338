//! The trust root: the certificates of the deployment's own authorities, and nothing else (A3).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus_proto::TrustDomain;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;

use crate::error::TlsError;
use crate::place::{FileKind, Origin};
use crate::{files, leaf, pem, x509};

/// The trust anchors of one file.
#[derive(Debug)]
pub(crate) struct Roots {
    path: PathBuf,
    store: Arc<RootCertStore>,
    trust_domain: Option<TrustDomain>,
    /// The start of the first validity that has not begun, in seconds since 1970.
    next_start: Option<i64>,
}

impl Roots {
    /// Reads the trust root file.
    ///
    /// `expected` is the trust domain that the roots must belong to, if they name one. A root that has expired, or is not
    /// valid yet, is left out, so that a file may hold the old authority beside the new one; at least one must be valid.
    pub(crate) fn load(path: &Path, expected: Option<&TrustDomain>, now: UnixTime) -> Result<Self, TlsError> {
        let contents = files::read(path, FileKind::TrustRoot)?;
        if let Some(mode) = contents.exposed()
            && pem::holds_private_key(&contents.bytes)
        {
            return Err(TlsError::KeyAmongCertificates { path: path.into(), kind: FileKind::TrustRoot, mode });
        }
        let certificates = pem::certificates(path, FileKind::TrustRoot, &contents.bytes)?;
        let origin = Origin::File(path.into());
        let mut store = RootCertStore::empty();
        let mut trust_domain = expected.cloned();
        let (mut last_expiry, mut waiting) = (None, None);
        for der in certificates {
            let certificate = x509::parse(&origin, &der)?;
            check_authority(path, &origin, &certificate)?;
            if let Some(found) = named_domain(&origin, &certificate)? {
                let expected = trust_domain.get_or_insert_with(|| found.clone());
                if *expected != found {
                    return Err(TlsError::ForeignTrustDomain { origin, found, expected: expected.clone() });
                }
            }
            let validity = certificate.validity();
            match x509::check_dates(&origin, &certificate, now) {
                Ok(()) => add(&origin, &mut store, &der)?,
                Err(TlsError::Expired { .. }) => last_expiry = last_expiry.max(Some(validity.not_after.timestamp())),
                Err(error) => {
                    tracing::warn!(target: "bus::security", %error, "a trust root is left out until it is valid");
                    let start = validity.not_before.timestamp();
                    let first = waiting.take().filter(|(earlier, _)| *earlier <= start);
                    waiting = Some(first.unwrap_or((start, error)));
                }
            }
        }
        if store.is_empty() {
            return Err(match (last_expiry, waiting) {
                (_, Some((_, not_yet_valid))) => not_yet_valid,
                (last, None) => {
                    let not_after = x509::date(last.unwrap_or(i64::MIN));
                    TlsError::ExpiredTrustRoot { path: path.into(), not_after }
                }
            });
        }
        let next_start = waiting.map(|(start, _)| start);
        Ok(Self { path: path.into(), store: Arc::new(store), trust_domain, next_start })
    }

    /// Whether a root that was left out has become valid.
    pub(crate) fn have_grown(&self, now: UnixTime) -> bool {
        self.next_start.is_some_and(|start| start <= x509::seconds(now))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }

    /// The trust domain that was expected, else the one that the roots name.
    pub(crate) fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }
}

impl PartialEq for Roots {
    /// Whether they trust the same authorities, and go on to do so.
    fn eq(&self, other: &Self) -> bool {
        self.store.roots == other.store.roots && self.next_start == other.next_start
    }
}

fn add(origin: &Origin, store: &mut RootCertStore, der: &CertificateDer<'_>) -> Result<(), TlsError> {
    store.add(der.clone()).map_err(|error| x509::malformed(origin, &error))
}

fn check_authority(path: &Path, origin: &Origin, certificate: &X509Certificate<'_>) -> Result<(), TlsError> {
    let key_usage = certificate.key_usage().map_err(|error| x509::malformed(origin, &error))?;
    let signs = key_usage.is_none_or(|extension| extension.value.key_cert_sign());
    if !certificate.is_ca() || !signs {
        return Err(TlsError::NotACa {
            path: path.into(),
            subject: x509::printable(&certificate.subject().to_string()),
        });
    }
    x509::check_key(origin, certificate)
}

/// The trust domain that an authority's certificate names by its own SPIFFE ID (X.509-SVID, section 3.2).
pub(crate) fn named_domain(
    origin: &Origin,
    certificate: &X509Certificate<'_>,
) -> Result<Option<TrustDomain>, TlsError> {
    let ids: Vec<&str> = x509::names(origin, certificate)?.iter().filter_map(leaf::spiffe_id).collect();
    match ids.as_slice() {
        [] => Ok(None),
        [id] => TrustDomain::from_spiffe_id(id)
            .map(Some)
            .map_err(|reason| TlsError::MalformedIdentity { origin: origin.clone(), reason }),
        several => Err(TlsError::SeveralIdentities { origin: origin.clone(), count: several.len() }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_root_that_was_left_out_is_due_when_its_validity_begins() {
        let now = UnixTime::now();
        let at = |seconds| OffsetDateTime::from_unix_timestamp(x509::seconds(now) + seconds).unwrap();
        let pem = |first, last| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params.not_before, params.not_after) = (at(first), at(last));
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        let valid = pem(-10, 1000);
        std::fs::write(&path, &valid).unwrap();
        let alone = Roots::load(&path, None, now).unwrap();
        std::fs::write(&path, valid + &pem(200, 1000) + &pem(100, 1000)).unwrap();
        let roots = Roots::load(&path, None, now).unwrap();
        let after = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + seconds));
        assert!(alone != roots && !alone.have_grown(after(900)));
        assert!(!roots.have_grown(after(99)));
        assert!(roots.have_grown(after(100)));
        let grown = Roots::load(&path, None, after(100)).unwrap();
        assert!(grown != roots && !grown.have_grown(after(199)) && grown.have_grown(after(200)));
    }
}
