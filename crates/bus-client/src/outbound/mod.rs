//! The way out: policy, bounds, signature, and only then the connection.
//!
//! An event waits in the queue of its subject until the client's one dispatcher takes it: at once when the dispatcher is
//! idle. What has gathered meanwhile goes out as one batch under one signature. Commands, requests and answers are signed
//! by whoever sends them, each alone, after what was published to the same subject before.

mod dispatch;
mod encode;
mod form;
mod identifier;
mod outlet;
mod run;
mod seal;

use std::sync::Arc;

use bus_acl::{Action, Permit};
use bus_crypto::envelope::sign;
use bus_crypto::trailer::TRAILER_LEN;
use bus_proto::envelope::{check_payload, check_references};
use bus_proto::prost::Message as _;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::{self, Envelope};
use bus_proto::{
    AnyPayload, AttachedReferences, Destination, Endpoint, EnvelopeError, IntoOutgoing, MessageType, Outgoing, Payload,
};
use tokio::time::timeout;

pub(crate) use dispatch::dispatch;
pub(crate) use form::Forms;
pub(crate) use outlet::{BatchBounds, Outlets, Ready};

use self::encode::{Attached, Body, Common, Frame, References, Stated};
use self::identifier::fresh_id;
use self::outlet::{Lane, Outlet, Pushed};
use self::run::{Run, Waiting};
use self::seal::{Sending, overhead};
use crate::connection::{BusClient, Inner, random};
use crate::error::PublishError;
use crate::inbound::Verified;
use crate::signer::KeyError;
use crate::status::{add, count};
use crate::time::unix_ms;

/// A message that passed every check of this side.
pub(crate) struct Prepared {
    pub(crate) outlet: Arc<Outlet>,
    payload: AnyPayload,
    common: Common,
    message: Waiting,
    /// What it is about, of which the readers' keys are still to be found.
    attached: Option<AttachedReferences>,
    /// Whether it may share an envelope with others.
    gathers: bool,
}

impl BusClient {
    /// Publishes an event: a payload, or an envelope made with [`BusClient::envelope`] whose further fields are set.
    ///
    /// The first publish of a type on a connection waits for the broker's verdict. Later ones return as soon as the
    /// message waits to be signed, at most 2,048 of one subject: who publishes faster than the connection takes it waits.
    /// What waits for one subject shares an envelope and a signature, in the order in which it was published. Should the
    /// connection fail before it is sent, or the broker deny it because its configuration changed meanwhile, that is an
    /// event and a count.
    ///
    /// # Errors
    ///
    /// [`PublishError::Denied`] when the policy denies it: nothing was sent, and a security warning was logged. Others
    /// when the message is invalid or too large, or the connection is not up, or does not take it, within the operation
    /// timeout.
    pub async fn publish(&self, message: impl IntoOutgoing) -> Result<(), PublishError> {
        self.inner.publish(&Destination::Events, message).await
    }

    /// Sends a message to one component alone.
    ///
    /// # Errors
    ///
    /// As [`BusClient::publish`]. That nobody is connected there is no error; use [`BusClient::request`] to know.
    pub async fn send(&self, to: &Endpoint, message: impl IntoOutgoing) -> Result<(), PublishError> {
        self.inner.publish(&Destination::Inbox(to.clone()), message).await
    }

    /// Answers a directed message: its sender's [`BusClient::request`] returns with this.
    ///
    /// # Errors
    ///
    /// As [`BusClient::publish`], and [`PublishError::NotARequest`] for an event, or a message out of a batch: neither has
    /// one answer.
    pub async fn reply<T>(&self, to: &Verified<T>, message: impl IntoOutgoing) -> Result<(), PublishError> {
        let digest = to.answerable().ok_or(PublishError::NotARequest)?;
        let mut message = self.fill_in(message)?;
        message.envelope.correlation_id = Bytes::copy_from_slice(&digest);
        self.send(&to.sender().endpoint, message).await
    }

