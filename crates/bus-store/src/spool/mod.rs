//! The spool: what was accepted while the bus could not be reached.

mod change;
mod error;
mod inspect;
mod message;
mod queue;
mod read;
mod report;
mod reserve;
mod schema;
mod totals;
mod writer;

use std::fmt;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bus_crypto::storage::{MacKey, StorageKeys};

pub use self::error::{Bound, SpoolError};
pub use self::inspect::Inspector;
pub use self::message::{Class, Entry, EntryId, MESSAGE_ID_LEN, Message};
pub use self::queue::Reply;
pub use self::read::{DeadLetter, Page, Selection, SignedContent, SignedEnvelope, SignedId};
pub use self::report::{Dropped, DroppedMessage, ReportId, Why};
pub use self::totals::{Amount, Status};

use self::change::{Changes, Incoming, Nonces};
use self::queue::Queue;
use self::read::Fault;
use self::reserve::Reserve;
use self::totals::Totals;
use self::writer::{Job, Task, Writer};
use crate::error::StoreError;
use crate::file::{self, Lock};
use crate::key::SpoolKey;

/// How long an [`Inspector`] may hold up the writer before the writer gives up on it.
const BUSY: Duration = Duration::from_secs(5);

/// The bounds of a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// What messages and dead letters may take in the file, in bytes, about. While a message is being sent, its signed envelope
    /// comes on top. 1 GiB by default.
    pub bytes: u64,
    /// How many messages and dead letters there may be. Ten million by default.
    pub messages: u64,
    /// How long a message may wait, in milliseconds, whenever it expires; `None`, the default, is as long as it takes.
    pub age_ms: Option<i64>,
    /// How many reports of dropped messages are kept until they are read; of more, the oldest are given up and counted. 65,536 by default.
    pub reports: u64,
    /// How much room on the disk is kept for draining, in bytes, in a file beside the spool: removing messages needs some, and a full
    /// disk has none. While it cannot be had, nothing is accepted. 16 MiB by default, which suffices for messages of up to 4 MiB; 0 keeps
    /// none.
    pub reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 30, messages: 10_000_000, age_ms: None, reports: 65_536, reserve: 16 << 20 }
    }
}

impl Limits {
    /// With another bound on the bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// With another bound on the number of messages.
    #[must_use]
    pub fn messages(mut self, messages: u64) -> Self {
        self.messages = messages;
        self
    }

    /// With a bound on the age, in milliseconds.
    #[must_use]
    pub fn age_ms(mut self, age_ms: i64) -> Self {
        self.age_ms = Some(age_ms);
        self
    }

    /// With another bound on the number of reports.
    #[must_use]
    pub fn reports(mut self, reports: u64) -> Self {
        self.reports = reports;
        self
    }

    /// With another reserve on the disk, in bytes.
    #[must_use]
    pub fn reserve(mut self, reserve: u64) -> Self {
        self.reserve = reserve;
        self
    }

    /// From when on a message is dropped.
    fn deadline(&self, expires_at: i64, accepted_at: i64) -> i64 {
        let expiry = if expires_at == 0 { i64::MAX } else { expires_at };
        self.age_ms.map_or(expiry, |age| expiry.min(accepted_at.saturating_add(age)))
    }
}

/// There are more messages on their way to the disk than may wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disk is slower than the messages come; try again when those before it are accepted")]
pub struct Busy;

/// An encrypted, bounded, crash-safe queue of messages in one file.
///
/// Everything is done by a thread of its own, in the order in which it was asked for, in groups that share one wait for the disk.
/// Every answer is a [`Reply`], a future that needs no particular runtime and that a thread can [`wait`](Reply::wait) for. It comes
/// when what it tells of is on the disk.
///
/// A spool belongs to one process at a time. Dropping it finishes what was asked for and waits for that.
pub struct Spool {
    queue: Arc<Queue>,
    keys: Arc<StorageKeys>,
    ids: MacKey,
    path: PathBuf,
    writer: Option<JoinHandle<()>>,
}

impl Spool {
    /// How many messages one [`expire`](Self::expire) drops at most.
    pub const EXPIRE_AT_ONCE: usize = change::EXPIRE_AT_ONCE;

