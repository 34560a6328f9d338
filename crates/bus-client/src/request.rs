//! Requests: a directed message, and the one answer that matches it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bus_proto::prost::bytes::Bytes;
use bus_proto::{AnyPayload, Destination, Endpoint, IntoOutgoing, MessageType, Payload, Principal};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::backlog::{Arrival, Backlog, Feed};
use crate::connection::{BusClient, Inner};
use crate::error::{PublishError, RequestError, SubscribeError};
use crate::inbound::{AskFor, Intake, Refused, Rejected, Verified};
use crate::outbound::FilledIn;
use crate::probe::{AbortOnDrop, Awaited};
use crate::status::{CloseReason, Status};
use crate::time::{millis, unix_ms};

/// How long a component may be without a server while it changes from one to another.
const MOVING: Duration = Duration::from_secs(1);

/// How long it takes until a component is asked again that was not there.
const PAUSE: Duration = Duration::from_millis(20);

/// How long it takes until a component is asked again that does not answer; then twice as long, and so on. What was on its way
/// to a component as that changed servers is lost.
const SILENCE: Duration = Duration::from_secs(1);

type Answer = Verified<AnyPayload>;

#[derive(Debug)]
struct Waiter {
    asked: Endpoint,
    answer: oneshot::Sender<Answer>,
}

/// The requests that wait for an answer, by the digest that the answer must carry.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    waiting: Mutex<HashMap<[u8; 32], Waiter>>,
    readers: tokio::sync::Mutex<Readers>,
}

/// The tasks that read answers, by what they are subscribed to: the whole inbox where the policy allows it, else single
/// types.
type Readers = HashMap<Option<MessageType>, Reader>;

#[derive(Debug)]
struct Reader {
    backlog: Arc<Backlog>,
    _task: AbortOnDrop,
}

/// Forgets a request that is no longer waited for.
struct Forget<'a>(&'a Requests, Option<[u8; 32]>);

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
    /// SHA-256 of its signed bytes.
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
    /// [`RequestError::NoResponders`] when nobody listens there: at once where this client knows one server, and else when
    /// nobody has for a second, as who listens may be changing servers. The request is sent again until then, and when no
    /// answer comes, which never has it carried out twice. [`RequestError::Peer`] when the other side
    /// answers with an error, [`RequestError::TimedOut`] when no answer comes, and what publishing can fail with.
    pub async fn request<R: Payload>(
        &self,
        to: &Endpoint,
        message: impl IntoOutgoing,
    ) -> Result<Verified<R>, RequestError> {
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
        message: impl IntoOutgoing,
        limit: Duration,
    ) -> Result<Verified<R>, RequestError> {
        let timed_out = || RequestError::TimedOut { destination: to.to_string(), timeout_ms: limit.as_millis() };
        let mut message = self.fill_in(message)?;
        if message.envelope.expires_at == 0 {
            message.envelope.expires_at =
                unix_ms().saturating_add(millis(limit)).saturating_add(self.inner.gate.skew_ms);
        }
        let answer = timeout(limit, self.inner.ask::<R>(to, message)).await.unwrap_or_else(|_| Err(timed_out()))?;
        open(answer)
    }
}

impl Inner {
    async fn ask<R: Payload>(self: &Arc<Self>, to: &Endpoint, message: FilledIn) -> Result<Answer, RequestError> {
        let mut prepared = self.prepare(&Destination::Inbox(to.clone()), message)?;
        self.wait_until_up().await?;
        self.find_readers(&mut prepared).await?;
        self.listen_for_answers::<R>().await?;
        let (subject, moment) = (prepared.subject().to_owned(), self.shared.verdicts.now());
        let mut nobody = self.replies.expect().ok_or(PublishError::Randomness)?;
        let (sender, answer) = oneshot::channel();
        let waiter = Waiter { asked: to.clone(), answer: sender };
        let mut forget = Forget(&self.requests, None);
        let mut signed = Bytes::new();
        // The waiter is in place before the message leaves: an answer cannot overtake it.
        let register = |digest: &[u8; 32], bytes: &Bytes| {
            forget.1 = Some(*digest);
            signed = bytes.clone();
            self.requests.wait(digest, waiter);
        };
        self.hand_over(prepared, Some(nobody.reply()), register).await?;
        let mut status = self.shared.status.subscribe();
        let mut answer = std::pin::pin!(answer);
        let begun = Instant::now();
        let mut patience = SILENCE;
        loop {
            let nobody_there = tokio::select! {
                biased;
                // The waiter is forgotten only when this ends, so its sender is not dropped before.
                Ok(answer) = &mut answer => return Ok(answer),
                () = self.shared.verdicts.publish_denial(&subject, moment) => {
                    return Err(PublishError::BrokerDenied { subject }.into());
                }
                () = nobody.arrived() => true,
                () = closed(&mut status) => return Err(self.not_taken().into()),
                () = tokio::time::sleep(patience), if self.has_choice => false,
            };
            match nobody_there {
                true if !self.has_choice || begun.elapsed() >= MOVING => {
                    return Err(RequestError::NoResponders { destination: to.to_string() });
                }
                true => tokio::time::sleep(PAUSE).await,
                false => patience = patience.saturating_mul(2),
            }
            nobody = self.send_again(&subject, &signed).await?;
        }
    }

    /// Sends a request once more that reached nobody, or may not have. It is the same message, which a receiver accepts once:
    /// should it have got there after all, or the broker have lied, the request is not carried out twice.
    async fn send_again(&self, subject: &str, signed: &Bytes) -> Result<Awaited, RequestError> {
        self.wait_until_up().await?;
        let nobody = self.replies.expect().ok_or(PublishError::Randomness)?;
        let sent = self.nats.publish_with_reply(subject.to_owned(), nobody.reply().to_owned(), signed.clone()).await;
        sent.map_err(|_| self.not_taken())?;
        Ok(nobody)
    }
}