    /// Makes an envelope with this client's name, the time and a fresh identifier, to set further fields before it is
    /// published: expiry, priority, tags, trace context. What else it holds is filled in when it is sent.
    ///
    /// Messages with tags, a trace context or another priority share an envelope only with messages that have the same.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn envelope(&self, payload: impl Payload) -> Result<Envelope, PublishError> {
        self.fill_in(payload.into_payload()).map(|message| message.envelope)
    }

    pub(crate) fn fill_in(&self, message: impl IntoOutgoing) -> Result<FilledIn, PublishError> {
        let random = random().ok_or(PublishError::Randomness)?;
        let message = message.into_outgoing();
        let (envelope, attached) = message.into_envelope(self.inner.shared.principal.component(), unix_ms(), random);
        Ok(FilledIn { envelope, attached })
    }
}

/// A message in its envelope, and what it is about.
pub(crate) struct FilledIn {
    pub(crate) envelope: Envelope,
    attached: Option<AttachedReferences>,
}

impl IntoOutgoing for FilledIn {
    fn into_outgoing(self) -> Outgoing {
        let envelope = Outgoing::Envelope(Box::new(self.envelope));
        match self.attached {
            Some(attached) => Outgoing::Referring(Box::new(envelope), attached),
            None => envelope,
        }
    }
}

