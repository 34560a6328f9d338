//! The connection: made, watched over, rotated and ended here.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{ClientError, ConnectErrorKind, Event, ServerError};
use bus_proto::prost::bytes::Bytes;
use bus_proto::subject::reply_prefix;
use bus_proto::{Principal, SubjectRoot};
use bus_tls::{Refresh, TlsIdentity};
use tokio::sync::{Mutex, Notify, broadcast, watch};
use tokio::time::timeout;

use crate::error::{ConnectError, DrainError};
use crate::inbound::{Gate, Rejected};
use crate::options::BusOptions;
use crate::outbound::Outlets;
use crate::probe::{AbortOnDrop, NoResponders};
use crate::request::Requests;
use crate::status::{BusEvent, CloseReason, Counters, Stats, Status, count};
use crate::verdict::{Before, Denial, Verdicts};

/// How many events wait for a reader of [`BusClient::events`] that is slow.
const EVENT_CAPACITY: usize = 256;

/// A connection to the bus, as one component. Cheap to clone; all clones share the connection.
///
/// Call [`BusClient::drain`] before the program ends: what was published but not yet sent is lost otherwise.
///
/// Dropping the last clone, and the subscriptions made from it, ends the connection.
#[derive(Clone)]
pub struct BusClient {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for BusClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusClient")
            .field("principal", &self.inner.shared.principal)
            .field("status", &*self.inner.shared.status.borrow())
            .finish_non_exhaustive()
    }
}

/// What the connection's own callbacks know. It does not own the connection, so that nothing keeps itself alive.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) principal: Principal,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) events: broadcast::Sender<BusEvent>,
    pub(crate) counters: Counters,
    pub(crate) verdicts: Verdicts,
    /// Counts reconnects, so that what was proven on one connection is proven anew on the next.
    pub(crate) epoch: AtomicU64,
    give_up_after: u32,
    refusals: AtomicU32,
    /// Set when no further attempt to reconnect may be made.
    parked: AtomicBool,
    connected: Notify,
    slow_reported_at: AtomicI64,
}

pub(crate) struct Inner {
    pub(crate) nats: async_nats::Client,
    pub(crate) shared: Arc<Shared>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) outlets: Outlets,
    pub(crate) requests: Requests,
    pub(crate) no_responders: NoResponders,
    pub(crate) identity: TlsIdentity,
    pub(crate) session: Bytes,
    pub(crate) operation_timeout: Duration,
    drain_timeout: Duration,
    max_payload: usize,
    _background: Mutex<Vec<AbortOnDrop>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.parked.store(true, Ordering::Release);
    }
}

/// The time, in Unix milliseconds.
pub(crate) fn unix_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Fills an array with random bytes from the system.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok().map(|()| bytes)
}

impl BusClient {
    /// Connects, and returns after one authenticated round trip with the broker.
    ///
    /// # Errors
    ///
    /// When no server answers, the TLS handshake fails, or the server refuses this component; each has its own
    /// [`ConnectError`].
    pub async fn connect(options: BusOptions) -> Result<Self, ConnectError> {
        let servers = options.servers.iter().map(|url| address(url)).collect::<Result<Vec<_>, _>>()?;
        let shown = options.servers.join(", ");
        let principal = options.identity.principal();
        let session: [u8; 32] = random().ok_or(ConnectError::Randomness)?;
        let shared = Arc::new(Shared {
            principal: principal.clone(),
            status: watch::Sender::new(Status::Disconnected),
            events: broadcast::Sender::new(EVENT_CAPACITY),
            counters: Counters::default(),
            verdicts: Verdicts::default(),
            epoch: AtomicU64::new(1),
            give_up_after: options.give_up_after_refusals,
            refusals: AtomicU32::new(0),
            parked: AtomicBool::new(false),
            connected: Notify::new(),
            slow_reported_at: AtomicI64::new(0),
        });
        let nats = connect_options(&options, &shared)
            .connect(servers)
            .await
            .map_err(|error| connect_error(&error, &shown, &principal, options.connect_timeout))?;
        let client = Self::assemble(options, nats, shared, session, &shown).await?;
        client.first_round_trip(&shown).await?;
        Ok(client)
    }

