//! The certificate revocation lists.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateRevocationListDer;
use webpki::{
    CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::num_bigint::BigUint;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::error::TlsError;
use crate::place::FileKind;
use crate::{files, pem, x509};

/// The object identifier of the extension IssuingDistributionPoint (RFC 5280, section 5.2.5).
const ISSUING_DISTRIBUTION_POINT: &str = "2.5.29.28";

/// The lists in use: one for each authority.
///
/// There is never a second one of the same authority, because `rustls-webpki` asks only the first that bears the
/// issuer's name. Whether a list was signed by the right authority and is up to date is seen when a certificate is
/// checked against it.
#[derive(Debug, PartialEq)]
pub(crate) struct RevocationLists {
    path: PathBuf,
    lists: Vec<Arc<List>>,
}

impl RevocationLists {
    /// Reads the file. Of several lists of one authority, the newest counts.
    pub(crate) fn load(path: &Path) -> Result<Self, TlsError> {
        let contents = files::read(path, FileKind::Crl)?;
        let mut lists: Vec<Arc<List>> = Vec::new();
        for der in pem::revocation_lists(path, &contents.bytes)? {
            let list = List::parse(path, der)?;
            match lists.iter().position(|other| other.issuer == list.issuer) {
                None => lists.push(Arc::new(list)),
                Some(at) if lists[at].is_replaced_by(path, &list)? => lists[at] = Arc::new(list),
                Some(_) => {}
            }
        }
        Ok(Self { path: path.into(), lists })
    }

    /// What is in use once `read`, a later state of the file, has been read: for each authority its newest list.
    ///
    /// A list stays in use when the file holds none of its authority any more, or an older one, which is also a fault:
    /// otherwise the loss of a file would undo revocations.
    pub(crate) fn succeeded_by(&self, mut read: Self) -> (Self, Option<TlsError>) {
        let mut fault = None;
        for list in &self.lists {
            match read.lists.iter().position(|other| other.issuer == list.issuer) {
                None => {
                    tracing::warn!(
                        target: "bus::security",
                        issuer = list.name,
                        path = %read.path.display(),
                        "the file no longer holds a revocation list of this authority; the one in use stays"
                    );
                    read.lists.push(Arc::clone(list));
                }
                Some(at) if read.lists[at].is_older_than(list) => {
                    fault.get_or_insert(TlsError::OlderCrl { path: read.path.clone(), issuer: list.name.clone() });
                    read.lists[at] = Arc::clone(list);
                }
                Some(_) => {}
            }
        }
        (read, fault)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn der(&self) -> impl Iterator<Item = CertificateRevocationListDer<'static>> {
        self.lists.iter().map(|list| list.der.clone())
    }

    pub(crate) fn borrowed(&self) -> Vec<&CertRevocationList<'static>> {
        self.lists.iter().map(|list| &list.parsed).collect()
    }

    /// The last moment at which none of the lists is out of date, in Unix milliseconds.
    pub(crate) fn good_until_unix_ms(&self) -> i64 {
        // `rustls-webpki` refuses from the first millisecond of `nextUpdate` on.
        let first = self.lists.iter().map(|list| list.next_update).min();
        first.map_or(i64::MAX, |seconds| seconds.saturating_mul(1000).saturating_sub(1))
    }

    /// Since when a certificate is revoked, in Unix seconds, if its authority's list revokes it: the time of the revocation,
    /// or the earlier time since when the authority holds it for invalid, if the list has that (RFC 5280, section 5.3.2).
    pub(crate) fn revoked_since(&self, certificate: &X509Certificate<'_>) -> Option<i64> {
        let list = self.lists.iter().find(|list| list.issuer == certificate.issuer().as_raw())?;
        let (_, list) = x509_parser::parse_x509_crl(&list.der).ok()?;
        let serial = &certificate.tbs_certificate.serial;
        let entry = list.iter_revoked_certificates().find(|entry| entry.serial() == serial)?;
        let revoked = entry.revocation_date.timestamp();
        Some(entry.invalidity_date().map_or(revoked, |(_, date)| date.timestamp().min(revoked)))
    }

    /// How the lists are used: for the whole chain, and a certificate of unknown status is refused, as is everything
    /// once a list is out of date if `expiration` says so. `None` when there are no lists.
    pub(crate) fn options<'a>(
        lists: &'a [&'a CertRevocationList<'a>],
        expiration: ExpirationPolicy,
    ) -> Option<RevocationOptions<'a>> {
        let options = RevocationOptionsBuilder::new(lists).ok()?;
        Some(
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(expiration)
                .build(),
        )
    }
}

/// One list.
#[derive(Debug)]
struct List {
    der: CertificateRevocationListDer<'static>,
    parsed: CertRevocationList<'static>,
    /// The issuer's name, as it is encoded.
    issuer: Vec<u8>,
    /// The same for people.
    name: String,
    /// Which of the issuer's keys signed it, and what it covers, as the list itself says.
    kind: [Option<Vec<u8>>; 2],
    /// What grows from each list of an authority to the next: its number (RFC 5280, section 5.2.3), and its date for
    /// authorities that do not number their lists.
    age: (Option<BigUint>, i64),
    /// When it is out of date, in seconds since 1970.
    next_update: i64,
}

impl List {
    fn parse(path: &Path, der: CertificateRevocationListDer<'static>) -> Result<Self, TlsError> {
        let malformed = |reason| TlsError::MalformedCrl { path: path.into(), reason };
        let parsed = OwnedCertRevocationList::from_der(&der).map_err(|error| malformed(format!("{error:?}")))?;
        let (_, list) = x509_parser::parse_x509_crl(&der).map_err(|error| malformed(error.to_string()))?;
        let (issuer, name) = (list.issuer().as_raw().to_vec(), x509::printable(&list.issuer().to_string()));
        let kind = [signer(&list), scope(&list)];
        let age = (list.crl_number().cloned(), list.last_update().timestamp());
        // There always is one: `rustls-webpki` has refused a list without.
        let next_update = list.next_update().map_or(i64::MIN, |at| at.timestamp());
        Ok(Self { parsed: CertRevocationList::Owned(parsed), issuer, name, kind, age, next_update, der })
    }

    /// Whether a list that bears the same name, and stands in the same file, is newer.
    fn is_replaced_by(&self, path: &Path, other: &Self) -> Result<bool, TlsError> {
        if self.kind != other.kind || self.age == other.age && self.der != other.der {
            return Err(TlsError::AmbiguousCrl { path: path.into(), issuer: self.name.clone() });
        }
        Ok(self.age < other.age)
    }

    fn is_older_than(&self, other: &Self) -> bool {
        // Another authority that took over the name starts its own count.
        self.kind == other.kind && self.age < other.age
    }
}

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

/// The identifier of the key that signed a list.
fn signer(list: &CertificateRevocationList<'_>) -> Option<Vec<u8>> {
    list.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    })
}

/// What a list covers, when that is not everything that its authority signs.
fn scope(list: &CertificateRevocationList<'_>) -> Option<Vec<u8>> {
    let mut extensions = list.extensions().iter();
    extensions.find(|one| one.oid.to_id_string() == ISSUING_DISTRIBUTION_POINT).map(|one| one.value.to_vec())
}
