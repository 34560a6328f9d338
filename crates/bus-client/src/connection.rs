//! The client: how it is made, what it says of itself, and how it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bus_acl::{Sealing, Source};
use bus_proto::prost::bytes::Bytes;
use bus_proto::subject::reply_prefix;
use bus_proto::{Principal, SubjectRoot};
use bus_tls::{Refresh, TlsIdentity};
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use crate::backlog::Bounds;
use crate::dial::{address, connect_error, connect_options};
use crate::error::{ConnectError, DrainError, PublishError};
use crate::handler::ServerControl;
use crate::inbound::{Gate, KeyRing, LookUps};
use crate::lame_duck::leave_lame_ducks;
use crate::options::BusOptions;
use crate::outbound::{BatchBounds, Forms, Outlets, Ready, dispatch};
use crate::probe::{AbortOnDrop, Replies};
use crate::request::Requests;
use crate::rotation::keep_bundle_stored;
use crate::sealing::{Directory, OwnSealing, keep_sealing_key_published};
use crate::shared::Shared;
use crate::signer::Signer;
use crate::status::{BusEvent, CloseReason, Stats, Status};
use crate::time::millis;
use crate::verdict::Moment;

/// The most that the tag and the length of a bundle take, in bytes.
const BUNDLE_FRAMING: usize = 5;

/// What receivers take at least, unless they were told otherwise, in bytes. A sender that may send larger messages does not
/// make larger batches of small ones.
pub(crate) const COMMON_MAX_PAYLOAD: usize = 256 * 1024;

/// A connection to the bus, as one component. Cheap to clone; all clones share the connection.
///
/// While the connection is known to be down, calls wait for it for at most the operation timeout and then fail: nothing is
/// kept back to be sent later. What was handed over just before the loss was noticed may be lost, or sent afterwards.
///
/// Its futures are polled within a tokio runtime that has its timers enabled. Subscriptions can be read anywhere.
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

