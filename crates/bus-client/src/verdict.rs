//! The broker's refusals, which arrive only as asynchronous errors, brought back to the call that caused them.
//!
//! NATS reports a denied publish or subscribe by an error that names the subject and nothing else. Calls that need an
//! answer note how many denials of their subject there were, act, wait for a round trip behind which any denial must
//! have arrived, and compare.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// How long a denial may trail the answer of the round trip that followed it. Both come in on one connection, in
/// order, but reach their readers by different queues within this process.
const GRACE: Duration = Duration::from_millis(5);

/// The most subjects whose denials are remembered.
const MAX_REMEMBERED: usize = 4_096;

/// What the broker denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denial {
    Publish(String),
    Subscribe(String),
}

impl Denial {
    /// Reads the server's error text, e.g. `Permissions Violation for Publish to "a.b"`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let quoted = |rest: &str| {
            let rest = rest.strip_prefix('"')?;
            rest.split_once('"').map(|(subject, _)| subject.to_owned())
        };
        if let Some(rest) = text.strip_prefix("Permissions Violation for Publish to ") {
            return quoted(rest).map(Self::Publish);
        }
        let rest = text.strip_prefix("Permissions Violation for Subscription to ")?;
        quoted(rest).map(Self::Subscribe)
    }
}

/// Tells a live subscription that the broker withdrew it.
#[derive(Debug, Default)]
pub(crate) struct Withdrawal {
    waker: AtomicWaker,
    denied: std::sync::atomic::AtomicBool,
}

impl Withdrawal {
    /// Whether the subscription was withdrawn since the last call.
    pub(crate) fn poll(&self, context: &std::task::Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.denied.swap(false, std::sync::atomic::Ordering::AcqRel)
    }

    fn announce(&self) {
        self.denied.store(true, std::sync::atomic::Ordering::Release);
        self.waker.wake();
    }
}

#[derive(Debug, Default)]
struct Ledger {
    publish: HashMap<String, u64>,
    subscribe: HashMap<String, u64>,
    subscriptions: Vec<(String, std::sync::Weak<Withdrawal>)>,
}

/// Every denial so far, by subject.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    ledger: Mutex<Ledger>,
    news: Notify,
}

/// How many denials of one subject there were when it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Before(pub(crate) u64);

impl Before {
    /// The state before anything was ever denied.
    pub(crate) const NONE: Self = Self(0);
}

impl Verdicts {
    /// Records a denial, and wakes whoever waits for a verdict on it.
    pub(crate) fn record(&self, denial: &Denial) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, subject) = match denial {
            Denial::Publish(subject) => (&mut ledger.publish, subject),
            Denial::Subscribe(subject) => (&mut ledger.subscribe, subject),
        };
        // Counts only ever grow, so that a comparison cannot miss a denial; a full map forgets them all at once, which
        // at worst shows one caller a denial late.
        if map.len() >= MAX_REMEMBERED && !map.contains_key(subject) {
            map.clear();
        }
        *map.entry(subject.clone()).or_default() += 1;
        if let Denial::Subscribe(filter) = denial {
            ledger.subscriptions.retain(|(_, withdrawal)| withdrawal.strong_count() > 0);
            for (of, withdrawal) in &ledger.subscriptions {
                if let (true, Some(withdrawal)) = (of == filter, withdrawal.upgrade()) {
                    withdrawal.announce();
                }
            }
        }
        drop(ledger);
        self.news.notify_waiters();
    }

    /// Notes the state before publishing to `subject`.
    pub(crate) fn before_publish(&self, subject: &str) -> Before {
        Before(self.count(|ledger| &ledger.publish, subject))
    }

    /// Notes the state before subscribing to `filter`.
    pub(crate) fn before_subscribe(&self, filter: &str) -> Before {
        Before(self.count(|ledger| &ledger.subscribe, filter))
    }

    /// Whether publishing to `subject` was denied since `before`. Call it after a round trip.
    pub(crate) async fn publish_denied(&self, subject: &str, before: Before) -> bool {
        self.denied(|ledger| &ledger.publish, subject, before).await
    }

    /// Whether subscribing to `filter` was denied since `before`. Call it after a round trip.
    pub(crate) async fn subscribe_denied(&self, filter: &str, before: Before) -> bool {
        self.denied(|ledger| &ledger.subscribe, filter, before).await
    }

    /// Completes as soon as publishing to `subject` is denied. Never completes otherwise.
    pub(crate) async fn publish_denial(&self, subject: &str, before: Before) {
        loop {
            let news = self.news.notified();
            if self.count(|ledger| &ledger.publish, subject) > before.0 {
                return;
            }
            news.await;
        }
    }

    /// Watches for the broker withdrawing a live subscription.
    pub(crate) fn watch(&self, filter: &str) -> Arc<Withdrawal> {
        let withdrawal = Arc::new(Withdrawal::default());
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.subscriptions.push((filter.to_owned(), Arc::downgrade(&withdrawal)));
        withdrawal
    }

    async fn denied(&self, map: fn(&Ledger) -> &HashMap<String, u64>, subject: &str, before: Before) -> bool {
        let deadline = tokio::time::Instant::now() + GRACE;
        loop {
            let news = self.news.notified();
            if self.count(map, subject) > before.0 {
                return true;
            }
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                return self.count(map, subject) > before.0;
            }
        }
    }

    fn count(&self, map: fn(&Ledger) -> &HashMap<String, u64>, subject: &str) -> u64 {
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        map(&ledger).get(subject).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_denials_are_understood() {
        assert_eq!(Denial::parse("Permissions Violation for Publish to \"a.b\""), Some(Denial::Publish("a.b".into())));
        assert_eq!(
            Denial::parse("Permissions Violation for Subscription to \"a.>\" using queue \"q\""),
            Some(Denial::Subscribe("a.>".into()))
        );
        assert_eq!(Denial::parse("Authorization Violation"), None);
        assert_eq!(Denial::parse("Permissions Violation for Publish to a.b"), None);
    }

    #[tokio::test]
    async fn a_denial_reaches_the_call_that_waits_for_it_and_no_other() {
        let verdicts = Verdicts::default();
        let (a, b) = (verdicts.before_publish("a"), verdicts.before_publish("b"));
        verdicts.record(&Denial::Publish("a".into()));
        assert!(verdicts.publish_denied("a", a).await);
        assert!(!verdicts.publish_denied("b", b).await);
        let again = verdicts.before_publish("a");
        assert!(!verdicts.publish_denied("a", again).await);
    }

    #[tokio::test]
    async fn a_denial_that_trails_the_round_trip_is_still_seen() {
        let verdicts = Arc::new(Verdicts::default());
        let before = verdicts.before_subscribe("a.>");
        let late = Arc::clone(&verdicts);
        let (denied, ()) = tokio::join!(verdicts.subscribe_denied("a.>", before), async move {
            tokio::task::yield_now().await;
            late.record(&Denial::Subscribe("a.>".into()));
        });
        assert!(denied);
    }
}
