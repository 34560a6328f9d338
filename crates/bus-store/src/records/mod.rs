//! The records of what was handled.

mod delivery;
mod error;
mod table;

use std::fmt;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

pub use self::delivery::{Delivery, Interrupted, Known, MAX_MEMBERS, Outcome};
pub use self::error::{HandleError, RecordsError};

use self::table::Record;
use crate::error::StoreError;
use crate::file::{self, Lock};

/// How many records one sweep removes at most, when it is not said.
const SWEEP_AT_ONCE: usize = 1_000;

/// The bounds of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordLimits {
    /// How many messages of one sender may be on record; 100,000 by default. A batch is one.
    pub per_sender: u64,
    /// How long to wait for another process that is writing, or whose handler is; 5 s by default.
    pub busy: Duration,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self { per_sender: 100_000, busy: Duration::from_secs(5) }
    }
}

impl RecordLimits {
    /// With another bound on the records of one sender.
    #[must_use]
    pub fn per_sender(mut self, per_sender: u64) -> Self {
        self.per_sender = per_sender;
        self
    }

    /// With another time to wait for other processes.
    #[must_use]
    pub fn busy(mut self, busy: Duration) -> Self {
        self.busy = busy;
        self
    }
}

/// Which messages were handled, so that one that is delivered again is not handled again.
///
/// The file is an SQLite database that several processes may share, and that handlers may keep tables of their own in; names that
/// begin with `bus_` belong to this crate. It is not encrypted: it holds senders' names and messages' ids.
///
/// A handler chooses its promise:
///
/// | | what it is promised | what is recorded |
/// |---|---|---|
/// | [`transactional`](Self::transactional) | exactly once | in the transaction that it writes in |
/// | [`record_first`](Self::record_first) | at most once, and an interruption is reported | before it is called |
/// | [`record_last`](Self::record_last) | at least once | when it has returned |
///
/// What is asynchronous calls [`begin`](Self::begin) and [`finish`](Self::finish) around its handler, or [`known`](Self::known) and
/// `finish`. The calls here wait for the disk, so that such code makes them where it may wait.
pub struct Records {
    connection: Mutex<Connection>,
    limits: RecordLimits,
    path: PathBuf,
}

