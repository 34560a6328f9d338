//! The one thread that writes. Whatever waits when a transaction has ended is the next one: a group shares one wait for the disk.

use std::path::PathBuf;
use std::sync::Arc;

use bus_crypto::storage::StorageKeys;
use rusqlite::{Connection, TransactionBehavior};

use crate::error::StoreError;
use crate::file::Lock;
use crate::spool::change::{Changes, Nonces};
use crate::spool::queue::{Answer, Queue, Reply};
use crate::spool::read::{Fault, View};
use crate::spool::reserve::Reserve;
use crate::spool::totals::Totals;
use crate::spool::{Limits, SpoolError};

/// How many free pages are given back at once, of 4 KiB each, when nothing is left in the spool.
const PAGES_GIVEN_BACK: i64 = 4_096;

/// Something to do inside a transaction, and whom to tell.
pub(super) trait Task: Send {
    /// Does it. It may be done again, if the transaction fails.
    fn run(&mut self, changes: &mut Changes<'_>) -> Result<(), Fault>;
    /// Tells the outcome, or that the transaction failed.
    fn answer(&mut self, failed: Option<&StoreError>);
    /// The bytes of the message that it adds; 0 if it adds none.
    fn bytes(&self) -> usize;
}

pub(super) struct Job<T, F> {
    run: F,
    bytes: usize,
    outcome: Result<T, SpoolError>,
    answer: Answer<T>,
}

impl<T, F> Job<T, F>
where
    T: Send + 'static,
    F: FnMut(&mut Changes<'_>) -> Result<T, Fault> + Send + 'static,
{
    /// The task, and where its answer will be.
    pub(super) fn boxed(bytes: usize, run: F) -> (Box<dyn Task>, Reply<T>) {
        let (answer, reply) = Reply::new();
        (Box::new(Self { run, bytes, outcome: Err(SpoolError::Closed), answer }), reply)
    }
}

impl<T, F> Task for Job<T, F>
where
    T: Send,
    F: FnMut(&mut Changes<'_>) -> Result<T, Fault> + Send,
{
    fn run(&mut self, changes: &mut Changes<'_>) -> Result<(), Fault> {
        self.outcome = match (self.run)(changes) {
            Ok(value) => Ok(value),
            Err(Fault::Refused(refused)) => Err(refused),
            Err(fault) => return Err(fault),
        };
        Ok(())
    }

    fn answer(&mut self, failed: Option<&StoreError>) {
        let outcome = std::mem::replace(&mut self.outcome, Err(SpoolError::Closed));
        self.answer.send(failed.map_or(outcome, |error| Err(error.clone().into())));
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Owns the file. It ends when the queue was closed and is empty.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) keys: Arc<StorageKeys>,
    pub(super) totals: Totals,
    pub(super) limits: Limits,
    pub(super) nonces: Nonces,
    pub(super) reserve: Reserve,
    pub(super) path: PathBuf,
    /// Given up last, when the connection is closed.
    pub(super) _lock: Lock,
}

impl Writer {
    pub(super) fn run(mut self, queue: &Queue) {
        /// Should this thread ever end otherwise, nobody waits for ever.
        struct Abandon<'q>(&'q Queue);
        impl Drop for Abandon<'_> {
            fn drop(&mut self) {
                self.0.abandon();
            }
        }
        let _abandon = Abandon(queue);
        while let Some(group) = queue.take() {
            self.write(group);
            self.shrink(|| queue.is_idle());
        }
    }

    /// Writes a group. If that fails, what drains the spool is tried without what adds to it, and on a full disk gets the reserve.
    fn write(&mut self, mut group: Vec<Box<dyn Task>>) {
        let Err(error) = self.reserve_for(&group).and_then(|()| self.transact(&mut group)) else {
            return answer(&mut group, None);
        };
        let (mut adding, mut draining): (Vec<_>, Vec<_>) = group.into_iter().partition(|task| task.bytes() > 0);
        answer(&mut adding, Some(&error));
        if draining.is_empty() {
            return;
        }
        let mut failed = self.transact(&mut draining).err();
        if matches!(failed, Some(StoreError::DiskFull { .. })) && self.reserve.give_up() {
            self.checkpoint();
            failed = self.transact(&mut draining).err();
        }
        answer(&mut draining, failed.as_ref());
    }

    /// Nothing is added without the room to remove it again.
    fn reserve_for(&mut self, group: &[Box<dyn Task>]) -> Result<(), StoreError> {
        if group.iter().all(|task| task.bytes() == 0) {
            return Ok(());
        }
        let mut taken = self.reserve.take();
        if taken.is_err() && self.shrink(|| true) {
            taken = self.reserve.take();
        }
        taken.map_err(|error| StoreError::io(&self.path, error))
    }

    /// Moves what is in the write-ahead log to its place, so that the log's room is used again. If that fails, so will what follows.
    fn checkpoint(&self) {
        let _ = self.connection.pragma_query_value(None, "wal_checkpoint", |_| Ok(()));
    }

    fn transact(&mut self, group: &mut [Box<dyn Task>]) -> Result<(), StoreError> {
        let before = self.totals;
        let done = self.attempt(group);
        done.map_err(|fault| {
            self.totals = before;
            match fault {
                Fault::Sqlite(error) => StoreError::database(&self.path, error),
                Fault::Provider | Fault::Refused(_) => StoreError::Provider,
            }
        })
    }

    fn attempt(&mut self, group: &mut [Box<dyn Task>]) -> Result<(), Fault> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before = self.totals;
        let mut changes = Changes {
            view: View { connection: &transaction, keys: &self.keys },
            totals: &mut self.totals,
            limits: &self.limits,
            nonces: &mut self.nonces,
        };
        for task in group {
            task.run(&mut changes)?;
        }
        if self.totals != before {
            self.totals.write(&transaction)?;
        }
        Ok(transaction.commit()?)
    }

    /// When nothing is left, the file becomes smaller, piece by piece, as long as it may go on. Whether it became so.
    fn shrink(&self, may_go_on: impl Fn() -> bool) -> bool {
        let mut shrunk = false;
        while may_go_on() && self.give_back() {
            shrunk = true;
        }
        if shrunk {
            self.checkpoint();
        }
        shrunk
    }

    /// Gives back a piece of what is free in an empty spool's file, if there is as much. That it fails is no fault.
    fn give_back(&self) -> bool {
        let status = &self.totals.status;
        if status.durable.messages + status.live.messages + status.dead.messages > 0 {
            return false;
        }
        let free = self.connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
        free.is_ok_and(|free| free > PAGES_GIVEN_BACK)
            && self.connection.pragma(None, "incremental_vacuum", PAGES_GIVEN_BACK, |_| Ok(())).is_ok()
    }
}

fn answer(tasks: &mut [Box<dyn Task>], failed: Option<&StoreError>) {
    tasks.iter_mut().for_each(|task| task.answer(failed));
}
