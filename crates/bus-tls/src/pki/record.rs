//! The record of what was issued and revoked: one line for each event, fields separated by tabs, only appended to.
//!
//! ```text
//! issued   <serial>  <SPIFFE ID>  <not before>  <not after>
//! revoked  <serial>  <when>
//! list     <number>  <when>
//! ```
//!
//! Times are seconds since 1970-01-01 UTC. The file is locked while it is read or extended, so that two programs can use
//! one authority.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bus_proto::Principal;

use super::PkiError;
use super::write;

/// A certificate in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The serial number, in lower-case hexadecimal.
    pub serial: String,
    /// Whom it was issued to.
    pub principal: Principal,
    /// The first second of its validity, in seconds since 1970-01-01 UTC.
    pub not_before: i64,
    /// The last second of its validity, in seconds since 1970-01-01 UTC.
    pub not_after: i64,
    /// When it was revoked, in seconds since 1970-01-01 UTC; `None` when it was not.
    pub revoked_at: Option<i64>,
}

/// The record file, open and locked until it is dropped.
pub(super) struct Record {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
    list_number: u64,
}

impl Record {
    pub(super) fn open(path: &Path) -> Result<Self, PkiError> {
        let failed = write::failed(path, "opened");
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(&failed)?;
        file.lock().map_err(write::failed(path, "locked"))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let mut record = Self { path: path.into(), file, entries: Vec::new(), list_number: 0 };
        for (index, line) in text.lines().enumerate() {
            if record.replay(line).is_none() {
                return Err(PkiError::DamagedRecord { path: path.into(), line: index + 1 });
            }
        }
        Ok(record)
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn issued(&mut self, entry: &Entry) -> Result<(), PkiError> {
        let Entry { serial, principal, not_before, not_after, revoked_at: _ } = entry;
        self.append(&format!("issued\t{serial}\t{principal}\t{not_before}\t{not_after}"))
    }

    pub(super) fn revoked(&mut self, serial: &str, when: i64) -> Result<(), PkiError> {
        self.append(&format!("revoked\t{serial}\t{when}"))
    }

    /// The number of the next revocation list, which is noted before the list is made: numbers are never used twice.
    pub(super) fn next_list(&mut self, when: i64) -> Result<u64, PkiError> {
        let number = self.list_number + 1;
        self.append(&format!("list\t{number}\t{when}"))?;
        Ok(number)
    }

    fn append(&mut self, line: &str) -> Result<(), PkiError> {
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| self.file.sync_all())
            .map_err(write::failed(&self.path, "written"))?;
        let replayed = self.replay(line);
        debug_assert!(replayed.is_some(), "what is written can be read");
        Ok(())
    }

    /// Takes in one line; `None` when it is damaged.
    fn replay(&mut self, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["issued", serial, principal, not_before, not_after] => self.entries.push(Entry {
                serial: (*serial).to_owned(),
                principal: principal.parse().ok()?,
                not_before: not_before.parse().ok()?,
                not_after: not_after.parse().ok()?,
                revoked_at: None,
            }),
            ["revoked", serial, when] => {
                let when = when.parse().ok()?;
                let entry = self.entries.iter_mut().find(|entry| entry.serial == *serial)?;
                entry.revoked_at.get_or_insert(when);
            }
            ["list", number, _when] => self.list_number = number.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}