impl Inner {
    async fn publish(
        self: &Arc<Self>,
        destination: &Destination,
        message: impl IntoOutgoing,
    ) -> Result<(), PublishError> {
        let mut prepared = self.prepare(destination, message)?;
        if !self.shared.is_connected() {
            self.wait_until_up().await?;
        }
        self.find_readers(&mut prepared).await?;
        let outlet = Arc::clone(&prepared.outlet);
        let epoch = self.shared.epoch();
        if outlet.proof.holds(epoch) {
            return if prepared.gathers {
                self.enqueue(prepared).await
            } else {
                self.hand_over(prepared, None, |_, _| {}).await
            };
        }
        let moment = self.shared.verdicts.now();
        self.hand_over(prepared, None, |_, _| {}).await?;
        let answered = self.round_trip().await;
        if self.shared.verdicts.publish_denied(&outlet.subject, moment).await {
            return Err(PublishError::BrokerDenied { subject: outlet.subject.to_string() });
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

    /// Asks the policy, and checks the message. Nothing is sent.
    pub(crate) fn prepare(
        &self,
        destination: &Destination,
        message: impl IntoOutgoing,
    ) -> Result<Prepared, PublishError> {
        if !self.shared.is_connected()
            && let Some(reason) = self.shared.closed()
        {
            return Err(PublishError::Closed(reason));
        }
        let now = unix_ms();
        let (message, attached) = message.into_outgoing().take_references();
        let (payload, common, message) = match message {
            Outgoing::Envelope(envelope) => self.take_apart(*envelope, now)?,
            Outgoing::Payload(payload) => {
                let message_id = fresh_id(now)?;
                let message = Waiting { message_id, timestamp: now, expires_at: 0, correlation: None, payload: 0..0 };
                (payload, Common::default(), message)
            }
            // What is left has none.
            Outgoing::Referring(..) => return Err(PublishError::Invalid(EnvelopeError::NoPayload)),
        };
        let message_type = self.gate.registry.message_type(&payload)?;
        let permit = self.authorize(&message_type, destination)?;
        check_payload(&payload).map_err(PublishError::Invalid)?;
        attached.as_ref().map_or(Ok(()), check_references).map_err(PublishError::Invalid)?;
        let own = &self.shared.principal;
        let form = || self.forms.of(&self.gate.policy, &message_type, destination);
        let outlet = self.outlets.open(permit, &message_type, own, &self.gate.root, &self.shared.verdicts, form)?;
        let prepared = Prepared {
            message: Waiting { payload: 0..payload.encoded_len(), ..message },
            // What is asked and answered is told apart by the digest of its envelope.
            gathers: self.max_batch > 1 && !matches!(message_type, MessageType::Command) && !message_type.is_answer(),
            outlet,
            payload,
            common,
            attached,
        };
        self.check_size(&prepared)?;
        Ok(prepared)
    }

    /// Checks that a message alone is no larger than the bus carries.
    fn check_size(&self, prepared: &Prepared) -> Result<(), PublishError> {
        let size = encode::single_len(&self.frame(&prepared.outlet, 0, &[]), &prepared.common, &prepared.message);
        let (size, max) = (size + TRAILER_LEN, self.max_payload());
        if size > max { Err(PublishError::TooLarge { size, max }) } else { Ok(()) }
    }

    /// Checks an envelope that the program made, and takes out what will be sent of it.
    fn take_apart(&self, envelope: Envelope, now: i64) -> Result<(AnyPayload, Common, Waiting), PublishError> {
        if envelope.payload.is_none() {
            return Err(PublishError::Invalid(EnvelopeError::NoPayload));
        }
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
        envelope.check_form().map_err(PublishError::Invalid)?;
        let message_id = envelope.message_id.as_bytes().first_chunk();
        let message_id = *message_id.ok_or(PublishError::Randomness)?;
        let message = Waiting {
            message_id,
            timestamp: envelope.timestamp_utc,
            expires_at: envelope.expires_at,
            correlation: envelope.correlation_id.first_chunk().copied(),
            payload: 0..0,
        };
        let Envelope { priority, tags, trace_context, payload, .. } = envelope;
        let payload = payload.ok_or(PublishError::Invalid(EnvelopeError::NoPayload))?;
        Ok((payload, Common { priority, tags, trace_context, references: None }, message))
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

    fn frame<'a>(&'a self, outlet: &'a Outlet, sequence: u64, bundle: &'a [u8]) -> Frame<'a> {
        Frame {
            source: self.shared.principal.component().as_str(),
            subject: &outlet.subject,
            destination: &outlet.destination,
            sequence,
            bundle,
            overhead: outlet.sealed_to.as_ref().map_or(0, |recipients| recipients.overhead(&self.shared.principal)),
        }
    }

    /// Finds the keys of those whom a message is sealed to, and of those who may know what it is about.
    pub(crate) async fn find_readers(self: &Arc<Self>, prepared: &mut Prepared) -> Result<(), PublishError> {
        let now = unix_ms();
        if let Some(recipients) = &prepared.outlet.sealed_to {
            self.find_recipients(recipients, now).await?;
        }
        let Some(AttachedReferences { references, mut readers }) = prepared.attached.take() else { return Ok(()) };
        readers.sort_unstable();
        readers.dedup();
        let keys = self.keys_of(&readers).await?;
        prepared.common.references = Some(Attached(Arc::new(References {
            encoded: v1::References { references }.encode_to_vec(),
            overhead: overhead(&readers, &self.shared.principal),
            keys: Arc::new(keys),
        })));
        self.check_size(prepared)
    }

    /// Puts a message into its subject's queue, and waits for room if there is none.
    async fn enqueue(&self, prepared: Prepared) -> Result<(), PublishError> {
        // A program that publishes in a loop must let its other tasks run.
        tokio::task::coop::consume_budget().await;
        let Prepared { outlet, payload, common, message, .. } = prepared;
        let bounds = self.batch_bounds(encode::rest_len(&self.frame(&outlet, 0, &[]), &common) + TRAILER_LEN);
        loop {
            match outlet.push(&common, &message, &payload, bounds) {
                Pushed::First => self.ready.add(Arc::clone(&outlet)),
                Pushed::Behind => {}
                Pushed::Full => {
                    let for_this = |outlet: &Outlet| outlet.has_room(message.payload.len());
                    let room = timeout(self.operation_timeout, outlet.progress(for_this)).await;
                    room.map_err(|_| self.not_taken())?;
                    continue;
                }
            }
            return Ok(());
        }
    }

    /// Signs a message by itself, after what waits for the same subject, and hands it to the connection. A request comes
    /// with its `reply` subject; `leaving` is then told the digest by which an answer will name it, and its bytes, before it
    /// leaves.
    pub(crate) async fn hand_over(
        &self,
        prepared: Prepared,
        reply: Option<&str>,
        leaving: impl FnOnce(&[u8; 32], &Bytes),
    ) -> Result<(), PublishError> {
        let Prepared { outlet, payload, common, message, .. } = prepared;
        let mut alone = Run::new(common);
        alone.push(message, &payload);
        timeout(self.operation_timeout, async {
            // What waits is sent by the dispatcher alone: this may be given up at any moment.
            outlet.emptied().await;
            let mut lane = outlet.lane.lock().await;
            self.send_run(&outlet, &mut lane, &alone, reply, leaving).await
        })
        .await
        .unwrap_or_else(|_| Err(self.not_taken()))
    }

    /// Sends what has waited, and reports what could not be.
    async fn send_waiting(&self, outlet: &Outlet, lane: &mut Lane, mut run: Run) {
        let (waited, expired) = (run.messages().len(), run.drop_expired(unix_ms()));
        if expired > 0 {
            self.shared.unsent(&outlet.subject, expired, "they expired while they waited");
        }
        let left = run.messages().len();
        if left > 0 {
            let sent = self.send_run(outlet, lane, &run, None, |_, _| {});
            let sent = timeout(self.operation_timeout, sent).await.unwrap_or_else(|_| Err(self.not_taken()));
            if let Err(error) = sent {
                self.shared.unsent(&outlet.subject, left, &error.to_string());
            }
        }
        outlet.settle(run, waited);
    }

    /// Reports all that waits for a subject as not sent.
    fn give_up(&self, outlet: &Outlet, reason: &str) {
        let runs: Vec<Run> = std::iter::from_fn(|| outlet.pop()).collect();
        let messages = runs.iter().map(|run| run.messages().len()).sum();
        if messages > 0 {
            self.shared.unsent(&outlet.subject, messages, reason);
        }
        for run in runs {
            let count = run.messages().len();
            outlet.settle(run, count);
        }
    }

    /// Signs a run as one envelope, and hands it to the connection.
    async fn send_run(
        &self,
        outlet: &Outlet,
        lane: &mut Lane,
        run: &Run,
        reply: Option<&str>,
        leaving: impl FnOnce(&[u8; 32], &Bytes),
    ) -> Result<(), PublishError> {
        let now = unix_ms();
        let connection = self.shared.epoch();
        let session = self.signer.session(now)?;
        let (sequence, due) = lane.next(session.key_id, connection);
        let due = due || outlet.always_with_bundle;
        let mut frame = self.frame(outlet, sequence, if due { &session.bundle } else { &[] });
        let max = self.max_payload();
        if due && encode::run_len(&frame, run) + TRAILER_LEN > max {
            // The message is not refused for it: the next one brings the bundle, and the keys stream has it.
            frame.bundle = &[];
        }
        let with_bundle = !frame.bundle.is_empty();
        let own_id = match run.messages() {
            [_] => [0; 36],
            _ => fresh_id(now)?,
        };
        let stated = Stated::of(run, own_id, now);
        // Another process than before may receive what is directed: nobody sends it again.
        let always_with_keys = outlet.always_with_bundle || !outlet.destination.is_empty();
        let sending = Sending { now_unix_ms: now, connection, always_with_keys };
        let formed = self.form_run(outlet, &mut lane.sealers, run, &frame, &stated, session.key_id, sending)?;
        let body = Body { payload: formed.payload.as_deref(), references: &formed.references };
        let prefix = encode::prefix(&frame, run, &stated, &body, TRAILER_LEN);
        let signed = sign(prefix, &session.key, &session.key_id).map_err(KeyError::from)?;
        let size = signed.bytes.len();
        if size > max {
            return Err(PublishError::TooLarge { size, max });
        }
        let (subject, bytes) = (outlet.subject.clone(), Bytes::from(signed.bytes));
        leaving(&signed.digest, &bytes);
        let sent = match reply {
            Some(reply) => self.nats.publish_with_reply(subject, reply.to_owned(), bytes).await,
            None => self.nats.publish(subject, bytes).await,
        };
        sent.map_err(|_| self.not_taken())?;
        // A message with an end may be refused for that, and its keys with it: they come again with the next one.
        lane.sent(connection, with_bundle, formed.with_keys && stated.expires_at == 0);
        count(&self.shared.counters.envelopes);
        add(&self.shared.counters.published, run.messages().len() as u64);
        Ok(())
    }

    /// Waits until everything that was published before has been handed to the connection, or could not be.
    pub(crate) async fn all_handed_over(&self) {
        for outlet in self.outlets.all() {
            outlet.emptied().await;
        }
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
