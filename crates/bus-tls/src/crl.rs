//! The certificate revocation lists.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateRevocationListDer;
use webpki::{
    CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::error::TlsError;
use crate::place::FileKind;
use crate::{files, pem};

/// The lists of one file.
///
/// Whether a list was signed by the right authority and is up to date is seen when a certificate is checked against it.
#[derive(Debug)]
pub(crate) struct RevocationLists {
    path: PathBuf,
    der: Vec<CertificateRevocationListDer<'static>>,
    parsed: Vec<CertRevocationList<'static>>,
}

impl RevocationLists {
    pub(crate) fn load(path: &Path) -> Result<Self, TlsError> {
        let contents = files::read(path, FileKind::Crl)?;
        let der = pem::revocation_lists(path, &contents.bytes)?;
        let parsed = der
            .iter()
            .map(|der| OwnedCertRevocationList::from_der(der).map(CertRevocationList::Owned))
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::MalformedCrl { path: path.into(), reason: format!("{error:?}") })?;
        Ok(Self { path: path.into(), der, parsed })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn der(&self) -> impl Iterator<Item = CertificateRevocationListDer<'static>> {
        self.der.iter().cloned()
    }

    pub(crate) fn borrowed(&self) -> Vec<&CertRevocationList<'static>> {
        self.parsed.iter().collect()
    }

    /// How the lists are used: for the whole chain, and a certificate of unknown status is refused, as is everything
    /// once a list is out of date. `None` when there are no lists.
    pub(crate) fn options<'a>(lists: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
        let options = RevocationOptionsBuilder::new(lists).ok()?;
        Some(
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build(),
        )
    }
}
