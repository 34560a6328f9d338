//! What can be wrong with a file, for the spool and the records alike.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// Why a file of this crate cannot be used, or not now.
///
/// It is `Clone`, since one failed write is the answer to everybody who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no room on the disk. Nothing was written, what was there is whole, and writing works again when there is room.
    #[error("the disk is full, and nothing more can be written to {path}; make room and try again")]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the one that the file was made with.
    #[error("{path} was made with another key; use the key file that was used when it was made")]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
    /// The key file holds no key.
    #[error(
        "{path} is not a key file of {expected} bytes; restore it from a backup, or move it and what it protects away"
    )]
    NotAKey {
        /// The key file.
        path: PathBuf,
        /// How long it has to be, in bytes.
        expected: usize,
    },
    /// The file was damaged: by the disk, or by something else that wrote to it.
    #[error("{path} is damaged ({what}); move it away to begin anew, and restore it from a backup if there is one")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The file belongs to something else.
    #[error("{path} is no {expected}; choose another path")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it was opened as.
        expected: &'static str,
    },
    /// The file is of a version that this program does not know, and is left as it is.
    #[error(
        "{path} has version {found} of its format, and this program knows version {supported}; use the program that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version of the file's format.
        found: i64,
        /// The version that is supported.
        supported: i64,
    },
    /// Another process, or another part of this one, has the file open.
    #[error("{path} is in use by another process; stop that one, or give this one a file of its own")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read or write the file.
    #[error("{path} is accessible by others than its owner (mode {mode:03o}); run `chmod 600` on it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The operating system refused.
    #[error("{path} cannot be used")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// SQLite failed in another way.
    #[error("the database {path} failed")]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: Arc<rusqlite::Error>,
    },
    /// The operating system's random source, or the cryptographic provider, failed.
    #[error("the cryptographic provider failed")]
    Provider,
}

impl StoreError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.into() },
            _ => Self::Io { path: path.into(), source: Arc::new(source) },
        }
    }

    pub(crate) fn database(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.into();
        let extended = source.sqlite_error().map(|error| error.extended_code);
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            // SQLite could not make its index of the write-ahead log larger.
            Some(ErrorCode::SystemIoFailure) if extended == Some(SQLITE_IOERR_SHMSIZE) => Self::DiskFull { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, what: source.to_string() }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            None if is_of_another_form(&source) => Self::Damaged { path, what: "a row has another form".to_owned() },
            _ => Self::Database { path, source: Arc::new(source) },
        }
    }

    pub(crate) fn damaged(path: &Path, what: &str) -> Self {
        Self::Damaged { path: path.into(), what: what.to_owned() }
    }
}

/// Whether a row is missing or holds something else than this crate writes.
fn is_of_another_form(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows};
    matches!(
        error,
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | QueryReturnedNoRows
    )
}
