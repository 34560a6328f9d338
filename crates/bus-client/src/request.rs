//! Requests: a directed message, and the one answer that matches it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bus_proto::prost::bytes::Bytes;
use bus_proto::v1;
use bus_proto::{Address, AnyPayload, Destination, Endpoint, IntoEnvelope, MessageType, Payload, Principal};
use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::connection::{BusClient, Inner, unix_ms};
use crate::error::{PublishError, RequestError};
use crate::inbound::{Received, Rejected};
use crate::probe::AbortOnDrop;

type Answer = Received<AnyPayload>;

#[derive(Debug)]
struct Waiter {
    asked: Endpoint,
    answer: oneshot::Sender<Answer>,
}

/// The requests that wait for an answer, by the digest that the answer must carry.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    waiting: Arc<Mutex<HashMap<Bytes, Waiter>>>,
    readers: tokio::sync::Mutex<Readers>,
}

/// What is subscribed to for answers: the whole inbox where the policy allows it, else single types.
#[derive(Debug, Default)]
struct Readers {
    types: HashSet<Option<MessageType>>,
    tasks: Vec<AbortOnDrop>,
}

/// Forgets a request that is no longer waited for.
struct Forget<'a>(&'a Requests, Option<Bytes>);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(digest) = &self.1 {
            self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
        }
    }
}

impl BusClient {
    /// Asks one component, and waits for its answer for at most the operation timeout.
    ///
    /// The answer is accepted once, only from the component asked, and only if it names this very request by the
    /// SHA-256 of its bytes.
    ///
    /// ```no_run
    /// use bus_client::BusClient;
    /// use bus_proto::v1::{CommandRequest, CommandResult, CommandType};
    ///
    /// # async fn run(bus: BusClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let kill = CommandRequest { command_type: CommandType::Kill.into(), target_pid: 4242 };
    /// let result = bus.request::<CommandResult>(&"agent/agent-linux-01".parse()?, kill).await?;
    /// println!("{}: {}", result.sender(), result.payload().detail);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RequestError::NoResponders`] at once when nobody listens there, [`RequestError::Peer`] when the other side
    /// answers with an error, [`RequestError::TimedOut`] when no answer comes, and what publishing can fail with.
    pub async fn request<R: Payload>(
        &self,
        to: &Endpoint,
        message: impl IntoEnvelope,
    ) -> Result<Received<R>, RequestError> {
        self.request_within(to, message, self.inner.operation_timeout).await
    }

    /// As [`BusClient::request`], waiting for at most `limit`.
    ///
    /// A request without an `expires_at` of its own gets one, after which nobody would hear the answer: the time limit
    /// and the allowed clock skew from now. A late copy of it is then refused.
    ///
    /// # Errors
    ///
    /// As [`BusClient::request`].
    pub async fn request_within<R: Payload>(
        &self,
        to: &Endpoint,
        message: impl IntoEnvelope,
        limit: Duration,
    ) -> Result<Received<R>, RequestError> {
        let inner = &self.inner;
        let mut envelope = self.envelope(message)?;
        if envelope.expires_at == 0 {
            let limit_ms = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
            envelope.expires_at = unix_ms().saturating_add(limit_ms).saturating_add(inner.gate.skew_ms);
        }
        let prepared = inner.prepare(&Destination::Inbox(to.clone()), envelope)?;
        inner.listen_for_answers::<R>().await?;
        let (subject, before) =
            (prepared.subject().to_owned(), inner.shared.verdicts.before_publish(prepared.subject()));
        let mut nobody = inner.no_responders.expect();
        let (sender, mut answer) = oneshot::channel();
        let waiter = Waiter { asked: to.clone(), answer: sender };
        // The waiter is in place before the message leaves: an answer cannot overtake it.
        let mut forget = Forget(&inner.requests, None);
        let register = |digest: &Bytes| {
            forget.1 = Some(digest.clone());
            inner.requests.wait(digest, waiter);
        };
        inner.hand_over(prepared, Some(&nobody.reply), register).await?;
        let timed_out = || RequestError::TimedOut { destination: to.to_string(), timeout_ms: limit.as_millis() };
        let mut status = self.status();
        let answer = timeout(limit, async {
            tokio::select! {
                biased;
                answer = &mut answer => answer.map_err(|_| timed_out()),
                () = inner.shared.verdicts.publish_denial(&subject, before) => {
                    Err(PublishError::BrokerDenied { subject: subject.clone() }.into())
                }
                () = nobody.arrived() => Err(RequestError::NoResponders { destination: to.to_string() }),
                _ = status.wait_for(|status| matches!(status, crate::Status::Closed(_))) => Err(timed_out()),
            }
        })
        .await
        .unwrap_or_else(|_| Err(timed_out()))?;
        open(answer)
    }
}

