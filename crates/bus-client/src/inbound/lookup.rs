//! The keys stream: where components leave their bundles for those who missed them.
//!
//! Everything that comes out of it is worth what its signatures prove. Whoever can publish anything can have the broker
//! put bytes under another's name there (by a reply subject), and push that one's bundles out of the few places that
//! each has. That costs the fallback and no more: bundles travel with the messages themselves.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bus_crypto::{KeyId, Lifetime};
use bus_proto::prost::bytes::Bytes;
use bus_proto::{Endpoint, Principal};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::intake::{AskForKeys, Asked};
use super::keyring::KnownKey;
use super::rejected::Rejected;
use crate::backlog::Backlog;
use crate::connection::{BusClient, Inner};
use crate::error::KeysError;
use crate::time::unix_ms;

/// How long the answer to a look-up holds, also that there is nothing.
const REMEMBERED: Duration = Duration::from_secs(10);

/// How long it holds where the key that is asked for is not among them: it may be on its way.
const REMEMBERED_WITHOUT: Duration = Duration::from_secs(1);

/// How many senders' keys are looked up at the same time.
const MAX_UNDER_WAY: usize = 16;

/// How many senders' keys may wait to be looked up.
const MAX_QUEUED: usize = 4_096;

/// What is being looked up, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct LookUps(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Endpoint, Entry>,
    queue: VecDeque<Principal>,
    under_way: usize,
}

#[derive(Debug)]
enum Entry {
    /// Whoever waits for it.
    UnderWay(Vec<Weak<Backlog>>),
    Done {
        at: Instant,
        keys: Vec<Arc<KnownKey>>,
    },
}

/// Asks on behalf of the reader of one backlog.
pub(crate) struct AskFor<'a> {
    pub(crate) inner: &'a Arc<Inner>,
    pub(crate) backlog: &'a Arc<Backlog>,
}

impl AskForKeys for AskFor<'_> {
    fn ask(&self, sender: &Principal, key_id: &KeyId) -> Asked {
        let holds = |at: Instant, keys: &[Arc<KnownKey>]| {
            let known = keys.iter().any(|key| key.key_id() == *key_id);
            at.elapsed() < if known { REMEMBERED } else { REMEMBERED_WITHOUT }
        };
        self.inner.look_ups.ask(self.inner, sender, self.backlog, holds)
    }

    fn answer(&self, sender: &Principal) -> Asked {
        // However long ago: a slow reader would ask again and again.
        self.inner.look_ups.ask(self.inner, sender, self.backlog, |_, _| true)
    }
}

impl LookUps {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of a look-up, if it still `holds`. Else it is made, and `backlog` told when it ends.
    fn ask(
        &self,
        inner: &Arc<Inner>,
        sender: &Principal,
        backlog: &Arc<Backlog>,
        holds: impl FnOnce(Instant, &[Arc<KnownKey>]) -> bool,
    ) -> Asked {
        let mut table = self.table();
        match table.entries.get_mut(&sender.endpoint) {
            Some(Entry::Done { at, keys }) if holds(*at, keys) => return Asked::Found(keys.clone()),
            Some(Entry::UnderWay(waiting)) => {
                if !waiting.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(backlog))) {
                    waiting.push(Arc::downgrade(backlog));
                }
                return Asked::UnderWay;
            }
            _ => {}
        }
        table.entries.retain(|_, entry| !matches!(entry, Entry::Done { at, .. } if at.elapsed() >= REMEMBERED));
        if table.entries.len() >= MAX_QUEUED {
            return Asked::Found(Vec::new());
        }
        table.entries.insert(sender.endpoint.clone(), Entry::UnderWay(vec![Arc::downgrade(backlog)]));
        table.queue.push_back(sender.clone());
        if table.under_way < MAX_UNDER_WAY {
            table.under_way += 1;
            inner.runtime.spawn(work(Arc::downgrade(inner)));
        }
        Asked::UnderWay
    }

    fn next(&self) -> Option<Principal> {
        let mut table = self.table();
        let next = table.queue.pop_front();
        if next.is_none() {
            table.under_way -= 1;
        }
        next
    }

    fn done(&self, sender: &Endpoint, keys: Vec<Arc<KnownKey>>) {
        let entry = Entry::Done { at: Instant::now(), keys };
        let before = self.table().entries.insert(sender.clone(), entry);
        if let Some(Entry::UnderWay(waiting)) = before {
            waiting.iter().filter_map(Weak::upgrade).for_each(|backlog| backlog.nudge());
        }
    }
}

