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
}

impl Roots {
    /// Reads the trust root file.
    ///
    /// `expected` is the trust domain that the roots must belong to, if they name one. A root that has expired is left
    /// out, so that a file may hold the old authority beside the new one; at least one must be valid.
    pub(crate) fn load(path: &Path, expected: Option<&TrustDomain>, now: UnixTime) -> Result<Self, TlsError> {
        let contents = files::read(path, FileKind::TrustRoot)?;
        let certificates = pem::certificates(path, FileKind::TrustRoot, &contents.bytes)?;
        let origin = Origin::File(path.into());
        let mut store = RootCertStore::empty();
        let mut trust_domain = expected.cloned();
        let mut last_expiry = i64::MIN;
        for der in certificates {
            let certificate = x509::parse(&origin, &der)?;
            check_authority(path, &origin, &certificate)?;
            if let Some(found) = named_domain(&origin, &certificate)? {
                let expected = trust_domain.get_or_insert_with(|| found.clone());
                if *expected != found {
                    return Err(TlsError::ForeignTrustDomain { origin, found, expected: expected.clone() });
                }
            }
            match x509::check_dates(&origin, &certificate, now) {
                Ok(()) => add(&origin, &mut store, &der)?,
                Err(TlsError::Expired { .. }) => {
                    last_expiry = last_expiry.max(certificate.validity().not_after.timestamp());
                }
                Err(other) => return Err(other),
            }
        }
        if store.is_empty() {
            return Err(TlsError::ExpiredTrustRoot { path: path.into(), not_after: x509::date(last_expiry) });
        }
        Ok(Self { path: path.into(), store: Arc::new(store), trust_domain })
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

fn add(origin: &Origin, store: &mut RootCertStore, der: &CertificateDer<'_>) -> Result<(), TlsError> {
    store.add(der.clone()).map_err(|error| x509::malformed(origin, &error))
}

fn check_authority(path: &Path, origin: &Origin, certificate: &X509Certificate<'_>) -> Result<(), TlsError> {
    let key_usage = certificate.key_usage().map_err(|error| x509::malformed(origin, &error))?;
    let signs = key_usage.is_none_or(|extension| extension.value.key_cert_sign());
    if !certificate.is_ca() || !signs {
        return Err(TlsError::NotACa {
            path: path.into(),
            subject: certificate.subject().to_string().escape_default().take(200).collect(),
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