/// Takes the answer out, or the error that the other side answered with.
fn open<R: Payload>(answer: Answer) -> Result<Received<R>, RequestError> {
    match answer.try_map(R::from_payload) {
        Ok(received) => Ok(received),
        Err((_, AnyPayload::Error(error))) => Err(RequestError::Peer(error)),
        Err((mismatch, _)) => Err(RequestError::Rejected(Rejected::Payload(mismatch))),
    }
}

impl Requests {
    fn wait(&self, digest: &Bytes, waiter: Waiter) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone(), waiter);
    }

    /// Gives an answer to the request that it names, if that request asked its sender; else says whose it was.
    fn settle(&self, answer: Answer) -> Result<(), Principal> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = answer.correlation_id().clone();
        if waiting.get(&digest).is_none_or(|waiter| waiter.asked != answer.sender().endpoint) {
            return Err(answer.sender().clone());
        }
        match waiting.remove(&digest) {
            Some(waiter) => waiter.answer.send(answer).map_err(|unheard| unheard.sender().clone()),
            None => Err(answer.sender().clone()),
        }
    }
}

impl Inner {
    /// Subscribes, once, to what an answer of type `R` can come in.
    async fn listen_for_answers<R: Payload>(self: &Arc<Self>) -> Result<(), RequestError> {
        let wanted = R::message_type(&self.gate.registry).map_err(PublishError::Payload)?;
        let mut readers = self.requests.readers.lock().await;
        if readers.types.contains(&None) {
            return Ok(());
        }
        let own = Destination::Inbox(self.shared.principal.endpoint.clone());
        let policy = &self.gate.policy;
        if policy.authorize_subscription(&self.shared.principal, None, &own).is_ok() && readers.types.is_empty() {
            let whole = self.subscribe::<AnyPayload>(&own).await?;
            readers.start(self, None, whole.into_raw());
            return Ok(());
        }
        if !readers.types.contains(&Some(MessageType::Error)) {
            let errors = self.subscribe::<v1::Error>(&own).await?;
            readers.start(self, Some(MessageType::Error), errors.into_raw());
        }
        if !readers.types.contains(&wanted) {
            let answers = self.subscribe::<R>(&own).await?;
            readers.start(self, wanted, answers.into_raw());
        }
        Ok(())
    }
}

impl Readers {
    fn start(&mut self, inner: &Arc<Inner>, of: Option<MessageType>, subscriber: async_nats::Subscriber) {
        self.types.insert(of);
        self.tasks.push(AbortOnDrop(tokio::spawn(read_answers(Arc::downgrade(inner), subscriber))));
    }
}

/// Reads answers until the connection closes. Holds no strong reference to the client while it waits.
async fn read_answers(inner: Weak<Inner>, mut subscriber: async_nats::Subscriber) {
    while let Some(message) = subscriber.next().await {
        let Some(inner) = inner.upgrade() else { return };
        let subject = message.subject.as_str();
        match inner.gate.admit::<AnyPayload>(&message) {
            // Without a correlation it is no answer, and a matter for the client's other subscriptions.
            Ok(message) if message.correlation_id().is_empty() && !message.message_type().is_answer() => {}
            Ok(answer) => {
                if let Err(sender) = inner.requests.settle(answer) {
                    inner.shared.report(subject, &Rejected::Unsolicited { sender });
                }
            }
            Err(rejected) => {
                let own_matter = |address: Address| address.message_type != MessageType::Command;
                if inner.gate.root.parse(subject).is_ok_and(own_matter) {
                    inner.shared.report(subject, &rejected);
                }
            }
        }
    }
}
