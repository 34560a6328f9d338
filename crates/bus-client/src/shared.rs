//! What the connection's own callbacks know. It does not own the connection, so that nothing keeps itself alive.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{ClientError, ConnectErrorKind, Event, ServerError};
use bus_proto::Principal;
use tokio::sync::{Notify, broadcast, watch};

use crate::inbound::{Gap, Rejected};
use crate::status::{BusEvent, CloseReason, Counters, Status, add, count};
use crate::time::unix_ms;
use crate::verdict::{Denial, Verdicts};

/// How many events wait for a reader that is slow.
const EVENT_CAPACITY: usize = 256;

/// How many refusals are logged a second, and how many gaps are events. More are counted.
const AT_MOST_A_SECOND: u32 = 20;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) principal: Principal,
    pub(crate) status: watch::Sender<Status>,
    /// Whether the status is [`Status::Connected`], for those who ask for every message. Changed within the status's lock.
    up: AtomicBool,
    events: broadcast::Sender<BusEvent>,
    pub(crate) counters: Counters,
    pub(crate) verdicts: Verdicts,
    /// Changes with every connect and disconnect, so that what was proven on one connection is proven anew on the next.
    epoch: AtomicU64,
    give_up_after: u32,
    refusals: AtomicU32,
    /// Set when no further attempt to reconnect may be made.
    parked: AtomicBool,
    /// Woken after every connect.
    pub(crate) connected: Notify,
    /// The epoch of the latest connection whose server said that it is about to end; 0 for none.
    pub(crate) lame_duck: watch::Sender<u64>,
    /// Whether this connection is being left for one to another server.
    leaving: AtomicBool,
    slow_reported_at: AtomicI64,
    refusal_log: Limiter,
    gap_events: Limiter,
    refusals_by_reason: Mutex<BTreeMap<&'static str, u64>>,
}

/// Keeps what a peer can cause from becoming a flood.
#[derive(Debug, Default)]
struct Limiter(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    since: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl Limiter {
    /// How many were suppressed before this one, or `None` when this one is, too.
    fn pass(&self) -> Option<u64> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.since.is_none_or(|since| since.elapsed() >= Duration::from_secs(1)) {
            (recent.since, recent.passed) = (Some(Instant::now()), 0);
        }
        if recent.passed >= AT_MOST_A_SECOND {
            recent.suppressed = recent.suppressed.saturating_add(1);
            return None;
        }
        recent.passed += 1;
        Some(std::mem::take(&mut recent.suppressed))
    }
}