pub(crate) struct Inner {
    pub(crate) nats: async_nats::Client,
    pub(crate) shared: Arc<Shared>,
    pub(crate) gate: Arc<Gate>,
    /// Our own SPIFFE ID.
    pub(crate) own_id: String,
    pub(crate) forms: Forms,
    pub(crate) sealing: OwnSealing,
    pub(crate) outlets: Outlets,
    pub(crate) requests: Requests,
    pub(crate) replies: Replies,
    pub(crate) identity: TlsIdentity,
    pub(crate) signer: Arc<Signer>,
    pub(crate) store_bundles: bool,
    pub(crate) stream_replicas: Option<NonZeroU8>,
    pub(crate) look_ups: LookUps,
    pub(crate) directory: Directory,
    pub(crate) ready: Arc<Ready>,
    pub(crate) max_batch: usize,
    /// Whether there are several servers, between which components move.
    pub(crate) has_choice: bool,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) operation_timeout: Duration,
    pub(crate) bounds: Bounds,
    /// The command servers that a drain ends first.
    pub(crate) servers: Mutex<Vec<ServerControl>>,
    draining: tokio::sync::Mutex<()>,
    drain_timeout: Duration,
    max_payload: usize,
    background: Mutex<Vec<AbortOnDrop>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.park();
    }
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
        let addresses = options.servers.iter().map(|url| address(url)).collect::<Result<Vec<_>, _>>()?;
        let servers = options.servers.join(", ");
        let principal = options.identity.principal();
        let shared = Arc::new(Shared::new(principal.clone(), options.give_up_after_refusals));
        // async-nats bounds each attempt, but not the name look-up before it.
        let attempts = u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
        let limit = options.connect_timeout.saturating_mul(attempts);
        let nats = match timeout(limit, connect_options(&options, &shared).connect(addresses)).await {
            Ok(connected) => {
                connected.map_err(|error| connect_error(&error, &servers, &principal, options.connect_timeout))?
            }
            Err(_) => return Err(ConnectError::TimedOut { servers, timeout_ms: limit.as_millis() }),
        };
        let client = Self::assemble(options, nats, shared, &servers).await?;
        client.first_round_trip(servers).await?;
        Ok(client)
    }

    async fn assemble(
        options: BusOptions,
        nats: async_nats::Client,
        shared: Arc<Shared>,
        servers: &str,
    ) -> Result<Self, ConnectError> {
        let timed_out = || ConnectError::TimedOut {
            servers: servers.to_owned(),
            timeout_ms: options.operation_timeout.as_millis(),
        };
        let skew_ms = millis(options.clock_skew);
        let signer = Arc::new(Signer::new(options.identity.clone(), options.signing_key_age, skew_ms)?);
        let session: [u8; 8] = random().ok_or(ConnectError::Randomness)?;
        // The private reply subjects of two processes of one component must not meet.
        let prefix = format!("{}.{}", reply_prefix(&shared.principal.endpoint), hex(&session));
        let replies = timeout(options.operation_timeout, nats.subscribe(format!("{prefix}.*"))).await;
        let replies = replies.map_err(|_| timed_out())?.map_err(|_| timed_out())?;
        let own_id = shared.principal.spiffe_id();
        let gate = Gate {
            receiver: shared.principal.clone(),
            own_id: own_id.clone(),
            own_keys: options.sealing_keys.map(OnceLock::from).unwrap_or_default(),
            root: options.root,
            policy: options.policy.for_domain(shared.principal.trust_domain.clone()),
            registry: options.registry,
            max_payload: options.max_payload,
            skew_ms,
            ring: KeyRing::new(options.identity.clone()),
        };
        let ready = Arc::<Ready>::default();
        let inner = Arc::new(Inner {
            nats,
            shared: Arc::clone(&shared),
            gate: Arc::new(gate),
            own_id,
            forms: options.forms,
            sealing: OwnSealing::new(options.sealing_keys_file, &options.identity, options.sealing_key_age),
            outlets: Outlets::default(),
            requests: Requests::default(),
            replies: Replies::new(prefix, replies),
            identity: options.identity,
            signer: Arc::clone(&signer),
            store_bundles: options.store_bundles,
            stream_replicas: options.stream_replicas,
            look_ups: LookUps::default(),
            directory: Directory::new(options.sealing_key_refresh),
            ready: Arc::clone(&ready),
            max_batch: options.max_batch.clamp(1, bus_crypto::MAX_MEMBERS),
            has_choice: options.servers.len() > 1,
            runtime: tokio::runtime::Handle::current(),
            operation_timeout: options.operation_timeout,
            bounds: Bounds { messages: options.subscription_capacity, bytes: options.subscription_bytes },
            servers: Mutex::default(),
            draining: tokio::sync::Mutex::default(),
            drain_timeout: options.drain_timeout,
            max_payload: options.max_payload,
            background: Mutex::default(),
        });
        let tasks = [
            AbortOnDrop(tokio::spawn(confirm_connections(Arc::downgrade(&inner), Arc::clone(&shared)))),
            AbortOnDrop(tokio::spawn(watch_identity(Arc::downgrade(&inner), options.rotation_check))),
            AbortOnDrop(tokio::spawn(dispatch(Arc::downgrade(&inner), ready))),
            AbortOnDrop(tokio::spawn(keep_bundle_stored(Arc::downgrade(&inner), signer))),
            AbortOnDrop(tokio::spawn(keep_sealing_key_published(Arc::downgrade(&inner)))),
        ];
        // Who knows one server alone has nowhere else to go.
        let leaving = inner.has_choice.then(|| {
            AbortOnDrop(tokio::spawn(leave_lame_ducks(Arc::downgrade(&inner), shared, options.reconnect_max_delay)))
        });
        inner.background.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks.into_iter().chain(leaving));
        let (policy, root) = (&inner.gate.policy, &inner.gate.root);
        if [Source::Events, Source::Inbox].iter().any(|from| policy.kept(root, *from).is_some()) {
            tracing::warn!(
                principal = %inner.shared.principal,
                "the policy makes messages durable: streams keep them, and this client delivers and reads them live alone"
            );
        }
        for rule in policy.forms().iter().filter(|rule| rule.sealing() == Some(Sealing::Off)) {
            tracing::warn!(
                target: "bus::security",
                principal = %inner.shared.principal, %rule,
                "a rule of the policy has messages go unsealed: whoever hosts the broker can read them"
            );
        }
        if !inner.forms.seal_directed {
            tracing::warn!(
                target: "bus::security",
                principal = %inner.shared.principal,
                "directed messages are not sealed, as this client was told, but where the policy demands it: whoever \
                 hosts the broker can read them"
            );
        }
        Ok(Self { inner })
    }

    /// Waits for the round trip that `confirm_connections` makes after every connect.
    async fn first_round_trip(&self, servers: String) -> Result<(), ConnectError> {
        let inner = &self.inner;
        let (subject, principal) = (inner.probe_subject(), inner.shared.principal.clone());
        let mut status = self.status();
        let confirmed = tokio::select! {
            confirmed = timeout(inner.operation_timeout, status.wait_for(|status| *status == Status::Connected)) => {
                confirmed.is_ok_and(|confirmed| confirmed.is_ok())
            }
            () = inner.shared.verdicts.publish_denial(&subject, Moment::default()) => {
                return Err(ConnectError::ProbeDenied { principal, subject });
            }
        };
        match (confirmed, inner.shared.was_refused()) {
            (true, _) => Ok(()),
            (false, true) => Err(ConnectError::Refused { principal }),
            (false, false) => Err(ConnectError::TimedOut { servers, timeout_ms: inner.operation_timeout.as_millis() }),
        }
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

    /// Whether the connection is up, and a round trip succeeded on it.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.shared.is_connected()
    }

    /// The state of the connection, now and as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.shared.status.subscribe()
    }

    /// What happens to the connection from now on. A reader that falls 256 events behind misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<BusEvent> {
        self.inner.shared.events()
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

    /// Waits until the broker has handled everything that was published before on this connection.
    ///
    /// # Errors
    ///
    /// When the connection is down or goes down meanwhile, messages that waited could not be sent, the broker does not answer
    /// within the operation timeout, or the client is closed.
    pub async fn flush(&self) -> Result<(), PublishError> {
        let inner = &self.inner;
        inner.wait_until_up().await?;
        let epoch = inner.shared.epoch();
        let unsent = self.stats().unsent;
        if timeout(inner.operation_timeout, inner.all_handed_over()).await.is_err() {
            return Err(inner.not_taken());
        }
        match self.stats().unsent.saturating_sub(unsent) {
            0 => {}
            messages => return Err(PublishError::Unsent { messages }),
        }
        if !inner.round_trip().await {
            return Err(inner.not_taken());
        }
        if inner.shared.epoch() != epoch {
            return Err(PublishError::Disconnected { timeout_ms: 0 });
        }
        Ok(())
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

    /// How many messages were refused since the client was made, by the reason ([`Rejected::reason`]).
    ///
    /// [`Rejected::reason`]: crate::Rejected::reason
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.inner.shared.refusals()
    }

    /// Ends well: lets command servers answer what they have at hand, sends what is waiting, stops the subscriptions
    /// after what already arrived, and closes.
    ///
    /// # Errors
    ///
    /// When that does not end within the drain timeout. The client is closed then, too.
    pub async fn drain(&self) -> Result<(), DrainError> {
        let inner = &self.inner;
        let drained = timeout(inner.drain_timeout, inner.drain()).await;
        if drained.is_ok_and(|drained| drained) {
            return Ok(());
        }
        inner.shared.end(CloseReason::Drained);
        Err(DrainError::TimedOut { timeout_ms: inner.drain_timeout.as_millis() })
    }
}

