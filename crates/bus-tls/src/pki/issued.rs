//! A certificate that was just issued, and its private key.

use std::fmt;
use std::path::{Path, PathBuf};

use bus_proto::Principal;
use zeroize::Zeroizing;

use super::PkiError;
use super::write::{self, Readable};

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
    /// The key is readable by its owner alone from its first byte on. With `overwrite`, each file is replaced in one
    /// step, as a running program that follows rotation needs.
    ///
    /// # Errors
    ///
    /// [`PkiError::AlreadyExists`] when one of the files exists and `overwrite` is false; nothing is written then.
    /// [`PkiError::Io`] when writing fails.
    pub fn write(&self, dir: impl AsRef<Path>, overwrite: bool) -> Result<IssuedFiles, PkiError> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(write::failed(dir, "made"))?;
        let component = &self.principal.endpoint.component;
        let files = IssuedFiles {
            certificate: dir.join(format!("{component}.crt")),
            key: dir.join(format!("{component}.key")),
        };
        if overwrite {
            write::replace(&files.key, self.key_pem.as_bytes(), Readable::ByOwner)?;
            write::replace(&files.certificate, self.certificate_pem.as_bytes(), Readable::ByAll)?;
            return Ok(files);
        }
        if let Some(path) = [&files.certificate, &files.key].into_iter().find(|path| path.exists()) {
            return Err(PkiError::AlreadyExists { path: path.clone() });
        }
        write::create(&files.key, self.key_pem.as_bytes(), Readable::ByOwner)?;
        write::create(&files.certificate, self.certificate_pem.as_bytes(), Readable::ByAll)?;
        Ok(files)
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