    async fn assemble(
        options: BusOptions,
        nats: async_nats::Client,
        shared: Arc<Shared>,
        session: [u8; 32],
        shown: &str,
    ) -> Result<Self, ConnectError> {
        let timed_out =
            || ConnectError::TimedOut { servers: shown.to_owned(), timeout_ms: options.operation_timeout.as_millis() };
        // The private reply subjects of two processes of one component must not meet.
        let prefix = format!("{}.{}", reply_prefix(&shared.principal.endpoint), hex(&session[..8]));
        let replies = timeout(options.operation_timeout, nats.subscribe(format!("{prefix}.*"))).await;
        let replies = replies.map_err(|_| timed_out())?.map_err(|_| timed_out())?;
        let gate = Gate {
            receiver: shared.principal.clone(),
            root: options.root,
            policy: Arc::new(options.policy.for_domain(shared.principal.trust_domain.clone())),
            registry: options.registry,
            max_payload: options.max_payload,
            skew_ms: i64::try_from(options.clock_skew.as_millis()).unwrap_or(i64::MAX),
        };
        let client = Self {
            inner: Arc::new(Inner {
                nats,
                shared,
                gate: Arc::new(gate),
                outlets: Outlets::default(),
                requests: Requests::default(),
                no_responders: NoResponders::new(prefix, replies),
                identity: options.identity,
                session: Bytes::copy_from_slice(&session),
                operation_timeout: options.operation_timeout,
                drain_timeout: options.drain_timeout,
                max_payload: options.max_payload,
                _background: Mutex::default(),
            }),
        };
        let weak = Arc::downgrade(&client.inner);
        let keep = Arc::clone(&client.inner.shared);
        let tasks = vec![
            AbortOnDrop(tokio::spawn(confirm_connections(weak.clone(), keep))),
            AbortOnDrop(tokio::spawn(watch_identity(weak, options.rotation_check))),
        ];
        client.inner._background.lock().await.extend(tasks);
        Ok(client)
    }

    async fn first_round_trip(&self, servers: &str) -> Result<(), ConnectError> {
        let inner = &self.inner;
        let subject = inner.probe_subject();
        // Any denial counts, the first one too: nothing was published there before.
        let before = Before::NONE;
        // The round trip itself is made by `confirm_connections`, as after every later connect.
        let mut status = self.status();
        let confirmed = tokio::select! {
            confirmed = timeout(inner.operation_timeout, status.wait_for(|status| *status == Status::Connected)) => confirmed,
            () = inner.shared.verdicts.publish_denial(&subject, before) => {
                return Err(ConnectError::ProbeDenied { principal: inner.shared.principal.clone(), subject });
            }
        };
        if confirmed.is_ok_and(|confirmed| confirmed.is_ok()) {
            return Ok(());
        }
        if matches!(*inner.shared.status.borrow(), Status::Closed(CloseReason::Refused))
            || inner.shared.refusals.load(Ordering::Acquire) > 0
        {
            return Err(ConnectError::Refused { principal: inner.shared.principal.clone() });
        }
        Err(ConnectError::TimedOut { servers: servers.to_owned(), timeout_ms: inner.operation_timeout.as_millis() })
    }

