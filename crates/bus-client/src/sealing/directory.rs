//! The sealing keys of others: what is remembered of them, and what was seen.
//!
//! Whatever comes out of the stream is worth what its signatures prove. Whoever hosts the broker can withhold a record, or
//! show an old one; but what this process has once seen of a component, it never goes behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus_crypto::BundleError;
use bus_crypto::sealing::record::{RecordError, VerifiedRecord};
use bus_proto::Endpoint;
use bus_tls::TlsError;
use tokio::time::timeout;

use super::records::{BadRecord, KnownRecord};
use crate::connection::{BusClient, Inner};
use crate::error::KeysError;
use crate::time::unix_ms;

/// How long it is remembered that there is none: it may be on its way.
const REMEMBERED_WITHOUT: Duration = Duration::from_secs(1);

/// How long whoever has a key that still holds waits for the stream to tell a newer one. It is asked on meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);

/// The most components of which something is remembered. The one that was not asked for the longest goes.
const MAX_REMEMBERED: usize = 4_096;

/// Why there is no key to seal with for a component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoSealingKey {
    /// It has published none.
    #[error("no sealing key is known for {component}: it publishes one when it first subscribes")]
    Unknown {
        /// Whose.
        component: Endpoint,
    },
    /// The one that it published is too old to seal to it.
    #[error("the sealing key of {component} has expired: it has to connect to this bus again to publish another")]
    Expired {
        /// Whose.
        component: Endpoint,
    },
    /// The stream has only older ones than this process has seen.
    #[error(
        "the sealing key of {component} is rolled back: the stream has version {version}, but version {highest} was seen; \
         have the component publish again, and ask who hosts the broker"
    )]
    RolledBack {
        /// Whose.
        component: Endpoint,
        /// The highest version that the stream has.
        version: u64,
        /// The highest that was seen.
        highest: u64,
    },
    /// Two keys go by one version.
    #[error(
        "{component} has published two sealing keys as version {version}: its processes have to share one key store; \
         `bus keys seal-rotate` makes a new version"
    )]
    Conflict {
        /// Whose.
        component: Endpoint,
        /// Which version.
        version: u64,
    },
    /// What it published does not hold.
    #[error("no sealing key of {component} holds: {reason}")]
    Refused {
        /// Whose.
        component: Endpoint,
        /// What is wrong with the latest record.
        reason: String,
    },
    /// The server keeps no sealing keys.
    #[error("this bus has no key stream `{stream}`, so nobody's sealing key is known: run `bus server provision`")]
    NoStream {
        /// The stream.
        stream: String,
    },
    /// The broker did not answer in time, or does not permit it.
    #[error("the broker gave no answer about the sealing key of {component} for {timeout_ms} ms")]
    TimedOut {
        /// Whose.
        component: Endpoint,
        /// How long it waited, in milliseconds.
        timeout_ms: u128,
    },
    /// The system gives no randomness.
    #[error("the operating system gives no random bytes")]
    Randomness,
}

impl NoSealingKey {
    /// This is what is wrong with the latest record of this component.
    fn bad(record: &BadRecord, component: &Endpoint) -> Self {
        let component = component.clone();
        match record {
            BadRecord::Record(RecordError::Statement(BundleError::Expired { .. }))
            | BadRecord::Certificate(TlsError::Expired { .. }) => Self::Expired { component },
            other => Self::Refused { component, reason: other.to_string() },
        }
    }

    /// The record of this component could not be read.
    fn unread(error: KeysError, component: &Endpoint) -> Self {
        let component = component.clone();
        match error {
            KeysError::NoStream { stream } => Self::NoStream { stream },
            KeysError::Randomness => Self::Randomness,
            KeysError::TimedOut { timeout_ms, .. } => Self::TimedOut { component, timeout_ms },
            other => Self::Refused { component, reason: other.to_string() },
        }
    }
}

/// What is known of a component's sealing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealingKeyInfo {
    /// Its version, from 1.
    pub version: u64,
    /// The last moment of sealing to it, in Unix milliseconds.
    pub not_after: i64,
}