/// Completes when the client has closed.
async fn closed(status: &mut watch::Receiver<Status>) {
    // The status is this client's own and cannot end before it.
    let _ = status.wait_for(|status| matches!(status, Status::Closed(_))).await;
}

/// Takes the answer out, or the error that the other side answered with.
fn open<R: Payload>(answer: Answer) -> Result<Verified<R>, RequestError> {
    match answer.try_map(R::from_payload) {
        Ok(received) => Ok(received),
        Err((_, AnyPayload::Error(error))) => Err(RequestError::Peer(error)),
        Err((mismatch, _)) => Err(RequestError::Rejected(Rejected::Payload(mismatch))),
    }
}

impl Requests {
    fn wait(&self, digest: &[u8; 32], waiter: Waiter) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, waiter);
    }

    /// Gives an answer to the request that it names, if that request asked its sender; else says whose it was.
    fn settle(&self, answer: Answer) -> Result<(), Principal> {
        let Some(digest) = answer.correlation() else { return Err(answer.sender().clone()) };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.get(&digest).is_none_or(|waiter| waiter.asked != answer.sender().endpoint) {
            return Err(answer.sender().clone());
        }
        let waiter = waiting.remove(&digest);
        // Who is woken asks for this lock at once.
        drop(waiting);
        match waiter {
            Some(waiter) => waiter.answer.send(answer).map_err(|unheard| unheard.sender().clone()),
            None => Err(answer.sender().clone()),
        }
    }
}

impl Inner {
    /// Subscribes, once, to what an answer of type `R` can come in.
    async fn listen_for_answers<R: Payload>(self: &Arc<Self>) -> Result<(), RequestError> {
        let wanted = R::message_type(&self.gate.registry).map_err(PublishError::Payload)?;
        let own = Destination::Inbox(self.shared.principal.endpoint.clone());
        let whole = self.gate.policy.authorize_subscription(&self.shared.principal, None, &own).is_ok();
        let kinds = if whole { vec![None] } else { vec![Some(MessageType::Error), wanted] };
        if Self::missing(&*self.requests.readers.lock().await, &kinds).is_empty() {
            return Ok(());
        }
        // In a task of its own, so that a request with a short limit does not undo what the next one needs: neither the keys that
        // answers are sealed to, whose file may take a while to open, nor the subscription.
        let inner = Arc::clone(self);
        let open = async move {
            inner.have_sealing_keys().await?;
            inner.open_readers(&kinds, &own).await
        };
        let opened = tokio::spawn(open).await;
        // The task neither panics nor is aborted, but with the runtime. Nothing is asked then: no answer could be heard.
        Ok(opened.unwrap_or(Err(SubscribeError::Closed(CloseReason::Ended)))?)
    }

    async fn open_readers(
        self: &Arc<Self>,
        kinds: &[Option<MessageType>],
        own: &Destination,
    ) -> Result<(), SubscribeError> {
        let mut readers = self.requests.readers.lock().await;
        for kind in Self::missing(&readers, kinds) {
            let (_, feed) = self.open_feed(kind.as_ref(), own, Feed::read_at_all_times).await?;
            let backlog = Arc::clone(feed.backlog());
            let task = AbortOnDrop(tokio::spawn(read_answers(Arc::downgrade(self), feed)));
            readers.insert(kind, Reader { backlog, _task: task });
        }
        Ok(())
    }

    fn missing(readers: &Readers, kinds: &[Option<MessageType>]) -> Vec<Option<MessageType>> {
        let lives = |kind: &Option<MessageType>| readers.get(kind).is_some_and(|reader| reader.backlog.is_live());
        kinds.iter().filter(|kind| !lives(kind)).cloned().collect()
    }

    fn take_answer(&self, answer: Result<Answer, Refused>) {
        match answer {
            // Without a correlation it is no answer, and a matter for the client's other subscriptions.
            Ok(message) if message.correlation().is_none() && !message.message_type().is_answer() => {}
            Ok(answer) => {
                let subject = answer.subject().to_owned();
                if let Err(sender) = self.requests.settle(answer) {
                    self.shared.report(&subject, &Rejected::Unsolicited { sender });
                }
            }
            Err(Refused { subject, rejected }) => self.shared.report(&subject, &rejected),
        }
    }
}

/// Reads answers until the connection closes or the broker withdraws the subscription; the next request then subscribes
/// again. Holds no strong reference to the client while it waits.
async fn read_answers(inner: Weak<Inner>, mut feed: Feed) {
    let Some(gate) = inner.upgrade().map(|inner| Arc::clone(&inner.gate)) else { return };
    let mut intake = Intake::new(gate, None);
    loop {
        let arrival = feed.next().await;
        let Some(inner) = inner.upgrade() else { return };
        let keys = AskFor { inner: &inner, backlog: feed.backlog() };
        match arrival {
            // A command is a matter for the client's other subscriptions, where the policy makes this one see it, too.
            Some(Arrival::Message(message)) if inner.is_command(&message) => {}
            Some(Arrival::Message(message)) => intake.take(message, &keys),
            Some(Arrival::Nudge) => intake.keys_found(&keys),
            Some(Arrival::Withdrawn) | None => return,
        }
        while let Some(answer) = intake.next() {
            inner.take_answer(answer);
        }
    }
}

impl Inner {
    fn is_command(&self, message: &async_nats::Message) -> bool {
        let address = self.gate.root.parse(message.subject.as_str());
        address.is_ok_and(|address| address.message_type == MessageType::Command)
    }
}
