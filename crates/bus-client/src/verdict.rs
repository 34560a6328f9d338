//! The broker's refusals, which arrive only as asynchronous errors, brought back to the call that caused them.
//!
//! NATS reports a denied publish or subscribe by an error that names the subject and nothing else. A call that needs an
//! answer notes the number of the latest denial, acts, waits for a round trip behind which any denial must have
//! arrived, and looks whether its subject was denied since.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::backlog::Backlog;

/// How long a denial may trail the answer of the round trip that followed it. Both come in on one connection, in
/// order, but reach their readers by different tasks of this process. A denial that comes later still is an event and
/// a counter, and the next call's error.
const GRACE: Duration = Duration::from_millis(25);

/// The most subjects whose latest denial is remembered.
const MAX_REMEMBERED: usize = 4_096;

/// What the broker denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denial {
    Publish(String),
    Subscribe(String),
    /// A subscription beyond the number that the server allows. It does not say which.
    TooManySubscriptions,
}

impl Denial {
    /// Reads the server's error text, e.g. `Permissions Violation for Publish to "a.b"`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let quoted = |rest: &str| {
            let rest = rest.strip_prefix('"')?;
            rest.split_once('"').map(|(subject, _)| subject.to_owned())
        };
        if text.eq_ignore_ascii_case("maximum subscriptions exceeded") {
            return Some(Self::TooManySubscriptions);
        }
        if let Some(rest) = text.strip_prefix("Permissions Violation for Publish to ") {
            return quoted(rest).map(Self::Publish);
        }
        let rest = text.strip_prefix("Permissions Violation for Subscription to ")?;
        quoted(rest).map(Self::Subscribe)
    }
}

#[derive(Debug, Default)]
struct Ledger {
    /// The number of the latest denial. It only ever grows.
    number: u64,
    /// The number of the latest denial of each subject.
    publish: HashMap<String, u64>,
    subscribe: HashMap<String, u64>,
    too_many: u64,
    live: Vec<(String, Weak<Backlog>)>,
    /// Where each subject's proof is told of its latest denial.
    proofs: HashMap<String, Arc<AtomicU64>>,
}

/// Every denial so far.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    ledger: Mutex<Ledger>,
    news: Notify,
}

/// The number of the latest denial at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Moment(pub(crate) u64);

/// What came of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subscribed {
    Accepted,
    Denied,
    TooMany,
}