/// The sealing keys of others, as one client knows them.
///
/// Records are remembered of at most [`MAX_REMEMBERED`] components. The version and the key that were seen last, some hundred
/// bytes, are kept of every component of which a record was verified, so for as many as were issued certificates and sealed to.
#[derive(Debug)]
pub(crate) struct Directory {
    /// How long a sealing key is remembered before the stream is asked again.
    refresh: Duration,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    remembered: HashMap<Endpoint, Remembered>,
    seen: HashMap<Endpoint, Seen>,
    /// How often something was asked for.
    uses: u64,
}

#[derive(Debug)]
struct Remembered {
    slot: Arc<Slot>,
    /// Which use of the directory was the latest of this.
    used: u64,
}

/// What is remembered of one component.
#[derive(Debug, Default)]
struct Slot {
    /// Whoever has it asks the stream. The others wait for what comes of it.
    turn: tokio::sync::Mutex<()>,
    answer: Mutex<Option<Answer>>,
}

/// What came of a question.
#[derive(Debug, Clone)]
struct Answer {
    at: Instant,
    found: Result<Arc<KnownRecord>, NoSealingKey>,
}

/// The newest key of a component that was ever seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    version: u64,
    key: [u8; 32],
}

/// A verified record, or whatever else stands for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate<T> {
    states: Seen,
    not_after: i64,
    record: T,
}

/// Why none of several records counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoneCounts {
    ThereIsNone,
    RolledBack { version: u64, highest: u64 },
    Conflict { version: u64 },
}

/// Which record counts: that of the highest version. It may not be lower than what was `seen`, nor another key of the same
/// version. Of several records of one key, which has had several certificates, it is the one that is good the longest.
fn choose<T>(candidates: Vec<Candidate<T>>, seen: Option<Seen>) -> Result<Candidate<T>, NoneCounts> {
    let version = candidates.iter().map(|candidate| candidate.states.version).max().ok_or(NoneCounts::ThereIsNone)?;
    if let Some(Seen { version: highest, .. }) = seen.filter(|seen| seen.version > version) {
        return Err(NoneCounts::RolledBack { version, highest });
    }
    let newest = || candidates.iter().map(|candidate| candidate.states).filter(|states| states.version == version);
    let states = match seen.filter(|seen| seen.version == version) {
        Some(seen) => Some(seen),
        None => newest().next().filter(|first| newest().all(|states| states == *first)),
    };
    let chosen = candidates.into_iter().filter(|candidate| Some(candidate.states) == states);
    chosen.max_by_key(|candidate| candidate.not_after).ok_or(NoneCounts::Conflict { version })
}

impl BusClient {
    /// Which key messages to `component` are sealed to, as the stream of sealing keys has it, or as it is remembered
    /// ([`BusOptions::sealing_key_refresh`](crate::BusOptions::sealing_key_refresh)).
    ///
    /// # Errors
    ///
    /// When there is no key that holds; [`NoSealingKey`] says why.
    pub async fn sealing_key_of(&self, component: &Endpoint) -> Result<SealingKeyInfo, NoSealingKey> {
        let record = self.inner.sealing_key_of(component).await?;
        Ok(SealingKeyInfo { version: record.version(), not_after: record.lifetime().not_after })
    }
}

impl Inner {
    /// The newest sealing key of a component: remembered for a while and never past its end, or else looked up. Where the
    /// stream does not answer at once, one that was remembered goes on being good as long as it holds.
    pub(crate) async fn sealing_key_of(
        self: &Arc<Self>,
        component: &Endpoint,
    ) -> Result<Arc<VerifiedRecord>, NoSealingKey> {
        let slot = self.directory.slot(component);
        if let Some(found) = self.remembered(&slot) {
            return found;
        }
        let former = self.former(&slot);
        // In a task of its own, so that whoever waits no longer does not undo what the next one needs.
        let (inner, owner) = (Arc::clone(self), component.clone());
        let asked = self.runtime.spawn(async move { inner.ask_for_sealing_key(&slot, &owner).await });
        let answer = match &former {
            Some(_) => timeout(PATIENCE, asked).await.ok(),
            None => Some(asked.await),
        };
        match (answer, former) {
            (Some(Ok(found)), _) => found,
            (_, Some(known)) => Ok(known.record()),
            // The runtime is shutting down.
            (_, None) => {
                let timeout_ms = self.operation_timeout.as_millis();
                Err(NoSealingKey::TimedOut { component: component.clone(), timeout_ms })
            }
        }
    }