    /// Who this client is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.inner.shared.principal
    }

    /// The root of this bus's subjects.
    #[must_use]
    pub fn root(&self) -> &SubjectRoot {
        &self.inner.gate.root
    }

    /// The state of the connection, now and as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.shared.status.subscribe()
    }

    /// What happens to the connection from now on. A reader that falls 256 events behind misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<BusEvent> {
        self.inner.shared.events.subscribe()
    }

    /// Counts since the client was made.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.shared.counters.snapshot()
    }

    /// The largest encoded message that can be published now, in bytes: the smaller of the configured bound and the
    /// server's.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.inner.max_payload()
    }

    /// Waits until the broker has handled everything published before.
    ///
    /// Returns whether it answered within the operation timeout.
    pub async fn flush(&self) -> bool {
        self.inner.round_trip().await
    }

    /// Looks at the certificate files now, and reconnects when they were rotated. The client does so by itself from
    /// time to time; this is for a program that was told.
    ///
    /// # Errors
    ///
    /// When the files changed to something unusable; the former certificate stays in use.
    pub async fn refresh_identity(&self) -> Result<Refresh, bus_tls::TlsError> {
        self.inner.refresh_identity().await
    }

    /// Sends what is waiting, stops the subscriptions after what already arrived, and closes.
    ///
    /// # Errors
    ///
    /// When that does not end within the drain timeout.
    pub async fn drain(&self) -> Result<(), DrainError> {
        let inner = &self.inner;
        let limit = inner.drain_timeout;
        let timed_out = || DrainError::TimedOut { timeout_ms: limit.as_millis() };
        let mut status = self.status();
        if matches!(*status.borrow(), Status::Closed(_)) {
            return Ok(());
        }
        let ended = timeout(limit, async {
            inner.nats.drain().await.ok()?;
            status.wait_for(|status| matches!(status, Status::Closed(_))).await.ok().map(|_| ())
        })
        .await;
        inner.shared.parked.store(true, Ordering::Release);
        inner.shared.close(CloseReason::Drained);
        ended.ok().flatten().ok_or_else(timed_out)
    }
}

impl Inner {
    pub(crate) fn probe_subject(&self) -> String {
        self.gate.root.probe(&self.shared.principal.endpoint)
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.max_payload.min(self.nats.max_payload())
    }

    /// Whether the broker answered within the operation timeout.
    pub(crate) async fn round_trip(&self) -> bool {
        let mut awaited = self.no_responders.expect();
        timeout(self.operation_timeout, async {
            let sent = self.nats.publish_with_reply(self.probe_subject(), awaited.reply.clone(), Bytes::new()).await;
            if sent.is_err() {
                return false;
            }
            awaited.arrived().await;
            true
        })
        .await
        .unwrap_or(false)
    }

    /// Why the client is closed, if it is.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        match &*self.shared.status.borrow() {
            Status::Closed(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    async fn refresh_identity(&self) -> Result<Refresh, bus_tls::TlsError> {
        let identity = self.identity.clone();
        let refreshed = tokio::task::spawn_blocking(move || identity.refresh()).await;
        let refresh = match refreshed {
            Ok(Ok(refresh)) => refresh,
            Ok(Err(error)) => {
                self.shared.emit(BusEvent::RotationFailed { reason: error.to_string() });
                return Err(error);
            }
            // The runtime is shutting down; the next check, if there is one, will see the same files.
            Err(_) => return Ok(Refresh::Unchanged),
        };
        if refresh == Refresh::Rotated {
            self.shared.emit(BusEvent::IdentityRotated);
            // Fails only when the connection's task is gone, and then there is nothing to reconnect.
            let _ = self.nats.force_reconnect().await;
        }
        Ok(refresh)
    }
}

impl Shared {
    pub(crate) fn emit(&self, event: BusEvent) {
        // Without a reader there is nobody to tell.
        let _ = self.events.send(event);
    }

    fn set_status(&self, status: Status) {
        self.status.send_if_modified(|current| {
            let change = *current != status && !matches!(current, Status::Closed(_));
            if change {
                *current = status;
            }
            change
        });
    }

    fn close(&self, reason: CloseReason) {
        if !matches!(*self.status.borrow(), Status::Closed(_)) {
            self.set_status(Status::Closed(reason.clone()));
            self.emit(BusEvent::Closed(reason));
        }
    }

