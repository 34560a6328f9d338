//! What the revocation list that is in its place says.

use std::path::Path;

use rustls::pki_types::CertificateDer;

use crate::place::FileKind;
use crate::{files, pem, x509};

/// What an authority has announced by its last revocation list.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// The number of the list.
    pub(super) number: u64,
    /// The serial numbers that it revokes, in lower-case hexadecimal.
    pub(super) serials: Vec<String>,
}

impl Announced {
    /// Reads the list of the authority with this certificate. One that is missing, damaged or another authority's
    /// announces nothing: it is replaced by the next.
    pub(super) fn read(path: &Path, authority: &CertificateDer<'_>) -> Self {
        Self::try_read(path, authority).unwrap_or_default()
    }

    fn try_read(path: &Path, authority: &CertificateDer<'_>) -> Option<Self> {
        let contents = files::read(path, FileKind::Crl).ok()?;
        let lists = pem::revocation_lists(path, &contents.bytes).ok()?;
        let (_, list) = x509_parser::parse_x509_crl(lists.first()?).ok()?;
        let (_, authority) = x509_parser::parse_x509_certificate(authority).ok()?;
        if list.issuer().as_raw() != authority.subject().as_raw() {
            return None;
        }
        Some(Self {
            number: list.crl_number().and_then(|number| number.try_into().ok()).unwrap_or_default(),
            serials: list.iter_revoked_certificates().map(|revoked| x509::hex(revoked.raw_serial())).collect(),
        })
    }
}
