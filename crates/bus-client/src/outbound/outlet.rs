//! The subjects that a client publishes to: what waits for each, and what was sent there.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus_acl::Permit;
use bus_crypto::KeyId;
use bus_proto::v1::envelope::Payload;
use bus_proto::{Destination, Endpoint, MessageType, Principal, SubjectRoot};
use tokio::sync::Notify;

use super::encode::Common;
use super::form::Form;
use super::run::{Run, Waiting};
use super::seal::{Recipients, Sealers};
use crate::error::PublishError;
use crate::verdict::{Moment, Verdicts};

/// The most messages that wait for one subject. Who publishes more waits for room.
const MAX_WAITING: usize = 2_048;

/// The most bytes of payloads that wait for one subject.
const MAX_WAITING_BYTES: usize = 2 * 1024 * 1024;

/// How long the key bundle does not come along again after it did, on one subject.
const BUNDLE_INTERVAL: Duration = Duration::from_secs(10);

/// How many emptied runs are kept for the next messages.
const MAX_SPARE: usize = 4;

/// One subject that this client publishes to.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) subject: async_nats::Subject,
    pub(crate) message_type: MessageType,
    /// The receiver's SPIFFE ID, or empty for events.
    pub(crate) destination: String,
    /// Whether the key's bundle comes along with every envelope: where none may be refused for want of it.
    pub(crate) always_with_bundle: bool,
    /// Whom its payloads are sealed to, if they are.
    pub(crate) sealed_to: Option<Recipients>,
    /// Whether they are compressed.
    pub(crate) compress: bool,
    /// Held while a message is signed and handed to the connection, so that sequences reach the wire in their order.
    pub(crate) lane: tokio::sync::Mutex<Lane>,
    pub(crate) proof: Arc<Proof>,
    queue: Mutex<Queue>,
    /// The priority of what waits first.
    urgency: AtomicU32,
    /// How many messages were taken off the queue and dealt with.
    settled: AtomicU64,
    /// Woken whenever that grows.
    progress: Notify,
}

/// What was sent on a subject so far.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    key: Option<KeyId>,
    sequence: u64,
    /// With which connection the bundle went along last, and when.
    bundle_sent: Option<(u64, Instant)>,
    pub(super) sealers: Sealers,
}

impl Lane {
    /// The number of the next envelope under this key, and whether the key's bundle should come along.
    pub(crate) fn next(&mut self, key: KeyId, connection: u64) -> (u64, bool) {
        if self.key != Some(key) {
            *self = Self { key: Some(key), ..Self::default() };
        }
        let due = self.bundle_sent.is_none_or(|(with, sent)| with != connection || sent.elapsed() >= BUNDLE_INTERVAL);
        (self.sequence + 1, due)
    }

    /// The envelope was handed over, with the key's bundle and the wrapped keys, or without.
    pub(crate) fn sent(&mut self, connection: u64, with_bundle: bool, with_keys: bool) {
        self.sequence += 1;
        if with_bundle {
            self.bundle_sent = Some((connection, Instant::now()));
        }
        if with_keys {
            self.sealers.keys_sent(connection);
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    runs: VecDeque<Run>,
    spare: Vec<Run>,
    messages: usize,
    bytes: usize,
    /// How many messages were ever put in.
    accepted: u64,
    /// Whether somebody was told that there is something to send.
    scheduled: bool,
}

impl Queue {
    /// Whether a payload of so many bytes fits. One alone always does.
    fn has_room(&self, bytes: usize) -> bool {
        self.messages == 0 || (self.messages < MAX_WAITING && self.bytes + bytes <= MAX_WAITING_BYTES)
    }
}

/// What bounds the batches of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchBounds {
    /// 1 to 256; 1 means that nothing is gathered.
    pub(crate) members: usize,
    /// The most bytes of members.
    pub(crate) len: usize,
}

/// What came of putting a message into a queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits, and nobody was told that this outlet has something to send.
    First,
    /// It waits behind others.
    Behind,
    /// There is no room now.
    Full,
}

impl Outlet {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message behind those that wait, if there is room.
    pub(crate) fn push(&self, common: &Common, message: &Waiting, payload: &Payload, bounds: BatchBounds) -> Pushed {
        let mut queue = self.queue();
        let bytes = message.payload.len();
        if !queue.has_room(bytes) {
            return Pushed::Full;
        }
        let joins = queue.runs.back().is_some_and(|run| run.takes(common, message, bounds.members, bounds.len));
        if !joins {
            let mut run = queue.spare.pop().unwrap_or_default();
            run.reuse(common.clone());
            if queue.runs.is_empty() {
                self.urgency.store(urgency(common), Ordering::Relaxed);
            }
            queue.runs.push_back(run);
        }
        if let Some(run) = queue.runs.back_mut() {
            run.push(message.clone(), payload);
        }
        queue.messages += 1;
        queue.bytes += bytes;
        queue.accepted += 1;
        if std::mem::replace(&mut queue.scheduled, true) { Pushed::Behind } else { Pushed::First }
    }