impl Shared {
    pub(crate) fn new(principal: Principal, give_up_after: u32) -> Self {
        Self {
            principal,
            status: watch::Sender::new(Status::Disconnected),
            up: AtomicBool::new(false),
            events: broadcast::Sender::new(EVENT_CAPACITY),
            counters: Counters::default(),
            verdicts: Verdicts::default(),
            epoch: AtomicU64::new(1),
            give_up_after,
            refusals: AtomicU32::new(0),
            parked: AtomicBool::new(false),
            connected: Notify::new(),
            lame_duck: watch::Sender::new(0),
            leaving: AtomicBool::new(false),
            slow_reported_at: AtomicI64::new(0),
            refusal_log: Limiter::default(),
            gap_events: Limiter::default(),
            refusals_by_reason: Mutex::default(),
        }
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<BusEvent> {
        self.events.subscribe()
    }

    pub(crate) fn emit(&self, event: BusEvent) {
        // Without a reader there is nobody to tell.
        let _ = self.events.send(event);
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn was_refused(&self) -> bool {
        self.refusals.load(Ordering::Acquire) > 0
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }

    /// No further attempt to reconnect is made.
    pub(crate) fn park(&self) {
        self.parked.store(true, Ordering::Release);
    }

    /// Why the client is closed, if it is.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        match &*self.status.borrow() {
            Status::Closed(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Calls the connection connected, if it is still the one that was confirmed.
    pub(crate) fn confirm(&self, epoch: u64) {
        let confirmed = self.status.send_if_modified(|status| {
            let change = *status == Status::Disconnected && self.epoch() == epoch;
            if change {
                // Before anyone is told, so that who was told finds them so.
                self.refusals.store(0, Ordering::Release);
                count(&self.counters.connects);
                *status = Status::Connected;
                self.up.store(true, Ordering::Release);
            }
            change
        });
        if confirmed {
            self.emit(BusEvent::Connected);
        }
    }

    /// Has calls wait from now on, as the connection is about to be left for one to another server, if it is still this one.
    /// Says whether it is.
    pub(crate) fn leave(&self, epoch: u64) -> bool {
        self.status.send_if_modified(|status| {
            let change = *status == Status::Connected && self.epoch() == epoch;
            if change {
                *status = Status::Disconnected;
                self.up.store(false, Ordering::Release);
                self.leaving.store(true, Ordering::Release);
            }
            change
        })
    }

    /// Whether the connection was left for one to another server, and that is not there yet.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    fn disconnected(&self) {
        self.status.send_if_modified(|status| {
            // Within the status's own lock, so that a confirmation in flight cannot overtake it.
            self.epoch.fetch_add(1, Ordering::AcqRel);
            let change = *status == Status::Connected;
            if change {
                *status = Status::Disconnected;
                self.up.store(false, Ordering::Release);
            }
            change
        });
        self.emit(BusEvent::Disconnected);
    }

    fn close(&self, reason: CloseReason) {
        let closed = self.status.send_if_modified(|status| {
            let change = !matches!(status, Status::Closed(_));
            if change {
                *status = Status::Closed(reason.clone());
                self.up.store(false, Ordering::Release);
            }
            change
        });
        if closed {
            self.emit(BusEvent::Closed(reason));
        }
    }

    fn refused(&self) {
        let refusals = self.refusals.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        tracing::warn!(target: "bus::security", principal = %self.principal, refusals, "the broker refuses this identity");
        self.emit(BusEvent::Refused);
        if self.give_up_after != 0 && refusals >= self.give_up_after {
            self.end(CloseReason::Refused);
        }
    }

    /// Closes for good, whatever the connection is doing.
    pub(crate) fn end(&self, reason: CloseReason) {
        self.park();
        self.close(reason);
        self.verdicts.end_all();
        // Whoever confirms connections ends one that is still there, or comes up after all.
        self.connected.notify_one();
    }

    fn denied(&self, denial: &Denial) {
        count(&self.counters.broker_denied);
        self.verdicts.record(denial);
        let principal = &self.principal;
        match denial {
            Denial::Publish(subject) => {
                tracing::warn!(target: "bus::security", %principal, %subject, "the broker denied a publish");
                self.emit(BusEvent::PublishDenied { subject: subject.clone() });
            }
            Denial::Subscribe(filter) => {
                tracing::warn!(target: "bus::security", %principal, %filter, "the broker denied a subscription");
                self.emit(BusEvent::SubscriptionDenied { filter: filter.clone() });
            }
            Denial::TooManySubscriptions => {
                tracing::warn!(%principal, "the broker allows no more subscriptions");
                self.emit(BusEvent::ServerError { text: "maximum subscriptions exceeded".into() });
            }
        }
    }

    /// A slow subscription drops messages one by one; one event a second is enough.
    pub(crate) fn slow_consumer(&self) {
        let now = unix_ms();
        let last = self.slow_reported_at.load(Ordering::Relaxed);
        if now.abs_diff(last) >= 1_000
            && self.slow_reported_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.emit(BusEvent::SlowConsumer);
        }
    }

    /// Messages that were accepted for sending could not be sent.
    pub(crate) fn unsent(&self, subject: &str, messages: usize, reason: &str) {
        add(&self.counters.unsent, messages as u64);
        tracing::warn!(%subject, messages, reason, "messages were not sent");
        self.emit(BusEvent::Unsent { subject: subject.to_owned(), messages, reason: reason.to_owned() });
    }

    /// How many messages were refused, by the reason.
    pub(crate) fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refusals_by_reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a refused message, and logs it unless that would be a flood.
    pub(crate) fn report(&self, subject: &str, rejected: &Rejected) {
        count(&self.counters.rejected);
        let mut by_reason = self.refusals_by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        *by_reason.entry(rejected.reason()).or_default() += 1;
        drop(by_reason);
        let Some(suppressed) = self.refusal_log.pass() else { return };
        tracing::warn!(
            target: "bus::security",
            %subject, reason = rejected.reason(), detail = %rejected, suppressed,
            "a message was refused"
        );
    }

    /// Tells of missed envelopes, unless that would be a flood: a peer chooses its numbers. The count is in the statistics.
    pub(crate) fn gap(&self, gap: &Gap) {
        if self.gap_events.pass().is_some() {
            self.emit(BusEvent::Gap(gap.clone()));
        }
    }

    pub(crate) fn on_event(&self, event: Event) {
        match event {
            Event::Connected => {
                self.epoch.fetch_add(1, Ordering::AcqRel);
                self.leaving.store(false, Ordering::Release);
                self.connected.notify_one();
            }
            Event::Disconnected => self.disconnected(),
            Event::Closed => self.close(CloseReason::Drained),
            Event::LameDuckMode => {
                self.lame_duck.send_replace(self.epoch());
                self.emit(BusEvent::LameDuck);
            }
            Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => self.slow_consumer(),
            Event::ServerError(ServerError::Other(text)) => match Denial::parse(&text) {
                Some(denial) => self.denied(&denial),
                None => self.emit(BusEvent::ServerError { text }),
            },
            Event::ClientError(ClientError::Other(text))
                if text == ConnectErrorKind::AuthorizationViolation.to_string() =>
            {
                self.refused();
            }
            // What else goes wrong with an attempt to connect is reported, in more words, before the next one. A refused
            // attempt is counted where async-nats reports it as its own error, above.
            Event::ClientError(_) | Event::ServerError(ServerError::AuthorizationViolation) | Event::Draining => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(give_up_after: u32) -> Shared {
        Shared::new("spiffe://td/agent/a".parse().unwrap(), give_up_after)
    }

    #[test]
    fn a_confirmation_of_a_connection_that_is_gone_changes_nothing() {
        let shared = shared(0);
        shared.on_event(Event::Connected);
        let epoch = shared.epoch();
        shared.on_event(Event::Disconnected);
        shared.confirm(epoch);
        assert_eq!(*shared.status.borrow(), Status::Disconnected);
        shared.confirm(shared.epoch());
        assert_eq!(*shared.status.borrow(), Status::Connected);
    }

    #[test]
    fn only_the_connection_to_a_lame_duck_is_left() {
        let shared = shared(0);
        shared.on_event(Event::Connected);
        shared.confirm(shared.epoch());
        shared.on_event(Event::LameDuckMode);
        let lame = *shared.lame_duck.borrow();
        shared.on_event(Event::Disconnected);
        shared.on_event(Event::Connected);
        shared.confirm(shared.epoch());
        assert!(!shared.leave(lame) && shared.is_connected() && !shared.is_leaving());
        assert!(shared.leave(shared.epoch()) && !shared.is_connected() && shared.is_leaving());
        shared.on_event(Event::Disconnected);
        shared.on_event(Event::Connected);
        assert!(!shared.is_leaving());
    }

    #[test]
    fn what_is_closed_stays_closed() {
        let shared = shared(1);
        shared.refused();
        assert_eq!(shared.closed(), Some(CloseReason::Refused));
        shared.on_event(Event::Connected);
        shared.confirm(shared.epoch());
        shared.close(CloseReason::Drained);
        assert_eq!(shared.closed(), Some(CloseReason::Refused));
    }

    #[test]
    fn a_flood_of_refusals_is_counted_in_full_and_logged_in_part() {
        let shared = shared(0);
        let logged = (0..1_000).filter(|_| shared.refusal_log.pass().is_some()).count();
        assert!(logged < 100, "{logged}");
        shared.report("s", &Rejected::TooLarge { size: 2, max: 1 });
        assert_eq!(shared.counters.snapshot().rejected, 1);
    }
}
