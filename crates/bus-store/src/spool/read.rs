//! What can be read from a spool.

use bus_crypto::storage::{Place, StorageError, StorageKeys};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use crate::spool::SpoolError;
use crate::spool::message::{Class, Entry, EntryId, Message, text};
use crate::spool::report::{self, Dropped, ReportId, Why};

/// The place of a message, also when it is a dead letter: it is moved as it is.
pub(super) fn entry_place(id: i64) -> Place<'static> {
    Place { table: "entries", row: id }
}

pub(super) fn signed_place(id: i64) -> Place<'static> {
    Place { table: "signed", row: id }
}

pub(super) fn reason_place(id: i64) -> Place<'static> {
    Place { table: "dead", row: id }
}

pub(super) fn report_place(id: i64) -> Place<'static> {
    Place { table: "reports", row: id }
}

/// Why a task was not done: it was refused, or the file failed and with it everything that was done along with it.
pub(super) enum Fault {
    Refused(SpoolError),
    Sqlite(rusqlite::Error),
    Provider,
}

impl From<SpoolError> for Fault {
    fn from(error: SpoolError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Damaged => Self::Refused(SpoolError::Unreadable),
            _ => Self::Provider,
        }
    }
}

/// Which messages to [`peek`](crate::Spool::peek) at.
#[derive(Debug, Clone)]
pub struct Selection {
    now: i64,
    lane: Option<String>,
    class: Option<Class>,
    after: Option<EntryId>,
    max_messages: usize,
    max_bytes: usize,
}

impl Selection {
    /// Of all lanes and classes, the first 256 messages with at most 1 MiB of content. What has expired at `now`, in Unix
    /// milliseconds, is left out.
    #[must_use]
    pub fn new(now: i64) -> Self {
        Self { now, lane: None, class: None, after: None, max_messages: 256, max_bytes: 1 << 20 }
    }

    /// Of this lane alone.
    #[must_use]
    pub fn lane(mut self, lane: impl Into<String>) -> Self {
        self.lane = Some(lane.into());
        self
    }

    /// Of this class alone.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = Some(class);
        self
    }

    /// Accepted after this one alone.
    #[must_use]
    pub fn after(mut self, id: EntryId) -> Self {
        self.after = Some(id);
        self
    }

    /// At most so many messages.
    #[must_use]
    pub fn max_messages(mut self, max: usize) -> Self {
        self.max_messages = max;
        self
    }

    /// At most so many bytes of content; but one message in any case.
    #[must_use]
    pub fn max_bytes(mut self, max: usize) -> Self {
        self.max_bytes = max;
        self
    }
}

/// Some messages, in the order in which they were accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The messages.
    pub entries: Vec<Entry>,
    /// Between them, rows that are damaged. They can be moved to the dead letters, or removed with [`Spool::done`](crate::Spool::done).
    pub unreadable: Vec<EntryId>,
}

/// A signed envelope, for as long as the file exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignedId(pub(super) i64);

/// A signed envelope that was not acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedEnvelope {
    /// Its id.
    pub id: SignedId,
    /// The messages in it, in the order of acceptance.
    pub entries: Vec<EntryId>,
    /// Their lane and the bytes to send; `None` when the row is damaged: store the envelope again.
    pub content: Option<SignedContent>,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedContent {
    /// The lane of its messages.
    pub lane: String,
    /// The envelope, as it was stored.
    pub bytes: Vec<u8>,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The message's id in the spool.
    pub id: EntryId,
    /// When it was given up, in Unix milliseconds.
    pub at: i64,
    /// Why.
    pub reason: String,
    /// The message; `None` when its row is damaged.
    pub message: Option<Message>,
}

/// What reads: a connection, and the keys to what is in it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) connection: &'a Connection,
    pub(super) keys: &'a StorageKeys,
}