    async fn ask_for_sealing_key(
        &self,
        slot: &Slot,
        component: &Endpoint,
    ) -> Result<Arc<VerifiedRecord>, NoSealingKey> {
        let _turn = slot.turn.lock().await;
        // Whoever had the turn before may have learned it.
        if let Some(found) = self.remembered(slot) {
            return found;
        }
        let found = self.look_up_sealing_key(component, self.former(slot)).await;
        slot.keep(found.clone());
        found.map(|known| known.record())
    }

    /// What was found the last time, if it still holds.
    fn former(&self, slot: &Slot) -> Option<Arc<KnownRecord>> {
        slot.answer().and_then(|answer| answer.found.ok()).filter(|known| self.holds(known))
    }

    fn remembered(&self, slot: &Slot) -> Option<Result<Arc<VerifiedRecord>, NoSealingKey>> {
        let Answer { at, found } = slot.answer()?;
        match found {
            Ok(known) if at.elapsed() < self.directory.refresh && self.holds(&known) => Some(Ok(known.record())),
            Err(why) if at.elapsed() < REMEMBERED_WITHOUT => Some(Err(why)),
            _ => None,
        }
    }

    /// Whether others may seal to this key now.
    fn holds(&self, known: &KnownRecord) -> bool {
        let now = unix_ms();
        now <= known.not_after() && known.is_trusted(&self.identity, now)
    }

    /// Asks the stream. What was known before, and still holds, counts like what is found: withholding a record, or showing
    /// an old one, changes nothing.
    async fn look_up_sealing_key(
        &self,
        component: &Endpoint,
        former: Option<Arc<KnownRecord>>,
    ) -> Result<Arc<KnownRecord>, NoSealingKey> {
        let mut known = Vec::new();
        let mut otherwise = NoSealingKey::Unknown { component: component.clone() };
        match self.sealing_records(component).await {
            Ok(found) => {
                for found in found {
                    match found {
                        Ok(record) => known.push(record),
                        Err(why) => otherwise = NoSealingKey::bad(&why, component),
                    }
                }
            }
            Err(error) => otherwise = NoSealingKey::unread(error, component),
        }
        known.extend(former);
        self.directory.newest(component, known).map_err(|why| match why {
            NoneCounts::ThereIsNone => otherwise,
            NoneCounts::RolledBack { version, highest } => {
                tracing::warn!(
                    target: "bus::security",
                    %component, version, highest,
                    "the sealing keys of a component were rolled back"
                );
                NoSealingKey::RolledBack { component: component.clone(), version, highest }
            }
            NoneCounts::Conflict { version } => NoSealingKey::Conflict { component: component.clone(), version },
        })
    }
}

impl Directory {
    pub(crate) fn new(refresh: Duration) -> Self {
        Self { refresh, table: Mutex::default() }
    }