    /// How many messages wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue().messages
    }

    /// Takes what waits first. With nothing there, the next message schedules the outlet anew.
    pub(crate) fn pop(&self) -> Option<Run> {
        let mut queue = self.queue();
        let Some(run) = queue.runs.pop_front() else {
            queue.scheduled = false;
            return None;
        };
        queue.messages -= run.messages().len();
        queue.bytes -= run.messages().iter().map(|message| message.payload.len()).sum::<usize>();
        if let Some(next) = queue.runs.front() {
            self.urgency.store(urgency(next.common()), Ordering::Relaxed);
        }
        Some(run)
    }

    /// A run that was taken off has been dealt with, however that ended; it had `count` messages.
    pub(crate) fn settle(&self, run: Run, count: usize) {
        let mut queue = self.queue();
        if queue.spare.len() < MAX_SPARE {
            queue.spare.push(run);
        }
        drop(queue);
        self.settled.fetch_add(count as u64, Ordering::AcqRel);
        self.progress.notify_waiters();
    }

    /// Waits until a message was taken off the queue.
    pub(crate) async fn progress(&self, until: impl Fn(&Self) -> bool) {
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            // From here on no progress is missed.
            progress.as_mut().enable();
            if until(self) {
                return;
            }
            progress.await;
        }
    }

    /// Waits until everything that waits now has been dealt with.
    pub(crate) async fn emptied(&self) {
        let accepted = self.queue().accepted;
        self.progress(|outlet| outlet.settled.load(Ordering::Acquire) >= accepted).await;
    }

    /// Whether there is room for another message, whose payload has so many bytes.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.queue().has_room(bytes)
    }

    fn urgency(&self) -> u32 {
        self.urgency.load(Ordering::Relaxed)
    }
}

/// The priority, with the default filled in.
fn urgency(common: &Common) -> u32 {
    if common.priority == 0 { 5 } else { common.priority }
}

/// The outlets that have something to send.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    outlets: Mutex<VecDeque<Arc<Outlet>>>,
    news: Notify,
}

impl Ready {
    pub(crate) fn add(&self, outlet: Arc<Outlet>) {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner).push_back(outlet);
        self.news.notify_one();
    }

    /// The most urgent one: of equally urgent ones, the one that has waited longest.
    pub(crate) async fn next(&self) -> Arc<Outlet> {
        loop {
            if let Some(outlet) = self.take() {
                return outlet;
            }
            self.news.notified().await;
        }
    }

    /// As [`Ready::next`], of those that are ready now.
    pub(crate) fn take(&self) -> Option<Arc<Outlet>> {
        let mut outlets = self.outlets.lock().unwrap_or_else(PoisonError::into_inner);
        let most = outlets.iter().map(|outlet| outlet.urgency()).max()?;
        let place = outlets.iter().position(|outlet| outlet.urgency() == most)?;
        outlets.remove(place)
    }
}

/// That the broker was seen to accept one type, as events or into inboxes. It holds for one connection, and only until
/// the broker denies one of its subjects.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// The connection on which it was given.
    epoch: AtomicU64,
    /// The number of the latest denial, of anything, when it was given.
    moment: AtomicU64,
    /// The number of the latest denial of one of its own subjects.
    denied_at: Arc<AtomicU64>,
}

impl Proof {
    pub(crate) fn holds(&self, epoch: u64) -> bool {
        self.epoch.load(Ordering::Acquire) == epoch
            && self.denied_at.load(Ordering::Acquire) <= self.moment.load(Ordering::Acquire)
    }

    pub(crate) fn give(&self, epoch: u64, moment: Moment) {
        self.moment.store(moment.0, Ordering::Release);
        self.epoch.store(epoch, Ordering::Release);
    }
}

/// Every subject published to so far: one outlet per type, and per destination and type.
#[derive(Debug, Default)]
pub(crate) struct Outlets(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    events: HashMap<MessageType, Arc<Outlet>>,
    inboxes: HashMap<Endpoint, HashMap<MessageType, Arc<Outlet>>>,
    proofs: HashMap<(bool, MessageType), Arc<Proof>>,
}

impl Outlets {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outlet for what is permitted.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is used up by the one message that it permits")]
    pub(crate) fn open(
        &self,
        permit: Permit<'_>,
        message_type: &MessageType,
        own: &Principal,
        root: &SubjectRoot,
        verdicts: &Verdicts,
        form: impl FnOnce() -> Result<Form, PublishError>,
    ) -> Result<Arc<Outlet>, PublishError> {
        let mut table = self.table();
        let destination = permit.request().destination;
        let known = match destination {
            Destination::Events => table.events.get(message_type),
            Destination::Inbox(to) => table.inboxes.get(to).and_then(|types| types.get(message_type)),
        };
        if let Some(outlet) = known {
            return Ok(Arc::clone(outlet));
        }
        let Form { sealed_to, compress } = form()?;
        let is_event = matches!(destination, Destination::Events);
        let proof = Arc::clone(table.proofs.entry((is_event, message_type.clone())).or_default());
        let subject = permit.subject(root);
        verdicts.tell(&subject, &proof.denied_at);
        let outlet = Arc::new(Outlet {
            subject: subject.into(),
            message_type: message_type.clone(),
            destination: match destination {
                Destination::Events => String::new(),
                Destination::Inbox(to) => {
                    Principal { trust_domain: own.trust_domain.clone(), endpoint: to.clone() }.spiffe_id()
                }
            },
            always_with_bundle: !message_type.is_live(),
            sealed_to: sealed_to.map(Recipients::new),
            compress,
            lane: tokio::sync::Mutex::default(),
            proof,
            queue: Mutex::default(),
            urgency: AtomicU32::new(0),
            settled: AtomicU64::new(0),
            progress: Notify::new(),
        });
        let types = match destination {
            Destination::Events => &mut table.events,
            Destination::Inbox(to) => table.inboxes.entry(to.clone()).or_default(),
        };
        types.insert(message_type.clone(), Arc::clone(&outlet));
        Ok(outlet)
    }

    /// Every outlet there is.
    pub(crate) fn all(&self) -> Vec<Arc<Outlet>> {
        let table = self.table();
        table.events.values().chain(table.inboxes.values().flat_map(HashMap::values)).cloned().collect()
    }
}