impl Records {
    /// Opens the records in a file, which is made, for its owner alone, if there is none.
    ///
    /// # Errors
    ///
    /// When the file is damaged, accessible by others, of another version, or something else.
    pub fn open(path: impl AsRef<Path>, limits: RecordLimits) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        // Others may open it at the same time; one of them makes it.
        let _lock = Lock::wait(&path)?;
        let connection = file::open(&path, &table::FORMAT, limits.busy, |_| Ok(()))?;
        Ok(Self { connection: Mutex::new(connection), limits, path })
    }

    /// What is on record about each of these messages.
    ///
    /// # Errors
    ///
    /// When one of them has expired, or is over its sender's quota; when the file fails.
    pub fn known(&self, deliveries: &[Delivery<'_>]) -> Result<Vec<Known>, RecordsError> {
        self.each(deliveries, |_, _, known, _| Ok(known))
    }

    /// Records which of these messages are about to be handled: those that are [`Known::Fresh`]. What was known of each until now is
    /// returned; only what was fresh may be handled, and is then [finished](Self::finish). All share one wait for the disk.
    ///
    /// # Errors
    ///
    /// When one of them has expired, or is over its sender's quota; when the file fails. None is recorded then.
    pub fn begin(&self, deliveries: &[Delivery<'_>]) -> Result<Vec<Known>, RecordsError> {
        self.each(deliveries, |transaction, record, known, delivery| {
            if known == Known::Fresh {
                record.begin(transaction, delivery)?;
            }
            Ok(known)
        })
    }

    /// Records that these messages were handled. Doing so again changes nothing. All share one wait for the disk.
    ///
    /// # Errors
    ///
    /// When one of them has expired, or is over its sender's quota; when the file fails. None is recorded then.
    pub fn finish(&self, deliveries: &[Delivery<'_>]) -> Result<(), RecordsError> {
        let finished = self.each(deliveries, |transaction, record, known, delivery| match known {
            Known::Handled => Ok(()),
            Known::Fresh | Known::Begun => record.handle(transaction, delivery),
        });
        finished.map(drop)
    }

    /// Exactly once: the handler writes in the transaction in which it is recorded that the message was handled. Either both are on the
    /// disk or neither is. While the handler works, no other one writes to the file, and these records wait: the handler may not
    /// call them.
    ///
    /// # Errors
    ///
    /// When the handler fails, or the records do: nothing was written then, and the message is to be delivered again.
    pub fn transactional<T, E>(
        &self,
        delivery: &Delivery<'_>,
        handler: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<Outcome<T>, HandleError<E>> {
        delivery.check()?;
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| RecordsError::from(StoreError::database(&self.path, error));
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let (mut record, known) = self.find(&transaction, delivery)?;
        match known {
            Known::Handled => return Ok(Outcome::Handled),
            Known::Begun => return Ok(Outcome::Begun),
            Known::Fresh => (),
        }
        let value = handler(&transaction).map_err(HandleError::Handler)?;
        record.handle(&transaction, delivery).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Outcome::Done(value))
    }

    /// At most once: it is recorded that the message is about to be handled, then the handler is called, then it is recorded that it was
    /// handled. When it is interrupted between the two, or fails, it is not called for this message again, and the message is among
    /// [`interrupted`](Self::interrupted).
    ///
    /// # Errors
    ///
    /// When the handler fails, or the records do. If the records failed before the handler was called, the message may be delivered
    /// again; it is then known whether it was.
    pub fn record_first<T, E>(
        &self,
        delivery: &Delivery<'_>,
        handler: impl FnOnce() -> Result<T, E>,
    ) -> Result<Outcome<T>, HandleError<E>> {
        match self.begin(slice::from_ref(delivery))?.as_slice() {
            [Known::Handled] => return Ok(Outcome::Handled),
            [Known::Begun] => return Ok(Outcome::Begun),
            _ => (),
        }
        let value = handler().map_err(HandleError::Handler)?;
        self.finish(slice::from_ref(delivery))?;
        Ok(Outcome::Done(value))
    }

    /// At least once: the handler is called, then it is recorded that the message was handled. When it is interrupted between the two,
    /// or fails, it is called again when the message is delivered again.
    ///
    /// # Errors
    ///
    /// When the handler fails, or the records do: the message is to be delivered again.
    pub fn record_last<T, E>(
        &self,
        delivery: &Delivery<'_>,
        handler: impl FnOnce() -> Result<T, E>,
    ) -> Result<Outcome<T>, HandleError<E>> {
        match self.known(slice::from_ref(delivery))?.as_slice() {
            [Known::Handled] => return Ok(Outcome::Handled),
            [Known::Begun] => return Ok(Outcome::Begun),
            _ => (),
        }
        let value = handler().map_err(HandleError::Handler)?;
        self.finish(slice::from_ref(delivery))?;
        Ok(Outcome::Done(value))
    }

    /// Messages that were begun, record first, before `begun_before`, in Unix milliseconds, and not finished; the oldest first, at most
    /// `max`. A handler may still be at work on what was begun a moment ago, here or in another process: ask for what is older than any
    /// handler works.
    ///
    /// # Errors
    ///
    /// When the file fails.
    pub fn interrupted(&self, begun_before: i64, max: usize) -> Result<Vec<Interrupted>, RecordsError> {
        self.write(|transaction| table::interrupted(transaction, begun_before, max))
    }

    /// Ends an interruption that was reported: the message counts as handled.
    ///
    /// # Errors
    ///
    /// [`RecordsError::NotBegun`] when it was settled or finished meanwhile; when the file fails.
    pub fn settle(&self, interrupted: &Interrupted) -> Result<(), RecordsError> {
        match self.write(|transaction| table::settle(transaction, interrupted))? {
            true => Ok(()),
            false => Err(RecordsError::NotBegun),
        }
    }

    /// Removes records of messages that have expired at `now`, in Unix milliseconds. Answers how many, at most `max`; if so many,
    /// there may be more. Interruptions stay until they are settled.
    ///
    /// # Errors
    ///
    /// When the file fails.
    pub fn sweep(&self, now: i64, max: usize) -> Result<usize, RecordsError> {
        self.write(|transaction| table::sweep(transaction, now, max))
    }

    /// How many messages are on record, of all senders.
    ///
    /// # Errors
    ///
    /// When the file fails.
    pub fn count(&self) -> Result<u64, RecordsError> {
        let sql = "SELECT coalesce(sum(records), 0) FROM bus_senders";
        self.write(|transaction| transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs))
    }

    /// Finds a message's record. If it would be a new one, its sender's quota allows it.
    fn find(&self, transaction: &Transaction<'_>, delivery: &Delivery<'_>) -> Result<(Record, Known), RecordsError> {
        let failed = |error| StoreError::database(&self.path, error);
        let found = Record::find(transaction, delivery).map_err(failed)?;
        if !found.0.is_new() || found.0.records < self.limits.per_sender {
            return Ok(found);
        }
        table::sweep(transaction, delivery.now, SWEEP_AT_ONCE).map_err(failed)?;
        let found = Record::find(transaction, delivery).map_err(failed)?;
        if found.0.records >= self.limits.per_sender {
            let (sender, limit) = (delivery.sender.to_owned(), self.limits.per_sender);
            return Err(RecordsError::OverQuota { sender, limit });
        }
        Ok(found)
    }

    fn each<T>(
        &self,
        deliveries: &[Delivery<'_>],
        work: impl Fn(&Transaction<'_>, &mut Record, Known, &Delivery<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, RecordsError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| RecordsError::from(StoreError::database(&self.path, error));
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut values = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            delivery.check()?;
            let (mut record, known) = self.find(&transaction, delivery)?;
            values.push(work(&transaction, &mut record, known, delivery).map_err(failed)?);
        }
        transaction.commit().map_err(failed)?;
        Ok(values)
    }

    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, RecordsError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| RecordsError::from(StoreError::database(&self.path, error));
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let value = work(&transaction).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(value)
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection: _, limits, path } = self;
        f.debug_struct("Records").field("limits", limits).field("path", path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