/// Looks up what waits to be, one after the other.
async fn work(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        let Some(sender) = inner.look_ups.next() else { return };
        let keys = inner.verified_keys(&sender).await;
        inner.look_ups.done(&sender.endpoint, keys);
    }
}

/// A bundle as the keys stream has it.
#[derive(Debug)]
#[non_exhaustive]
pub struct PublishedKey {
    /// The id of the key.
    pub key_id: KeyId,
    /// When it may be used.
    pub lifetime: Lifetime,
    /// The encoded bundle.
    pub bundle: Bytes,
}

/// What the keys stream has of one component.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct PublishedKeys {
    /// The bundles that hold, the oldest first.
    pub keys: Vec<PublishedKey>,
    /// Why others do not.
    pub refused: Vec<Rejected>,
}

impl BusClient {
    /// Reads the bundles that `component` has left in the keys stream, and verifies them.
    ///
    /// # Errors
    ///
    /// When there is no keys stream, or the broker does not answer within the operation timeout.
    pub async fn published_keys(&self, component: &Endpoint) -> Result<PublishedKeys, KeysError> {
        let inner = &self.inner;
        let trust_domain = inner.shared.principal.trust_domain.clone();
        let sender = Principal { trust_domain, endpoint: component.clone() };
        let clock = inner.gate.clock(unix_ms());
        let mut published = PublishedKeys::default();
        for bundle in inner.read(inner.gate.root.bundles(), &sender.endpoint).await? {
            match inner.gate.ring.verify(&bundle, &sender, &clock) {
                Ok(key) => {
                    let lifetime = key.bundle().lifetime();
                    published.keys.push(PublishedKey { key_id: key.key_id(), lifetime, bundle });
                }
                Err(rejected) => published.refused.push(rejected),
            }
        }
        Ok(published)
    }
}

impl Inner {
    async fn verified_keys(&self, sender: &Principal) -> Vec<Arc<KnownKey>> {
        let bundles = match self.read(self.gate.root.bundles(), &sender.endpoint).await {
            Ok(bundles) => bundles,
            Err(error) => {
                tracing::debug!(%sender, %error, "the keys of a sender were not found");
                return Vec::new();
            }
        };
        let clock = self.gate.clock(unix_ms());
        let verify = |bundle: &Bytes| self.gate.ring.verify(bundle, sender, &clock).map(Arc::new);
        bundles.iter().filter_map(|bundle| verify(bundle).ok()).collect()
    }

    /// How far this clock is ahead of the broker's, in milliseconds, as the time shows at which the broker stored our
    /// latest bundle, a moment ago.
    pub(crate) async fn ahead_of_broker(&self) -> Option<i64> {
        let bundles = self.gate.root.bundles();
        let request = format!(r#"{{"last_by_subj":"{}"}}"#, bundles.subject(&self.shared.principal.endpoint));
        let headers = self.ask_broker(bundles.lookup(), request.into()).await.ok()?.headers?;
        // What the publisher of a message wrote into its headers comes first.
        let stored = headers.get_all("Nats-Time-Stamp").last()?;
        let stored = OffsetDateTime::parse(stored.as_str(), &Rfc3339).ok()?;
        let stored = i64::try_from(stored.unix_timestamp_nanos() / 1_000_000).ok()?;
        Some(unix_ms().saturating_sub(stored))
    }

    /// Leaves the bundle of our own key in the keys stream.
    pub(crate) async fn store_bundle(&self, bundle: Bytes) -> Result<(), KeysError> {
        self.leave(self.gate.root.bundles(), bundle).await
    }
}