    fn refused(&self) {
        let refusals = self.refusals.fetch_add(1, Ordering::AcqRel) + 1;
        tracing::warn!(target: "bus::security", principal = %self.principal, refusals, "the broker refuses this identity");
        self.emit(BusEvent::Refused);
        if self.give_up_after != 0 && refusals >= self.give_up_after {
            self.parked.store(true, Ordering::Release);
            self.close(CloseReason::Refused);
        }
    }

    fn denied(&self, denial: &Denial) {
        count(&self.counters.broker_denied);
        self.verdicts.record(denial);
        match denial {
            Denial::Publish(subject) => {
                tracing::warn!(target: "bus::security", principal = %self.principal, %subject, "the broker denied a publish");
                self.emit(BusEvent::PublishDenied { subject: subject.clone() });
            }
            Denial::Subscribe(filter) => {
                tracing::warn!(target: "bus::security", principal = %self.principal, %filter, "the broker denied a subscription");
                self.emit(BusEvent::SubscriptionDenied { filter: filter.clone() });
            }
        }
    }

    /// async-nats reports every single message that it drops; one event a second is enough.
    fn slow_consumer(&self) {
        let now = unix_ms();
        let last = self.slow_reported_at.load(Ordering::Relaxed);
        if now.saturating_sub(last) >= 1_000
            && self.slow_reported_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.emit(BusEvent::SlowConsumer);
        }
    }

    /// Counts and logs a refused message.
    pub(crate) fn report(&self, subject: &str, rejected: &Rejected) {
        count(&self.counters.rejected);
        tracing::warn!(
            target: "bus::security",
            %subject, reason = rejected.reason(), detail = %rejected,
            "a message was refused"
        );
    }

    fn on_event(&self, event: Event) {
        match event {
            Event::Connected => {
                self.epoch.fetch_add(1, Ordering::AcqRel);
                self.connected.notify_one();
            }
            Event::Disconnected => {
                self.set_status(Status::Disconnected);
                self.emit(BusEvent::Disconnected);
            }
            Event::Closed => self.close(CloseReason::Drained),
            Event::LameDuckMode => self.emit(BusEvent::LameDuck),
            Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => {
                self.slow_consumer();
            }
            // A refused attempt to connect is counted where async-nats reports it as its own error, below.
            Event::ServerError(ServerError::AuthorizationViolation) => {}
            Event::ServerError(ServerError::Other(text)) => match Denial::parse(&text) {
                Some(denial) => self.denied(&denial),
                None => self.emit(BusEvent::ServerError { text }),
            },
            Event::ClientError(ClientError::Other(text)) => {
                if text == ConnectErrorKind::AuthorizationViolation.to_string() {
                    self.refused();
                } else {
                    self.emit(BusEvent::ReconnectFailed { reason: text });
                }
            }
            Event::Draining | Event::ClientError(_) => {}
        }
    }
}

/// After every connect: one round trip, and only then is the connection called connected.
async fn confirm_connections(inner: Weak<Inner>, shared: Arc<Shared>) {
    loop {
        shared.connected.notified().await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.round_trip().await {
            shared.refusals.store(0, Ordering::Release);
            count(&shared.counters.connects);
            shared.set_status(Status::Connected);
            shared.emit(BusEvent::Connected);
        }
    }
}

async fn watch_identity(inner: Weak<Inner>, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        // What is wrong with the files was reported as an event already.
        let _ = inner.refresh_identity().await;
    }
}

/// The server's address in the one form that async-nats is given.
fn address(url: &str) -> Result<async_nats::ServerAddr, ConnectError> {
    let refused = || ConnectError::Address { url: url.to_owned() };
    let host_and_port = match url.split_once("://") {
        Some(("tls", rest)) => rest,
        Some(_) => return Err(refused()),
        None => url,
    };
    if host_and_port.is_empty() || host_and_port.contains(['@', '/', '?', '#']) {
        return Err(refused());
    }
    format!("tls://{host_and_port}").parse().map_err(|_| refused())
}