    /// Opens the spool in a file, which is made, for its owner alone, if there is none. SQLite keeps files of the same name with
    /// `-wal` and `-shm` at the end beside it, and this crate one with `.lock` and one with `-reserve` ([`Limits::reserve`]).
    ///
    /// # Errors
    ///
    /// When another process has it open, the key is another one, or the file is damaged, accessible by others, of another version,
    /// or not a spool.
    pub fn open(path: impl AsRef<Path>, key: &SpoolKey, limits: Limits) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let lock = Lock::take(&path)?;
        let header = schema::Header::new(key)?;
        let mut reserve = Reserve::of(&path, limits.reserve);
        let open = || file::open(&path, &schema::FORMAT, BUSY, |new| header.write(new));
        let connection = match open() {
            Err(StoreError::DiskFull { .. }) if reserve.give_up() => open()?,
            opened => opened?,
        };
        // Without it, what is accepted is refused, and so finds out why.
        let _ = reserve.take();
        let schema::Opened { keys, ids } = schema::unlock(&connection, &path, key)?;
        let totals = Totals::read(&connection).map_err(|error| StoreError::database(&path, error))?;
        let (keys, queue) = (Arc::new(keys), Arc::new(Queue::default()));
        let writer = Writer {
            connection,
            keys: Arc::clone(&keys),
            totals,
            reserve,
            limits,
            nonces: Nonces::new(),
            path: path.clone(),
            _lock: lock,
        };
        let tasks = Arc::clone(&queue);
        let thread = thread::Builder::new().name("bus-spool".to_owned()).spawn(move || writer.run(&tasks));
        let thread = thread.map_err(|error| StoreError::io(&path, error))?;
        Ok(Self { queue, keys, ids, path, writer: Some(thread) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts a message: it is on the disk when this returns. Waits while too many messages are on their way to it.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Full`] when it does not fit; when it has expired; when the disk is full.
    pub async fn accept(&self, message: &Message) -> Result<EntryId, SpoolError> {
        poll_fn(|context| self.queue.poll_room(message.content.len(), context)).await;
        self.submit(message).await
    }

    /// As [`accept`](Self::accept), for threads: waits while too many messages are on their way to the disk, but not for this one to
    /// be there. Messages are accepted in the order of these calls.
    pub fn accept_blocking(&self, message: &Message) -> Reply<EntryId> {
        self.queue.wait_for_room(message.content.len());
        self.submit(message)
    }

    /// As [`accept`](Self::accept), without waiting: messages are accepted in the order of these calls.
    ///
    /// # Errors
    ///
    /// When too many messages are on their way to the disk.
    pub fn try_accept(&self, message: &Message) -> Result<Reply<EntryId>, Busy> {
        if !self.queue.has_room(message.content.len()) {
            return Err(Busy);
        }
        Ok(self.submit(message))
    }

    fn submit(&self, message: &Message) -> Reply<EntryId> {
        let Message { class, expires_at, accepted_at, .. } = *message;
        let incoming = match message.encode() {
            Ok(encoded) => Incoming { class, lane: self.keys.label(&message.lane), expires_at, accepted_at, encoded },
            Err(refused) => {
                let (mut answer, reply) = Reply::new();
                answer.send(Err(refused));
                return reply;
            }
        };
        self.push(incoming.encoded.len(), move |changes| changes.accept(&incoming))
    }

    /// Messages that have not been signed yet, in the order in which they were accepted.
    pub fn peek(&self, selection: Selection) -> Reply<Page> {
        self.ask(move |changes| changes.view.peek(&selection))
    }

    /// The first message that can be signed of each lane, for at most `max` lanes; lanes come in an order of the file's own. With
    /// `after`, the lanes after that one.
    pub fn lanes(&self, now: i64, after: Option<String>, max: usize) -> Reply<Vec<Entry>> {
        self.ask(move |changes| changes.view.lanes(now, after.as_deref(), max))
    }

    /// A message by its id, signed or not; `None` if it is there no more. This is for signing again.
    pub fn entry(&self, id: EntryId) -> Reply<Option<Entry>> {
        self.ask(move |changes| changes.view.entry(id))
    }

    /// Keeps the signed envelope of one or several messages of one lane, before it is sent for the first time, so that a retry sends
    /// the same bytes. It replaces an earlier envelope of any of them; what else was in that one waits to be signed again.
    pub fn store_signed(&self, ids: Vec<EntryId>, envelope: Vec<u8>) -> Reply<SignedId> {
        self.ask(move |changes| changes.store_signed(&ids, &envelope))
    }

    /// Signed envelopes that were not acknowledged, in the order in which they were stored, at most `max`. This is what has to be sent
    /// again, first, after a restart. With `after`, those after that one.
    pub fn signed_pending(&self, after: Option<SignedId>, max: usize) -> Reply<Vec<SignedEnvelope>> {
        self.ask(move |changes| changes.view.signed_pending(after, max))
    }

    /// Removes messages: the broker has acknowledged them. Answers how many were there.
    pub fn done(&self, ids: Vec<EntryId>) -> Reply<usize> {
        self.ask(move |changes| changes.done(&ids))
    }

    /// Gives messages up: they are kept, but not drained. Answers how many were there.
    pub fn dead_letter(&self, ids: Vec<EntryId>, reason: impl Into<String>, now: i64) -> Reply<usize> {
        let reason = reason.into();
        self.ask(move |changes| changes.dead_letter(&ids, &reason, now))
    }

    /// Dead letters in the order in which their messages were accepted, at most `max`. With `after`, those after that one.
    pub fn dead_letters(&self, after: Option<EntryId>, max: usize) -> Reply<Vec<DeadLetter>> {
        self.ask(move |changes| changes.view.dead_letters(after, max))
    }

    /// Puts dead letters back where they were in their lanes, all or none of them. Their age counts anew.
    pub fn replay(&self, ids: Vec<EntryId>, now: i64) -> Reply<()> {
        self.ask(move |changes| changes.replay(&ids, now))
    }

    /// Removes dead letters for good. Answers how many were there.
    pub fn remove_dead_letters(&self, ids: Vec<EntryId>) -> Reply<usize> {
        self.ask(move |changes| changes.remove_dead_letters(&ids))
    }

    /// Drops what has expired or become too old at `now`, in Unix milliseconds, and reports it. Answers how many messages, at most
    /// [`EXPIRE_AT_ONCE`](Self::EXPIRE_AT_ONCE); if so many, there may be more.
    pub fn expire(&self, now: i64) -> Reply<usize> {
        self.ask(move |changes| changes.expire(now))
    }

    /// Reports of dropped messages, the oldest first, at most `max`.
    pub fn dropped(&self, max: usize) -> Reply<Vec<Dropped>> {
        self.ask(move |changes| changes.view.dropped(max))
    }

    /// Removes reports: the senders were told. Answers how many were there.
    pub fn forget(&self, ids: Vec<ReportId>) -> Reply<usize> {
        self.ask(move |changes| changes.forget(&ids))
    }

    /// How full the spool is, and what became of messages that were dropped.
    pub fn status(&self) -> Reply<Status> {
        self.ask(|changes| Ok(changes.totals.status))
    }

    /// HMAC-SHA-256 of a message's id under a secret of the file: the id under which the broker recognises a message that is sent
    /// again. It stays the same however often the message is signed, and nobody else can guess it.
    #[must_use]
    pub fn message_key(&self, message_id: &[u8; MESSAGE_ID_LEN]) -> [u8; 32] {
        self.ids.mac(message_id)
    }

    fn ask<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut Changes<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Reply<T> {
        self.push(0, run)
    }

    fn push<T: Send + 'static>(
        &self,
        bytes: usize,
        run: impl FnMut(&mut Changes<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Reply<T> {
        let (task, reply): (Box<dyn Task>, _) = Job::boxed(bytes, run);
        self.queue.push(task);
        reply
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // It has no panic to tell of.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue: _, keys: _, ids: _, path, writer: _ } = self;
        f.debug_struct("Spool").field("path", path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
