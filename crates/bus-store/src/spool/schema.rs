//! The spool's tables, and its keys.
//!
//! In the clear are the number, class, age and size of each message, and a label for its lane that tells the lane's messages
//! from others. All else is sealed.

use std::path::Path;

use bus_crypto::sha256;
use bus_crypto::storage::{FILE_ID_LEN, KEY_LEN, MacKey, Place, StorageError, StorageKeys};
use rusqlite::{Connection, Row, named_params};
use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::file::Format;
use crate::key::{SpoolKey, random};

pub(super) const FORMAT: Format = Format {
    name: "spool",
    // "RBsp"
    application: 0x5242_7370,
    version: 1,
    schema: "
        CREATE TABLE header (
            file BLOB NOT NULL, commitment BLOB NOT NULL, secret BLOB NOT NULL, checksum BLOB NOT NULL
        ) STRICT;
        CREATE TABLE totals (
            next_entry INTEGER NOT NULL, next_signed INTEGER NOT NULL, next_report INTEGER NOT NULL,
            durable INTEGER NOT NULL, durable_bytes INTEGER NOT NULL,
            live INTEGER NOT NULL, live_bytes INTEGER NOT NULL,
            dead INTEGER NOT NULL, dead_bytes INTEGER NOT NULL,
            expired INTEGER NOT NULL, too_old INTEGER NOT NULL, displaced INTEGER NOT NULL,
            reports INTEGER NOT NULL, reports_lost INTEGER NOT NULL
        ) STRICT;
        INSERT INTO totals VALUES (1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        CREATE TABLE entries (
            id INTEGER PRIMARY KEY, class INTEGER NOT NULL, lane BLOB NOT NULL, deadline INTEGER NOT NULL,
            signed INTEGER, sealed BLOB NOT NULL
        ) STRICT;
        CREATE INDEX waiting_by_lane ON entries (lane, id) WHERE signed IS NULL;
        CREATE INDEX entries_by_deadline ON entries (deadline);
        CREATE INDEX entries_by_signed ON entries (signed) WHERE signed IS NOT NULL;
        CREATE INDEX live_entries ON entries (id) WHERE class = 1;
        CREATE TABLE signed (id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
        CREATE TABLE dead (
            id INTEGER PRIMARY KEY, class INTEGER NOT NULL, lane BLOB NOT NULL, at INTEGER NOT NULL,
            reason BLOB NOT NULL, sealed BLOB NOT NULL
        ) STRICT;
        CREATE TABLE reports (
            id INTEGER PRIMARY KEY, class INTEGER NOT NULL, why INTEGER NOT NULL, signed INTEGER NOT NULL, at INTEGER NOT NULL,
            sealed BLOB NOT NULL
        ) STRICT;
    ",
};

/// The place of the secret, sealed in the header.
const SECRET: Place<'static> = Place { table: "header", row: 1 };

/// What a spool's file gives besides its tables.
pub(super) struct Opened {
    pub(super) keys: StorageKeys,
    pub(super) ids: MacKey,
}

/// What the header of a new file will hold.
pub(super) struct Header {
    file: [u8; FILE_ID_LEN],
    commitment: Vec<u8>,
    secret: Vec<u8>,
}

impl Header {
    pub(super) fn new(key: &SpoolKey) -> Result<Self, StoreError> {
        let file = *random::<FILE_ID_LEN>()?;
        let keys = StorageKeys::derive(key.bytes(), &file).map_err(|_| StoreError::Provider)?;
        let secret = random::<KEY_LEN>()?;
        let sealed = keys.seal(SECRET, *random()?, secret.as_slice()).map_err(|_| StoreError::Provider)?;
        Ok(Self { file, commitment: keys.commitment().to_vec(), secret: sealed })
    }

    /// Finds damage that would otherwise look like a wrong key. It is no protection against an attacker, and needs none to be.
    fn checksum(&self) -> [u8; 32] {
        sha256(&[self.file.as_slice(), &self.commitment, &self.secret].concat())
    }

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let insert = "INSERT INTO header VALUES (:file, :commitment, :secret, :checksum)";
        let (file, checksum) = (self.file.as_slice(), self.checksum());
        connection.execute(
            insert,
            named_params! {
                ":file": file, ":commitment": self.commitment, ":secret": self.secret, ":checksum": checksum.as_slice(),
            },
        )?;
        Ok(())
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<(Self, Vec<u8>)> {
        Ok((Self { file: row.get(0)?, commitment: row.get(1)?, secret: row.get(2)? }, row.get(3)?))
    }
}

/// The file's keys, if this is the key that it was made with.
pub(super) fn unlock(connection: &Connection, path: &Path, key: &SpoolKey) -> Result<Opened, StoreError> {
    let damaged = || StoreError::damaged(path, "its header does not hold together");
    let read = connection.query_row("SELECT file, commitment, secret, checksum FROM header", [], Header::read);
    let (header, checksum) = read.map_err(|error| match error {
        rusqlite::Error::SqliteFailure(..) => StoreError::database(path, error),
        _ => damaged(),
    })?;
    if header.checksum().as_slice() != checksum {
        return Err(damaged());
    }
    let keys = StorageKeys::derive(key.bytes(), &header.file).map_err(|_| StoreError::Provider)?;
    if !keys.match_commitment(&header.commitment) {
        return Err(StoreError::WrongKey { path: path.into() });
    }
    let mut sealed = Zeroizing::new(header.secret);
    let opened = keys.open(SECRET, &mut sealed).map_err(|_: StorageError| damaged())?;
    let mut secret = Zeroizing::new([0; KEY_LEN]);
    if opened.len() != KEY_LEN {
        return Err(damaged());
    }
    secret.copy_from_slice(opened);
    Ok(Opened { ids: MacKey::new(&secret), keys })
}