fn connect_options(options: &BusOptions, shared: &Arc<Shared>) -> async_nats::ConnectOptions {
    let on_event = Arc::clone(shared);
    let parked = Arc::downgrade(shared);
    let max_delay = options.reconnect_max_delay;
    async_nats::ConnectOptions::new()
        .tls_client_config((*options.identity.client_config()).clone())
        .require_tls(true)
        .tls_first()
        .name(shared.principal.endpoint.to_string())
        .connection_timeout(options.connect_timeout)
        .ignore_discovered_servers()
        .custom_inbox_prefix(reply_prefix(&shared.principal.endpoint))
        .subscription_capacity(options.subscription_capacity.max(1))
        .reconnect_delay_callback(move |attempt| reconnect_delay(attempt, max_delay))
        .reconnect_to_server_callback(move |_, _| {
            // async-nats cannot be told to stop reconnecting. A callback that never answers does it: the connection's
            // task then waits for ever, and holds nothing but its own memory.
            let park = parked.upgrade().is_none_or(|shared| shared.parked.load(Ordering::Acquire));
            async move { if park { std::future::pending().await } else { None } }
        })
        .event_callback(move |event| {
            on_event.on_event(event);
            async {}
        })
}

/// Full jitter over an exponential: from 50 ms doubling to `max`, spread evenly over the upper half.
fn reconnect_delay(attempt: usize, max: Duration) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let exponent = u32::try_from(attempt - 2).unwrap_or(u32::MAX).min(16);
    let ceiling = Duration::from_millis(50).saturating_mul(1 << exponent).min(max);
    let share = random::<4>().map_or(1.0, |bytes| f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX));
    ceiling.mul_f64(0.5 + share / 2.0)
}

fn connect_error(
    error: &async_nats::ConnectError,
    servers: &str,
    principal: &Principal,
    limit: Duration,
) -> ConnectError {
    let servers = servers.to_owned();
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => ConnectError::Refused { principal: principal.clone() },
        ConnectErrorKind::TimedOut => ConnectError::TimedOut { servers, timeout_ms: limit.as_millis() },
        _ => match tls_reason(error) {
            Some(reason) => ConnectError::Handshake { servers, reason },
            None => ConnectError::Unreachable { servers, reason: innermost(error) },
        },
    }
}

/// What rustls says, where the failure is one of TLS. The server's own refusal of a client certificate arrives as an
/// alert on the first read (RFC 8446, section 4.4.2.4).
fn tls_reason(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls.to_string());
        }
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(tls) = inside.and_then(|inside| inside.downcast_ref::<rustls::Error>()) {
            return Some(tls.to_string());
        }
        current = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_with_tls_are_accepted() {
        for good in ["tls://localhost:4222", "localhost:4222", "tls://127.0.0.1:4222", "tls://[::1]:4222"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["nats://localhost:4222", "ws://a:1", "wss://a:1", "http://a:1", "", "tls://", "tls://u:p@a:1"] {
            assert!(matches!(address(bad), Err(ConnectError::Address { .. })), "{bad}");
        }
    }

    #[test]
    fn reconnects_are_spread_and_bounded() {
        let max = Duration::from_secs(30);
        assert_eq!(reconnect_delay(1, max), Duration::ZERO);
        for attempt in 2..100 {
            let delay = reconnect_delay(attempt, max);
            assert!(delay >= Duration::from_millis(25) && delay <= max, "{attempt}: {delay:?}");
        }
        assert!(reconnect_delay(usize::MAX, max) >= max / 2);
        let delays: std::collections::HashSet<_> = (0..100).map(|_| reconnect_delay(10, max)).collect();
        assert!(delays.len() > 50, "no jitter: {}", delays.len());
    }
}
