//! Files that are their owner's alone, their locks, and SQLite databases in them.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::StoreError;

/// The path with `suffix` at its end.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes a file that only its owner may read and write.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    private(OpenOptions::new().read(true).write(true).create_new(true)).open(path)
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// That the file is a regular one, and its owner's alone.
pub(crate) fn check(path: &Path, file: &File) -> Result<(), StoreError> {
    let metadata = file.metadata().map_err(|error| StoreError::io(path, error))?;
    if !metadata.is_file() {
        return Err(StoreError::io(path, io::Error::other("it is not a regular file")));
    }
    match mode(&metadata) {
        Some(mode) if mode & 0o077 != 0 => Err(StoreError::Exposed { path: path.into(), mode }),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn mode(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    Some(metadata.permissions().mode() & 0o777)
}

#[cfg(not(unix))]
fn mode(_: &fs::Metadata) -> Option<u32> {
    None
}

/// Puts the name of a file that was just made on the disk.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// The right to a file, given up when this is dropped, by the operating system at the latest. It is a lock on a file beside
/// it, since SQLite has locks of its own on the database.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock, or fails at once.
    pub(crate) fn take(path: &Path) -> Result<Self, StoreError> {
        let file = Self::file(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.into() }),
            Err(TryLockError::Error(error)) => Err(StoreError::io(path, error)),
        }
    }

    /// Waits for the lock, which others hold for a moment only.
    pub(crate) fn wait(path: &Path) -> Result<Self, StoreError> {
        let file = Self::file(path)?;
        file.lock().map_err(|error| StoreError::io(path, error))?;
        Ok(Self { file })
    }

    fn file(path: &Path) -> Result<File, StoreError> {
        let lock = beside(path, ".lock");
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        private(options).open(&lock).map_err(|error| StoreError::io(&lock, error))
    }
}

impl Drop for Lock {
    /// Gives it up at once. Closing the file alone would not, while a child process that is just being started has it too.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// What tells the databases of this crate apart, from each other and from those of others.
pub(crate) struct Format {
    /// What the file is called in errors.
    pub(crate) name: &'static str,
    /// SQLite's `application_id`.
    pub(crate) application: i64,
    /// SQLite's `user_version`.
    pub(crate) version: i64,
    /// The tables.
    pub(crate) schema: &'static str,
}

/// Opens a database, made if there is none. `fill` writes the first rows of a new one. Whoever calls holds its [`Lock`].
pub(crate) fn open(
    path: &Path,
    format: &Format,
    busy: Duration,
    fill: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
) -> Result<Connection, StoreError> {
    match create_new(path) {
        Ok(_) => sync_directory_of(path).map_err(|error| StoreError::io(path, error))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
        Err(error) => return Err(StoreError::io(path, error)),
    }
    let failed = |error| StoreError::database(path, error);
    let mut connection = connect(path, busy)?;
    configure(&connection).map_err(failed)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    if check_format(&transaction, path, format)? == State::Empty {
        transaction.execute_batch(format.schema).map_err(failed)?;
        transaction.pragma_update(None, "application_id", format.application).map_err(failed)?;
        transaction.pragma_update(None, "user_version", format.version).map_err(failed)?;
        fill(&transaction).map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(connection)
}

/// Opens a database that is there, and only to read it, whoever has it open besides.
pub(crate) fn open_to_read(path: &Path, format: &Format, busy: Duration) -> Result<Connection, StoreError> {
    let failed = |error| StoreError::database(path, error);
    let connection = connect(path, busy)?;
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    match check_format(&connection, path, format)? {
        State::Ours => Ok(connection),
        State::Empty => Err(StoreError::Foreign { path: path.into(), expected: format.name }),
    }
}

fn connect(path: &Path, busy: Duration) -> Result<Connection, StoreError> {
    let file = File::open(path).map_err(|error| StoreError::io(path, error))?;
    check(path, &file)?;
    // Closed before SQLite opens it: closing it later would undo SQLite's locks.
    drop(file);
    let failed = |error| StoreError::database(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(busy).map_err(failed)?;
    Ok(connection)
}

/// Each commit is on the disk when it returns; memory stays bounded; a file can become smaller again.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // 8 MiB of pages in memory, and a checkpoint whenever the write-ahead log holds 8 MiB: what it holds then, and one more group,
    // is what the spool's reserve has room for.
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.pragma_update(None, "wal_autocheckpoint", 2048)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

#[derive(PartialEq, Eq)]
enum State {
    Empty,
    Ours,
}

fn check_format(connection: &Connection, path: &Path, format: &Format) -> Result<State, StoreError> {
    let pragma = |name| {
        let read = connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        read.map_err(|error| StoreError::database(path, error))
    };
    let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    let tables = tables.map_err(|error| StoreError::database(path, error))?;
    match (pragma("application_id")?, pragma("user_version")?) {
        (0, 0) if tables == 0 => Ok(State::Empty),
        (application, _) if application != format.application => {
            Err(StoreError::Foreign { path: path.into(), expected: format.name })
        }
        (_, version) if version == format.version => Ok(State::Ours),
        (_, found) => Err(StoreError::Version { path: path.into(), found, supported: format.version }),
    }
}
