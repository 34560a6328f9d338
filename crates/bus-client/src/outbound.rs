//! The way out: policy, envelope, bounds, and only then the connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bus_acl::{Action, Permit};
use bus_proto::prost::Message as _;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{Authentication, Envelope};
use bus_proto::{Destination, Endpoint, EnvelopeError, IntoEnvelope, MessageType, Principal};
use tokio::time::timeout;

use crate::connection::{BusClient, Inner, random, unix_ms};
use crate::error::PublishError;
use crate::inbound::{Received, sha256};
use crate::status::count;
use crate::verdict::Moment;

/// One subject that this client publishes to.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) subject: String,
    /// The last sequence given out. Held while a message is handed to the connection, so that sequences reach the wire
    /// in their order.
    sequence: tokio::sync::Mutex<u64>,
    proof: Arc<Proof>,
}

/// That the broker was seen to accept one type, as events or into inboxes. It holds for one connection, and only until
/// the broker denies one of its subjects.
#[derive(Debug, Default)]
struct Proof {
    /// The connection on which it was given.
    epoch: AtomicU64,
    /// The number of the latest denial, of anything, when it was given.
    moment: AtomicU64,
    /// The number of the latest denial of one of its own subjects.
    denied_at: Arc<AtomicU64>,
}

impl Proof {
    fn holds(&self, epoch: u64) -> bool {
        self.epoch.load(Ordering::Acquire) == epoch
            && self.denied_at.load(Ordering::Acquire) <= self.moment.load(Ordering::Acquire)
    }

    fn give(&self, epoch: u64, moment: Moment) {
        self.moment.store(moment.0, Ordering::Release);
        self.epoch.store(epoch, Ordering::Release);
    }
}

/// Every subject published to so far: one entry per type, and per destination and type.
#[derive(Debug, Default)]
pub(crate) struct Outlets(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    outlets: HashMap<(Destination, Option<MessageType>), Arc<Outlet>>,
    proofs: HashMap<(bool, Option<MessageType>), Arc<Proof>>,
}

impl Outlets {
    fn open(&self, inner: &Inner, permit: &Permit<'_>) -> Arc<Outlet> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let request = permit.request();
        let key = (request.destination.clone(), request.message_type.cloned());
        if let Some(outlet) = table.outlets.get(&key) {
            return Arc::clone(outlet);
        }
        let is_event = matches!(key.0, Destination::Events);
        let proof = Arc::clone(table.proofs.entry((is_event, key.1.clone())).or_default());
        let subject = permit.subject(&inner.gate.root);
        inner.shared.verdicts.tell(&subject, &proof.denied_at);
        let outlet = Arc::new(Outlet { subject, sequence: tokio::sync::Mutex::new(0), proof });
        table.outlets.insert(key, Arc::clone(&outlet));
        outlet
    }
}

/// A message that passed every check of this side and can be handed to the connection.
pub(crate) struct Prepared {
    outlet: Arc<Outlet>,
    envelope: Envelope,
}

impl BusClient {
    /// Publishes an event: a payload, or an envelope made with [`BusClient::envelope`] whose further fields are set.
    ///
    /// The first publish of a type on a connection waits for the broker's verdict; later ones return as soon as the
    /// connection took the message. Should the broker deny one of those, because its configuration changed meanwhile,
    /// that is an event and a count, and the next publish waits for a verdict again.
    ///
    /// # Errors
    ///
    /// [`PublishError::Denied`] when the policy denies it: nothing was sent, and a security warning was logged. Others
    /// when the envelope is invalid or too large, or the connection is not up, or does not take it, within the operation
    /// timeout.
    pub async fn publish(&self, message: impl IntoEnvelope) -> Result<(), PublishError> {
        self.inner.publish(&Destination::Events, message).await
    }

    /// Sends a message to one component alone.
    ///
    /// # Errors
    ///
    /// As [`BusClient::publish`]. That nobody is connected there is no error; use [`BusClient::request`] to know.
    pub async fn send(&self, to: &Endpoint, message: impl IntoEnvelope) -> Result<(), PublishError> {
        self.inner.publish(&Destination::Inbox(to.clone()), message).await
    }

    /// Answers a directed message: its sender's [`BusClient::request`] returns with this.
    ///
    /// # Errors
    ///
    /// As [`BusClient::publish`], and [`PublishError::NotARequest`] for an event, which has no one answer.
    pub async fn reply<T>(&self, to: &Received<T>, message: impl IntoEnvelope) -> Result<(), PublishError> {
        let digest = to.digest().ok_or(PublishError::NotARequest)?;
        let mut envelope = self.envelope(message)?;
        envelope.correlation_id = Bytes::copy_from_slice(&digest);
        self.send(&to.sender().endpoint, envelope).await
    }

    /// Makes an envelope with this client's name, the time and a fresh identifier, to set further fields before it is
    /// published: expiry, priority, tags, trace context.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn envelope(&self, message: impl IntoEnvelope) -> Result<Envelope, PublishError> {
        let random = random().ok_or(PublishError::Randomness)?;
        Ok(message.into_envelope(self.inner.shared.principal.component(), unix_ms(), random))
    }
}