impl Verdicts {
    fn with<R>(&self, act: impl FnOnce(&mut Ledger) -> R) -> R {
        act(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records a denial, tells the live subscriptions that it concerns, and wakes whoever waits for a verdict.
    pub(crate) fn record(&self, denial: &Denial) {
        self.with(|ledger| {
            ledger.number += 1;
            let number = ledger.number;
            match denial {
                Denial::Publish(subject) => {
                    remember(&mut ledger.publish, subject, number);
                    if let Some(denied_at) = ledger.proofs.get(subject) {
                        denied_at.store(number, Ordering::Release);
                    }
                }
                Denial::TooManySubscriptions => ledger.too_many = number,
                Denial::Subscribe(filter) => {
                    remember(&mut ledger.subscribe, filter, number);
                    let concerned = ledger.live.iter().filter(|(of, _)| of == filter);
                    concerned.filter_map(|(_, backlog)| backlog.upgrade()).for_each(|backlog| backlog.withdraw());
                }
            }
        });
        self.news.notify_waiters();
    }

    /// Now.
    pub(crate) fn now(&self) -> Moment {
        self.with(|ledger| Moment(ledger.number))
    }

    /// Has `denied_at` set to the number of each denial of publishing to `subject`.
    pub(crate) fn tell(&self, subject: &str, denied_at: &Arc<AtomicU64>) {
        self.with(|ledger| ledger.proofs.insert(subject.to_owned(), Arc::clone(denied_at)));
    }

    /// Has `backlog` told when the broker withdraws the subscription to `filter`, or when the client closes.
    pub(crate) fn watch(&self, filter: &str, backlog: &Arc<Backlog>) {
        self.with(|ledger| {
            ledger.live.retain(|(_, backlog)| backlog.strong_count() > 0);
            ledger.live.push((filter.to_owned(), Arc::downgrade(backlog)));
        });
    }

    /// Ends every live subscription, after what already arrived.
    pub(crate) fn end_all(&self) {
        let live = self.with(|ledger| std::mem::take(&mut ledger.live));
        live.iter().filter_map(|(_, backlog)| backlog.upgrade()).for_each(|backlog| backlog.end());
    }

    /// Whether publishing to `subject` was denied since `since`. Call it after a round trip.
    pub(crate) async fn publish_denied(&self, subject: &str, since: Moment) -> bool {
        self.within_grace(|ledger| denied(&ledger.publish, subject, since).then_some(())).await.is_some()
    }

    /// Completes as soon as publishing to `subject` is denied. Never completes otherwise.
    pub(crate) async fn publish_denial(&self, subject: &str, since: Moment) {
        self.until(|ledger| denied(&ledger.publish, subject, since).then_some(())).await;
    }

    /// What came of subscribing to `filter` since `since`. Call it after a round trip.
    pub(crate) async fn subscribed(&self, filter: &str, since: Moment) -> Subscribed {
        let bad = |ledger: &Ledger| {
            if denied(&ledger.subscribe, filter, since) {
                return Some(Subscribed::Denied);
            }
            (ledger.too_many > since.0).then_some(Subscribed::TooMany)
        };
        self.within_grace(bad).await.unwrap_or(Subscribed::Accepted)
    }

    async fn within_grace<R>(&self, found: impl Fn(&Ledger) -> Option<R>) -> Option<R> {
        tokio::time::timeout(GRACE, self.until(&found)).await.ok().or_else(|| self.with(|ledger| found(ledger)))
    }

    async fn until<R>(&self, found: impl Fn(&Ledger) -> Option<R>) -> R {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            // From here on no news is missed.
            news.as_mut().enable();
            if let Some(result) = self.with(|ledger| found(ledger)) {
                return result;
            }
            news.await;
        }
    }
}

fn denied(map: &HashMap<String, u64>, subject: &str, since: Moment) -> bool {
    map.get(subject).is_some_and(|number| *number > since.0)
}

fn remember(map: &mut HashMap<String, u64>, subject: &str, number: u64) {
    if map.len() >= MAX_REMEMBERED && !map.contains_key(subject) {
        let oldest_kept = number.saturating_sub(MAX_REMEMBERED as u64 / 2);
        map.retain(|_, number| *number > oldest_kept);
    }
    map.insert(subject.to_owned(), number);
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
        assert_eq!(Denial::parse("maximum subscriptions exceeded"), Some(Denial::TooManySubscriptions));
        assert_eq!(Denial::parse("Authorization Violation"), None);
        assert_eq!(Denial::parse("Permissions Violation for Publish to a.b"), None);
    }

    #[tokio::test]
    async fn a_denial_reaches_the_call_that_waits_for_it_and_no_other() {
        let verdicts = Verdicts::default();
        let before = verdicts.now();
        verdicts.record(&Denial::Publish("a".into()));
        assert!(verdicts.publish_denied("a", before).await);
        assert!(!verdicts.publish_denied("b", before).await);
        assert!(!verdicts.publish_denied("a", verdicts.now()).await);
        assert_eq!(verdicts.subscribed("a", before).await, Subscribed::Accepted);
    }

    #[tokio::test]
    async fn a_denial_that_trails_the_round_trip_is_still_seen() {
        let verdicts = Arc::new(Verdicts::default());
        let before = verdicts.now();
        let late = Arc::clone(&verdicts);
        let (verdict, ()) = tokio::join!(verdicts.subscribed("a.>", before), async move {
            tokio::task::yield_now().await;
            late.record(&Denial::Subscribe("a.>".into()));
        });
        assert_eq!(verdict, Subscribed::Denied);
    }

    #[tokio::test]
    async fn a_flood_of_denials_forgets_the_oldest_only() {
        let verdicts = Verdicts::default();
        let before = verdicts.now();
        for subject in 0..3 * MAX_REMEMBERED {
            verdicts.record(&Denial::Publish(subject.to_string()));
        }
        let last = (3 * MAX_REMEMBERED - 1).to_string();
        assert!(verdicts.publish_denied(&last, before).await);
        assert!(verdicts.with(|ledger| ledger.publish.len()) <= MAX_REMEMBERED);
    }
}
