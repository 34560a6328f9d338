//! A certificate that was just issued, and its private key.

use std::fmt;
use std::path::{Path, PathBuf};

use bus_proto::Principal;
use zeroize::Zeroizing;

use super::PkiError;
use super::write::{self, Prepared, Readable};
use crate::inspect::CertificateInfo;

/// A certificate that was just issued, and its private key, which exists nowhere else until it is written.
pub struct Issued {
    pub(super) principal: Principal,
    pub(super) serial: String,
    pub(super) not_after: i64,
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
        &self.principal
    }

    /// The serial number, in lower-case hexadecimal without separators.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The last second of its validity, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
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

    /// Writes `<component>.crt` and `<component>.key` into a directory, which is made if need be.
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
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(write::failed(dir, "made"))?;
        let component = &self.principal.endpoint.component;
        let files = IssuedFiles {
            certificate: dir.join(format!("{component}.crt")),
            key: dir.join(format!("{component}.key")),
        };
        let _lock = write::lock(dir)?;
        if let Some(path) = [&files.certificate, &files.key].into_iter().find(|path| path.symlink_metadata().is_ok()) {
            if !overwrite {
                return Err(PkiError::AlreadyExists { path: path.clone() });
            }
            if !self.may_replace(&files.certificate) {
                return Err(PkiError::NotReplaced { path: path.clone(), principal: self.principal.clone() });
            }
        }
        let key = Prepared::new(&files.key, self.key_pem.as_bytes(), Readable::ByOwner)?;
        let certificate = Prepared::new(&files.certificate, self.certificate_pem.as_bytes(), Readable::ByAll)?;
        if overwrite {
            key.replace()?;
            certificate.replace()?;
        } else {
            // A certificate without its key, if this is interrupted here, may be overwritten; a key without may not.
            certificate.create()?;
            key.create()?;
        }
        Ok(files)
    }

    /// Whether a file holds a former certificate of the same principal, and not, say, that of the authority.
    fn may_replace(&self, certificate: &Path) -> bool {
        CertificateInfo::read(certificate).is_ok_and(|former| {
            former.first().is_some_and(|former| !former.is_ca && former.principal.as_ref() == Some(&self.principal))
        })
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, serial, not_after, certificate_pem: _, key_pem: _ } = self;
        f.debug_struct("Issued")
            .field("principal", principal)
            .field("serial", serial)
            .field("not_after", not_after)
            .finish_non_exhaustive()
    }
}
