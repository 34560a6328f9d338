//! Looking at a spool that another process may have open.

use std::fmt;
use std::path::{Path, PathBuf};

use bus_crypto::storage::StorageKeys;
use rusqlite::Connection;

use crate::error::StoreError;
use crate::file;
use crate::key::SpoolKey;
use crate::spool::read::{DeadLetter, Fault, Page, Selection, SignedEnvelope, SignedId, View};
use crate::spool::report::Dropped;
use crate::spool::totals::{Status, Totals};
use crate::spool::{BUSY, EntryId, SpoolError, schema};

/// Reads a spool and changes nothing, also while another process has it open.
pub struct Inspector {
    connection: Connection,
    keys: StorageKeys,
    path: PathBuf,
}

impl Inspector {
    /// Opens the spool in a file that is there.
    ///
    /// # Errors
    ///
    /// When the key is another one, or the file is missing, damaged, accessible by others, of another version, or not a spool.
    pub fn open(path: impl AsRef<Path>, key: &SpoolKey) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let connection = file::open_to_read(&path, &schema::FORMAT, BUSY)?;
        let schema::Opened { keys, ids: _ } = schema::unlock(&connection, &path, key)?;
        Ok(Self { connection, keys, path })
    }

    /// How full the spool is, and what became of messages that were dropped.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn status(&self) -> Result<Status, SpoolError> {
        self.read(|view| Ok(Totals::read(view.connection)?.status))
    }

    /// As [`Spool::peek`](crate::Spool::peek).
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn peek(&self, selection: &Selection) -> Result<Page, SpoolError> {
        self.read(|view| view.peek(selection))
    }

    /// As [`Spool::signed_pending`](crate::Spool::signed_pending).
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn signed_pending(&self, after: Option<SignedId>, max: usize) -> Result<Vec<SignedEnvelope>, SpoolError> {
        self.read(|view| view.signed_pending(after, max))
    }

    /// As [`Spool::dead_letters`](crate::Spool::dead_letters).
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn dead_letters(&self, after: Option<EntryId>, max: usize) -> Result<Vec<DeadLetter>, SpoolError> {
        self.read(|view| view.dead_letters(after, max))
    }

    /// As [`Spool::dropped`](crate::Spool::dropped).
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn dropped(&self, max: usize) -> Result<Vec<Dropped>, SpoolError> {
        self.read(|view| view.dropped(max))
    }

    /// Reads the whole file, which takes a while, and says what is wrong with it; nothing is, if it says nothing.
    ///
    /// # Errors
    ///
    /// When the file cannot be read at all.
    pub fn check(&self) -> Result<Vec<String>, SpoolError> {
        self.read(|view| {
            let mut check = view.connection.prepare("PRAGMA integrity_check")?;
            let mut found: Vec<String> = check.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            found.retain(|line| line != "ok");
            found.extend(view.unreadable()?);
            Ok(found)
        })
    }

    fn read<T>(&self, read: impl FnOnce(View<'_>) -> Result<T, Fault>) -> Result<T, SpoolError> {
        let view = View { connection: &self.connection, keys: &self.keys };
        read(view).map_err(|fault| match fault {
            Fault::Refused(refused) => refused,
            Fault::Sqlite(error) => StoreError::database(&self.path, error).into(),
            Fault::Provider => StoreError::Provider.into(),
        })
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection: _, keys: _, path } = self;
        f.debug_struct("Inspector").field("path", path).finish_non_exhaustive()
    }
}
