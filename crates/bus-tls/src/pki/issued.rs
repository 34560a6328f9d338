//! A certificate that was just issued, and its private key.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use bus_proto::Principal;
use zeroize::Zeroizing;

use super::write::{self, Prepared, Readable};
use super::{Entry, PkiError};
use crate::inspect::CertificateInfo;

/// A certificate that was just issued, and its private key, which exists nowhere else until it is written.
pub struct Issued {
    pub(super) entry: Entry,
    pub(super) certificate_pem: String,
    pub(super) key_pem: Zeroizing<String>,
}

/// Where a certificate and its key were written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuedFiles {
    /// The certificate, `<component>.crt`.
    pub certificate: PathBuf,
    /// The private key, `<component>.key`, readable by its owner alone.
    pub key: PathBuf,
}

impl Issued {
    /// Whom it was issued to.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.entry.principal
    }

    /// The serial number, in lower-case hexadecimal without separators.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.entry.serial
    }

    /// The last second of its validity, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.entry.not_after
    }

    /// The certificate, as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key in PKCS#8, as PEM. It is wiped when this value is dropped; copies are the caller's to wipe.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Writes `<component>.crt` and `<component>.key` into a directory, which is made for its owner alone if need be.
    /// [`Authority::issue_to`](super::Authority::issue_to) makes sure first that they can be written.
    ///
    /// The key is readable by its owner alone from its first byte on. With `overwrite`, a former certificate of the same
    /// principal and its key are replaced, each in one step, as a running program that follows rotation needs. Between
    /// the two steps the new key stands beside the old certificate: such a program goes on with what it has until both
    /// are there. A lock in the directory keeps several writers apart.
    ///
    /// # Errors
    ///
    /// [`PkiError::AlreadyExists`] when one of the files exists and `overwrite` is false, [`PkiError::NotReplaced`] when
    /// they exist and are not a certificate of the same principal and its key; nothing is written then.
    /// [`PkiError::Io`] when writing fails.
    pub fn write(&self, dir: impl AsRef<Path>, overwrite: bool) -> Result<IssuedFiles, PkiError> {
        Place::claim(dir.as_ref(), self.principal(), overwrite)?.prepare(self)?.finish()
    }
}

/// The place of a certificate and its key, which may be written there. It is locked until this is dropped.
pub(super) struct Place {
    files: IssuedFiles,
    overwrite: bool,
    _lock: File,
}

impl Place {
    /// Locks the place of a principal's files, and checks what stands there.
    pub(super) fn claim(dir: &Path, principal: &Principal, overwrite: bool) -> Result<Self, PkiError> {
        write::make_directory(dir)?;
        let component = &principal.endpoint.component;
        let files = IssuedFiles {
            certificate: dir.join(format!("{component}.crt")),
            key: dir.join(format!("{component}.key")),
        };
        let lock = write::lock(dir)?;
        // A link counts, even one that leads nowhere.
        let found = [&files.certificate, &files.key].into_iter().find(|path| path.symlink_metadata().is_ok());
        match found {
            Some(path) if !overwrite => Err(PkiError::AlreadyExists { path: path.clone() }),
            Some(path) if !is_certificate_of(&files.certificate, principal) => {
                Err(PkiError::NotReplaced { path: path.clone(), principal: principal.clone() })
            }
            Some(_) if files.key.is_dir() => {
                Err(PkiError::NotReplaced { path: files.key, principal: principal.clone() })
            }
            _ => Ok(Self { files, overwrite, _lock: lock }),
        }
    }

    /// Writes what was issued, under other names as yet.
    pub(super) fn prepare(self, issued: &Issued) -> Result<Pending, PkiError> {
        let key = Prepared::new(&self.files.key, issued.key_pem.as_bytes(), Readable::ByOwner)?;
        let certificate = Prepared::new(&self.files.certificate, issued.certificate_pem.as_bytes(), Readable::ByAll)?;
        Ok(Pending { key, certificate, place: self })
    }
}

/// A certificate and its key that are written, but do not bear their names yet.
pub(super) struct Pending {
    key: Prepared,
    certificate: Prepared,
    place: Place,
}

impl Pending {
    pub(super) fn finish(self) -> Result<IssuedFiles, PkiError> {
        let Self { key, certificate, place } = self;
        if place.overwrite {
            key.replace()?;
            certificate.replace()?;
        } else {
            // A certificate without its key, if this is interrupted here, may be overwritten; a key without may not.
            certificate.create()?;
            key.create()?;
        }
        Ok(place.files)
    }
}

/// Whether a file holds a former certificate of the same principal, and not, say, that of the authority.
fn is_certificate_of(path: &Path, principal: &Principal) -> bool {
    CertificateInfo::read(path).is_ok_and(|former| {
        former.first().is_some_and(|former| !former.is_ca && former.principal.as_ref() == Some(principal))
    })
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, certificate_pem: _, key_pem: _ } = self;
        f.debug_struct("Issued").field("entry", entry).finish_non_exhaustive()
    }
}
