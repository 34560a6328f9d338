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
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bus_proto::Principal;

use super::PkiError;
use super::write::{self, Prepared, Readable};

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
    /// The length of its whole lines, in bytes.
    len: u64,
    entries: Vec<Entry>,
    list_number: u64,
}

impl Record {
    /// Makes an empty record.
    pub(super) fn create(path: &Path) -> Result<(), PkiError> {
        Prepared::new(path, b"", Readable::ByOwner)?.create()
    }

    /// Opens the record to read it, for which it need not be writable.
    pub(super) fn read(path: &Path) -> Result<Self, PkiError> {
        let file = File::open(path).map_err(not_opened(path))?;
        file.lock_shared().map_err(write::failed(path, "locked"))?;
        Self::load(path, file).map(|(record, _)| record)
    }

    /// Opens the record to extend it.
    ///
    /// A last line without its end was left by a program that was interrupted. What it says is kept if it can be
    /// understood, for it may be a revocation; else it is cut off.
    pub(super) fn open(path: &Path) -> Result<Self, PkiError> {
        let file = OpenOptions::new().read(true).append(true).open(path).map_err(not_opened(path))?;
        file.lock().map_err(write::failed(path, "locked"))?;
        let (mut record, tail) = Self::load(path, file)?;
        match tail {
            Tail::None => {}
            Tail::Understood => record.write(b"\n")?,
            Tail::Torn => record.file.set_len(record.len).map_err(write::failed(path, "written"))?,
        }
        Ok(record)
    }

    fn load(path: &Path, mut file: File) -> Result<(Self, Tail), PkiError> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(write::failed(path, "read"))?;
        let mut record = Self { path: path.into(), file, len: 0, entries: Vec::new(), list_number: 0 };
        let mut tail = Tail::None;
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let whole = line.strip_suffix(b"\n");
            let understood = str::from_utf8(whole.unwrap_or(line)).ok().and_then(|line| record.replay(line)).is_some();
            tail = match (whole, understood) {
                (Some(_), true) => Tail::None,
                (Some(_), false) => return Err(PkiError::DamagedRecord { path: path.into(), line: index + 1 }),
                (None, true) => Tail::Understood,
                (None, false) => Tail::Torn,
            };
            if tail != Tail::Torn {
                record.len += line.len() as u64;
            }
        }
        Ok((record, tail))
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn revokes(&self, serial: &str) -> bool {
        self.entries.iter().any(|entry| entry.serial == serial && entry.revoked_at.is_some())
    }

    /// When the last of a principal's revoked certificates expires; `None` when none is left that has not.
    pub(super) fn revoked_until(&self, principal: &Principal, now: i64) -> Option<i64> {
        let revoked = self.entries.iter().filter(|entry| entry.principal == *principal && entry.revoked_at.is_some());
        revoked.map(|entry| entry.not_after).filter(|not_after| *not_after >= now).max()
    }

    pub(super) fn issued(&mut self, entry: &Entry) -> Result<(), PkiError> {
        let Entry { serial, principal, not_before, not_after, revoked_at: _ } = entry;
        self.append(&format!("issued\t{serial}\t{principal}\t{not_before}\t{not_after}"))
    }

    pub(super) fn revoked(&mut self, serial: &str, when: i64) -> Result<(), PkiError> {
        self.append(&format!("revoked\t{serial}\t{when}"))
    }

    /// The number of the next revocation list, above `last`, which is noted before the list is made: numbers are never
    /// used twice.
    pub(super) fn next_list(&mut self, last: u64, when: i64) -> Result<u64, PkiError> {
        let number = self.list_number.max(last).saturating_add(1);
        self.append(&format!("list\t{number}\t{when}"))?;
        Ok(number)
    }

    fn append(&mut self, line: &str) -> Result<(), PkiError> {
        self.write(format!("{line}\n").as_bytes())?;
        let replayed = self.replay(line);
        debug_assert!(replayed.is_some(), "what is written can be read");
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PkiError> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        if let Err(reason) = written {
            // Whoever opens the record next would do the same.
            let _ = self.file.set_len(self.len);
            return Err(write::failed(&self.path, "written")(reason));
        }
        self.len += bytes.len() as u64;
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

/// What stands after the last line of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    None,
    /// A line that lacks only its end.
    Understood,
    /// A part of a line.
    Torn,
}

fn not_opened(path: &Path) -> impl Fn(io::Error) -> PkiError {
    let path: PathBuf = path.into();
    move |reason| match reason.kind() {
        io::ErrorKind::NotFound => PkiError::MissingRecord { path: path.clone() },
        _ => write::failed(&path, "opened")(reason),
    }
}