impl Inner {
    async fn publish(&self, destination: &Destination, message: impl IntoEnvelope) -> Result<(), PublishError> {
        let prepared = self.prepare(destination, message)?;
        self.wait_until_up().await?;
        let outlet = Arc::clone(&prepared.outlet);
        let epoch = self.shared.epoch();
        if outlet.proof.holds(epoch) {
            return self.hand_over(prepared, None, |_| {}).await;
        }
        let moment = self.shared.verdicts.now();
        self.hand_over(prepared, None, |_| {}).await?;
        let answered = self.round_trip().await;
        if self.shared.verdicts.publish_denied(&outlet.subject, moment).await {
            return Err(PublishError::BrokerDenied { subject: outlet.subject.clone() });
        }
        if !answered {
            return Err(self.not_taken());
        }
        outlet.proof.give(epoch, moment);
        Ok(())
    }

    /// Waits for the connection to be up, so that nothing is kept back to be sent when it is stale.
    pub(crate) async fn wait_until_up(&self) -> Result<(), PublishError> {
        if self.is_up().await {
            return Ok(());
        }
        Err(match self.shared.closed() {
            Some(reason) => PublishError::Closed(reason),
            None => PublishError::Disconnected { timeout_ms: self.operation_timeout.as_millis() },
        })
    }

    /// Asks the policy, and makes the envelope. Nothing is sent.
    pub(crate) fn prepare(
        &self,
        destination: &Destination,
        message: impl IntoEnvelope,
    ) -> Result<Prepared, PublishError> {
        if let Some(reason) = self.shared.closed() {
            return Err(PublishError::Closed(reason));
        }
        let now = unix_ms();
        let own = &self.shared.principal;
        let envelope = message.into_envelope(own.component(), now, random().ok_or(PublishError::Randomness)?);
        let payload = envelope.payload.as_ref().ok_or(PublishError::Invalid(EnvelopeError::NoPayload))?;
        let message_type = self.gate.registry.message_type(payload)?;
        let permit = self.authorize(&message_type, destination)?;
        self.address(permit, envelope, now)
    }

    fn authorize<'a>(
        &'a self,
        message_type: &'a MessageType,
        destination: &'a Destination,
    ) -> Result<Permit<'a>, PublishError> {
        let own = &self.shared.principal;
        self.gate.policy.authorize(own, Action::Publish, message_type, destination).map_err(|denied| {
            count(&self.shared.counters.denied);
            tracing::warn!(
                target: "bus::security",
                principal = %own, message_type = %message_type, destination = %destination,
                "the policy denied a publish; nothing was sent"
            );
            denied.into()
        })
    }

    /// Fills in where the message goes, as permitted, and checks its form. Without a permit there is no way out.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is used up by the one message that it permits")]
    fn address(&self, permit: Permit<'_>, mut envelope: Envelope, now: i64) -> Result<Prepared, PublishError> {
        let own = &self.shared.principal;
        if envelope.source_component != own.component().as_str() {
            return Err(PublishError::NotYourEnvelope {
                stated: envelope.source_component,
                own: own.component().to_string(),
            });
        }
        if envelope.expires_at != 0 && envelope.expires_at <= now {
            return Err(PublishError::Invalid(EnvelopeError::Expired { late_ms: now - envelope.expires_at }));
        }
        let outlet = self.outlets.open(self, &permit);
        envelope.subject.clone_from(&outlet.subject);
        envelope.destination = match permit.request().destination {
            Destination::Events => String::new(),
            Destination::Inbox(endpoint) => {
                Principal { trust_domain: own.trust_domain.clone(), endpoint: endpoint.clone() }.to_string()
            }
        };
        envelope.authentication = Some(Authentication { key_id: self.session.clone(), signature: Bytes::new() });
        envelope.check_form().map_err(PublishError::Invalid)?;
        Ok(Prepared { outlet, envelope })
    }

    /// Hands a message to the connection. A request comes with its `reply` subject; `leaving` is then told the
    /// message's digest, by which an answer will name it, before the message leaves.
    pub(crate) async fn hand_over(
        &self,
        prepared: Prepared,
        reply: Option<&str>,
        leaving: impl FnOnce(&Bytes),
    ) -> Result<(), PublishError> {
        let Prepared { outlet, mut envelope } = prepared;
        timeout(self.operation_timeout, async {
            let mut sequence = outlet.sequence.lock().await;
            envelope.sequence = *sequence + 1;
            let bytes = Bytes::from(envelope.encode_to_vec());
            let (size, max) = (bytes.len(), self.max_payload());
            if size > max {
                return Err(PublishError::TooLarge { size, max });
            }
            if reply.is_some() {
                leaving(&Bytes::copy_from_slice(&sha256(&bytes)));
            }
            let subject = outlet.subject.clone();
            let sent = match reply {
                Some(reply) => self.nats.publish_with_reply(subject, reply.to_owned(), bytes).await,
                None => self.nats.publish(subject, bytes).await,
            };
            sent.map_err(|_| self.not_taken())?;
            *sequence += 1;
            count(&self.shared.counters.published);
            Ok(())
        })
        .await
        .unwrap_or_else(|_| Err(self.not_taken()))
    }

    /// Why a message, or a round trip, was not taken.
    pub(crate) fn not_taken(&self) -> PublishError {
        match self.shared.closed() {
            Some(reason) => PublishError::Closed(reason),
            None => PublishError::TimedOut { timeout_ms: self.operation_timeout.as_millis() },
        }
    }
}

impl Prepared {
    pub(crate) fn subject(&self) -> &str {
        &self.outlet.subject
    }
}