impl View<'_> {
    pub(super) fn open_message(&self, id: i64, mut sealed: Vec<u8>) -> Option<Message> {
        self.keys.open(entry_place(id), &mut sealed).ok().and_then(Message::decode)
    }

    pub(super) fn peek(&self, selection: &Selection) -> Result<Page, Fault> {
        let Selection { now, lane, class, after, max_messages, max_bytes } = selection;
        // The signs keep SQLite from using other indexes than the one that gives the order.
        let (lane, sql) = match lane {
            Some(lane) => (
                Some(self.keys.label(lane)),
                "SELECT id, sealed FROM entries WHERE lane = :lane AND id > :after AND signed IS NULL AND +deadline > :now
                 AND (:class IS NULL OR +class = :class) ORDER BY id LIMIT :max",
            ),
            None => (
                None,
                "SELECT id, sealed FROM entries WHERE :lane IS NULL AND id > :after AND signed IS NULL AND +deadline > :now
                 AND (:class IS NULL OR +class = :class) ORDER BY id LIMIT :max",
            ),
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(named_params! {
            ":lane": lane.as_ref().map(<[u8; 16]>::as_slice), ":after": after.map_or(i64::MIN, |id| id.0), ":now": now,
            ":class": class.map(Class::code), ":max": limit(*max_messages),
        })?;
        let (mut page, mut bytes) = (Page::default(), 0);
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let Some(message) = self.open_message(id, row.get(1)?) else {
                page.unreadable.push(EntryId(id));
                continue;
            };
            bytes += message.content.len();
            if bytes > *max_bytes && !page.entries.is_empty() {
                break;
            }
            page.entries.push(Entry { id: EntryId(id), message });
        }
        Ok(page)
    }

    pub(super) fn lanes(&self, now: i64, after: Option<&str>, max: usize) -> Result<Vec<Entry>, Fault> {
        let mut next =
            self.connection.prepare_cached("SELECT min(lane) FROM entries WHERE signed IS NULL AND lane > ?1")?;
        let mut first = self.connection.prepare_cached(
            "SELECT id, sealed FROM entries WHERE lane = ?1 AND signed IS NULL AND +deadline > ?2 ORDER BY id LIMIT 1",
        )?;
        let mut lane = after.map(|lane| self.keys.label(lane).to_vec()).unwrap_or_default();
        let mut entries = Vec::new();
        while entries.len() < max {
            let Some(found) = next.query_row([&lane], |row| row.get::<_, Option<Vec<u8>>>(0))? else { break };
            lane = found;
            let head = first.query_row(params![lane, now], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let message = head.and_then(|(id, sealed)| Some((EntryId(id), self.open_message(id, sealed)?)));
            entries.extend(message.map(|(id, message)| Entry { id, message }));
        }
        Ok(entries)
    }

    pub(super) fn entry(&self, id: EntryId) -> Result<Option<Entry>, Fault> {
        let mut select = self.connection.prepare_cached("SELECT sealed FROM entries WHERE id = ?1")?;
        let Some(sealed) = select.query_row([id.0], |row| row.get(0)).optional()? else { return Ok(None) };
        let message = self.open_message(id.0, sealed).ok_or(SpoolError::Unreadable)?;
        Ok(Some(Entry { id, message }))
    }

    pub(super) fn signed_pending(&self, after: Option<SignedId>, max: usize) -> Result<Vec<SignedEnvelope>, Fault> {
        let mut select =
            self.connection.prepare_cached("SELECT id, sealed FROM signed WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let mut members = self.connection.prepare_cached("SELECT id FROM entries WHERE signed = ?1 ORDER BY id")?;
        let mut rows = select.query([after.map_or(i64::MIN, |id| id.0), limit(max)])?;
        let mut envelopes = Vec::new();
        while let Some(row) = rows.next()? {
            let (id, mut sealed): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let opened = self.keys.open(signed_place(id), &mut sealed).ok();
            let content = opened.and_then(|mut bytes| {
                let lane = text(&mut bytes)?;
                Some(SignedContent { lane, bytes: bytes.to_vec() })
            });
            let entries = members.query_map([id], |row| row.get(0).map(EntryId))?.collect::<Result<_, _>>()?;
            envelopes.push(SignedEnvelope { id: SignedId(id), entries, content });
        }
        Ok(envelopes)
    }

    pub(super) fn dead_letters(&self, after: Option<EntryId>, max: usize) -> Result<Vec<DeadLetter>, Fault> {
        let sql = "SELECT id, at, reason, sealed FROM dead WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut select = self.connection.prepare_cached(sql)?;
        let mut rows = select.query([after.map_or(i64::MIN, |id| id.0), limit(max)])?;
        let mut letters = Vec::new();
        while let Some(row) = rows.next()? {
            let (id, mut reason): (i64, Vec<u8>) = (row.get(0)?, row.get(2)?);
            let reason = match self.keys.open(reason_place(id), &mut reason) {
                Ok(reason) => String::from_utf8_lossy(reason).into_owned(),
                Err(_) => "the stored reason is damaged".to_owned(),
            };
            let message = self.open_message(id, row.get(3)?);
            letters.push(DeadLetter { id: EntryId(id), at: row.get(1)?, reason, message });
        }
        Ok(letters)
    }

    pub(super) fn dropped(&self, max: usize) -> Result<Vec<Dropped>, Fault> {
        let sql = "SELECT id, class, why, signed, at, sealed FROM reports ORDER BY id LIMIT ?1";
        let mut select = self.connection.prepare_cached(sql)?;
        let reports = select.query_map([limit(max)], |row| self.report(row))?;
        Ok(reports.collect::<Result<_, _>>()?)
    }

    /// The rows that do not open, as lines for people.
    pub(super) fn unreadable(&self) -> Result<Vec<String>, Fault> {
        let mut found = Vec::new();
        for (table, place) in [
            ("entries", entry_place as fn(i64) -> Place<'static>),
            ("dead", entry_place),
            ("signed", signed_place),
            ("reports", report_place),
        ] {
            let mut select = self.connection.prepare(&format!("SELECT id, sealed FROM {table} ORDER BY id"))?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let (id, mut sealed): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
                if self.keys.open(place(id), &mut sealed).is_err() {
                    found.push(format!("row {id} of {table} is damaged"));
                }
            }
        }
        Ok(found)
    }

    fn report(&self, row: &Row<'_>) -> rusqlite::Result<Dropped> {
        let (id, mut sealed): (i64, Vec<u8>) = (row.get(0)?, row.get(5)?);
        let opened = self.keys.open(report_place(id), &mut sealed).ok().and_then(report::decode);
        let (entry, message) = opened.unwrap_or((EntryId(0), None));
        Ok(Dropped {
            id: ReportId(id),
            entry,
            class: Class::from_code(row.get(1)?),
            why: Why::from_code(row.get(2)?),
            was_signed: row.get(3)?,
            at: row.get(4)?,
            message,
        })
    }
}

fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}