impl Inner {
    pub(crate) fn probe_subject(&self) -> String {
        self.gate.root.probe(&self.shared.principal.endpoint)
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.max_payload.min(self.nats.max_payload())
    }

    /// What bounds a batch now, whose envelope takes `rest` bytes besides its members and a bundle. It must fit into what the
    /// server and receivers take, and leaves room for a bundle where that is the lesser part.
    pub(crate) fn batch_bounds(&self, rest: usize) -> BatchBounds {
        let room = self.max_payload().min(COMMON_MAX_PAYLOAD).saturating_sub(rest);
        let beside_bundle = room.saturating_sub(self.signer.bundle_len() + BUNDLE_FRAMING);
        BatchBounds { members: self.max_batch, len: if beside_bundle >= room / 2 { beside_bundle } else { room } }
    }

    /// Whether the broker answered within the operation timeout.
    pub(crate) async fn round_trip(&self) -> bool {
        let Some(mut awaited) = self.replies.expect() else { return false };
        timeout(self.operation_timeout, async {
            let sent =
                self.nats.publish_with_reply(self.probe_subject(), awaited.reply().to_owned(), Bytes::new()).await;
            if sent.is_err() {
                // It fails only when the connection's task is gone.
                self.shared.end(CloseReason::Ended);
                return false;
            }
            awaited.arrived().await;
            true
        })
        .await
        .unwrap_or(false)
    }