    /// For how long what was looked up is good.
    pub(crate) fn refresh(&self) -> Duration {
        self.refresh
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of a component.
    fn slot(&self, component: &Endpoint) -> Arc<Slot> {
        let mut table = self.table();
        table.uses += 1;
        let used = table.uses;
        if let Some(remembered) = table.remembered.get_mut(component) {
            remembered.used = used;
            return Arc::clone(&remembered.slot);
        }
        if table.remembered.len() >= MAX_REMEMBERED {
            let unused = table.remembered.iter().min_by_key(|(_, remembered)| remembered.used);
            if let Some(unused) = unused.map(|(component, _)| component.clone()) {
                table.remembered.remove(&unused);
            }
        }
        let slot = Arc::<Slot>::default();
        table.remembered.insert(component.clone(), Remembered { slot: Arc::clone(&slot), used });
        slot
    }

    /// Which of these verified records of a component counts. From now on it is what was seen of it.
    fn newest(&self, component: &Endpoint, known: Vec<Arc<KnownRecord>>) -> Result<Arc<KnownRecord>, NoneCounts> {
        let candidate = |record: Arc<KnownRecord>| {
            let states = Seen { version: record.version(), key: *record.key().as_bytes() };
            Candidate { states, not_after: record.not_after(), record }
        };
        let mut table = self.table();
        let seen = table.seen.get(component).copied();
        let chosen = choose(known.into_iter().map(candidate).collect(), seen)?;
        if seen != Some(chosen.states) {
            table.seen.insert(component.clone(), chosen.states);
        }
        Ok(chosen.record)
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Answer>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self) -> Option<Answer> {
        self.lock().clone()
    }

    fn keep(&self, found: Result<Arc<KnownRecord>, NoSealingKey>) {
        *self.lock() = Some(Answer { at: Instant::now(), found });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(version: u64, key: u8, not_after: i64) -> Candidate<()> {
        Candidate { states: Seen { version, key: [key; 32] }, not_after, record: () }
    }

    fn seen(version: u64, key: u8) -> Option<Seen> {
        Some(Seen { version, key: [key; 32] })
    }

    fn component(number: usize) -> Endpoint {
        format!("agent/a{number}").parse().unwrap()
    }

    #[test]
    fn the_highest_version_counts_wherever_it_stands() {
        let records = vec![record(2, 2, 20), record(3, 3, 10), record(1, 1, 30)];
        for seen in [None, seen(1, 1), seen(2, 9), seen(3, 3)] {
            assert_eq!(choose(records.clone(), seen), Ok(record(3, 3, 10)), "{seen:?}");
        }
        assert_eq!(choose::<()>(Vec::new(), seen(1, 1)), Err(NoneCounts::ThereIsNone));
    }

    #[test]
    fn what_is_older_than_what_was_seen_is_a_roll_back() {
        let rolled_back = Err(NoneCounts::RolledBack { version: 2, highest: 3 });
        assert_eq!(choose(vec![record(2, 2, 20), record(1, 1, 30)], seen(3, 3)), rolled_back);
    }

    #[test]
    fn a_version_has_one_key_and_the_one_that_was_seen_is_it() {
        let both = vec![record(2, 7, 20), record(2, 8, 30)];
        assert_eq!(choose(both.clone(), None), Err(NoneCounts::Conflict { version: 2 }));
        assert_eq!(choose(both.clone(), seen(1, 1)), Err(NoneCounts::Conflict { version: 2 }));
        assert_eq!(choose(both.clone(), seen(2, 7)), Ok(record(2, 7, 20)));
        assert_eq!(choose(both, seen(2, 9)), Err(NoneCounts::Conflict { version: 2 }));
    }

    #[test]
    fn of_one_key_under_several_certificates_the_record_counts_that_is_good_the_longest() {
        let records = vec![record(2, 7, 20), record(2, 7, 40), record(2, 7, 30)];
        assert_eq!(choose(records, None), Ok(record(2, 7, 40)));
    }

    #[test]
    fn so_many_components_are_remembered_and_the_one_that_was_unused_the_longest_goes() {
        let directory = Directory::new(Duration::from_secs(300));
        let first = directory.slot(&component(0));
        let second = directory.slot(&component(1));
        for number in 2..MAX_REMEMBERED {
            directory.slot(&component(number));
        }
        assert!(Arc::ptr_eq(&first, &directory.slot(&component(0))), "it is used again");
        directory.slot(&component(MAX_REMEMBERED));
        assert_eq!(directory.table().remembered.len(), MAX_REMEMBERED);
        assert!(Arc::ptr_eq(&first, &directory.slot(&component(0))));
        assert!(!Arc::ptr_eq(&second, &directory.slot(&component(1))), "it had to go");
    }
}