    /// Waits for the connection to be up, for at most the operation timeout. Says whether it is.
    pub(crate) async fn is_up(&self) -> bool {
        if self.shared.is_connected() {
            return true;
        }
        let mut status = self.shared.status.subscribe();
        let decided = timeout(self.operation_timeout, status.wait_for(|status| *status != Status::Disconnected)).await;
        decided.is_ok_and(|decided| decided.is_ok_and(|status| *status == Status::Connected))
    }

    /// Whether everything was handled, and the connection is closed.
    async fn drain(&self) -> bool {
        // One after the other: who comes second finds it done.
        let _turn = self.draining.lock().await;
        if self.shared.closed().is_some() {
            return true;
        }
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        servers.iter().for_each(ServerControl::tell);
        for server in servers {
            server.over().await;
        }
        if !self.is_up().await {
            return false;
        }
        self.all_handed_over().await;
        // Everything that was published has been handled by the broker before the connection goes.
        let handled = self.round_trip().await;
        self.shared.park();
        if self.nats.drain().await.is_err() {
            self.shared.end(CloseReason::Ended);
            return false;
        }
        let mut status = self.shared.status.subscribe();
        // The status is this client's own and cannot end before it.
        let _ = status.wait_for(|status| matches!(status, Status::Closed(_))).await;
        handled
    }

    async fn refresh_identity(&self) -> Result<Refresh, bus_tls::TlsError> {
        let (identity, before) = (self.identity.clone(), self.identity.generation());
        // An error means that the runtime is shutting down; the next check, if there is one, will see the same files.
        let refreshed = tokio::task::spawn_blocking(move || identity.refresh()).await.unwrap_or(Ok(Refresh::Unchanged));
        if let Err(error) = &refreshed {
            self.shared.emit(BusEvent::RotationFailed { reason: error.to_string() });
        }
        // One file may be bad and another be in use already: a new revocation list, beside a certificate that expired.
        if self.identity.generation() != before {
            self.shared.emit(BusEvent::IdentityRotated);
            self.renew_signing_key().await;
            // A record of the sealing key ends with the certificate that vouches for it.
            self.renew_sealing_record().await;
            // It waits only while more than the connection takes is waiting, and fails only when the connection's task is
            // gone: then the next handshake will do.
            let _ = timeout(self.operation_timeout, self.nats.force_reconnect()).await;
        }
        refreshed
    }
}

/// After every connect: round trips until one succeeds, and only then is the connection called connected.
async fn confirm_connections(inner: Weak<Inner>, shared: Arc<Shared>) {
    loop {
        shared.connected.notified().await;
        loop {
            let Some(inner) = inner.upgrade() else { return };
            let epoch = shared.epoch();
            if shared.closed().is_some() {
                // Closed, but the connection lives on: an attempt that was under way succeeded, or draining was cut short.
                let _ = inner.nats.drain().await;
                return;
            }
            if inner.round_trip().await {
                shared.confirm(epoch);
            }
            if shared.is_connected() || shared.epoch() != epoch {
                break;
            }
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
        inner.renew_signing_key().await;
        inner.renew_sealing_key().await;
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
