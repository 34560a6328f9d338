//! A subscription: a stream of messages that no peer can stop.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bus_acl::Permit;
use bus_proto::{Destination, MessageType, Payload};
use futures_util::Stream;
use tokio::time::timeout;

use crate::backlog::{Arrival, Backlog, Feed};
use crate::connection::{BusClient, Inner};
use crate::error::SubscribeError;
use crate::inbound::{AskFor, Gap, Intake, Refused, Rejected, Verified};
use crate::shared::Shared;
use crate::status::{add, count};
use crate::time::unix_ms;
use crate::verdict::Subscribed;

/// A gap that no honest sender can leave.
const ABSURD: u64 = 1 << 32;

/// A stream of `Result<Verified<T>, Rejected>`.
///
/// Whatever arrives and is refused is counted, logged to the `bus::security` target and yielded as an error; the
/// stream goes on. It ends when the client is drained or closes, after what already arrived.
///
/// A subscription that is read too slowly misses the newest messages; [`Subscription::missed`] says how many envelopes, and
/// [`Subscription::take_gaps`] which.
pub struct Subscription<T> {
    feed: Feed,
    filter: String,
    intake: Intake<T>,
    missed: u64,
    ended: bool,
    inner: Arc<Inner>,
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("filter", &self.filter)
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

impl<T> Subscription<T> {
    /// What it is subscribed to, as a NATS subject filter.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// How many envelopes this subscription missed so far, counted from the senders' sequences: each gap shows when the next
    /// envelope of the same key and subject is accepted. What was published before the first one is not counted, nor what
    /// comes after the last one; what arrived and was refused is. A gap of 2³² or more, which no honest sender leaves,
    /// counts as one.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl<T: Payload> Subscription<T> {
    /// The gaps that were found since this was called last, of which the latest 1,024 are kept: whose envelopes are missing,
    /// where they were published, and which numbers they had.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        self.intake.take_gaps().into()
    }

    /// Whether what proves a message to others is kept with it ([`Verified::evidence`]); not unless set. It keeps the whole
    /// envelope in memory as long as one of its messages lives.
    #[must_use]
    pub fn keep_evidence(mut self, keep: bool) -> Self {
        self.intake.keep_evidence(keep);
        self
    }

    /// The next message, or `None` when the client was drained or closed.
    pub async fn next(&mut self) -> Option<Result<Verified<T>, Rejected>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Takes in what arrives, without end, while its reader waits for something else.
    pub(crate) async fn keep_filling(&mut self) {
        self.feed.keep_filling().await;
    }

    /// Takes in what arrived.
    fn take(&mut self, message: async_nats::Message) {
        self.intake.take(message, &AskFor { inner: &self.inner, backlog: self.feed.backlog() });
        self.tell_of_gaps();
    }

    fn tell_of_gaps(&mut self) {
        for gap in self.intake.untold_gaps() {
            let count = if gap.count() < ABSURD { gap.count() } else { 1 };
            self.missed = self.missed.saturating_add(count);
            add(&self.inner.shared.counters.missed, count);
            self.inner.shared.gap(gap);
        }
    }

    /// Counts and reports what is handed to the reader.
    fn hand_out(&self, next: Result<Verified<T>, Refused>) -> Result<Verified<T>, Rejected> {
        match next {
            Ok(message) => {
                count(&self.inner.shared.counters.received);
                Ok(message)
            }
            Err(Refused { subject, rejected }) => {
                self.inner.shared.report(&subject, &rejected);
                Err(rejected)
            }
        }
    }
}

impl<T: Payload> Stream for Subscription<T> {
    type Item = Result<Verified<T>, Rejected>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(next) = self.intake.next() {
                // What had waited is examined only now.
                self.tell_of_gaps();
                return Poll::Ready(Some(self.hand_out(next)));
            }
            match ready!(self.feed.poll(context)) {
                Some(Arrival::Message(message)) => self.take(message),
                Some(Arrival::Nudge) => {
                    let this = &mut *self;
                    this.intake.keys_found(&AskFor { inner: &this.inner, backlog: this.feed.backlog() });
                }
                Some(Arrival::Withdrawn) => {
                    return Poll::Ready(Some(Err(Rejected::Withdrawn { filter: self.filter.clone() })));
                }
                None if self.ended => return Poll::Ready(None),
                None => {
                    self.ended = true;
                    self.intake.end();
                }
            }
        }
    }
}

impl<T> Unpin for Subscription<T> {}

impl BusClient {
    /// Subscribes to events of type `T`, or of every type when `T` is [`AnyPayload`](bus_proto::AnyPayload).
    ///
    /// Returns when the broker has accepted the subscription: what is published from then on arrives.
    ///
    /// Whoever subscribes to every type gets what is sealed to others as [`AnyPayload::Sealed`](bus_proto::AnyPayload): who sent
    /// it, when and where is proven. So it is with what is sealed to this component under keys that came along before the
    /// subscription began: they come again within ten seconds. A subscription to one type refuses both by name.
    ///
    /// # Errors
    ///
    /// [`SubscribeError::Denied`] when the policy denies it: nothing was sent. Others when the broker denies it or does
    /// not answer within the operation timeout.
    pub async fn subscribe<T: Payload>(&self) -> Result<Subscription<T>, SubscribeError> {
        self.inner.subscribe(&Destination::Events, Feed::forwarded).await
    }

    /// Subscribes to messages of type `T` that are sent to this component alone.
    ///
    /// # Errors
    ///
    /// As [`BusClient::subscribe`].
    pub async fn subscribe_inbox<T: Payload>(&self) -> Result<Subscription<T>, SubscribeError> {
        let own = self.inner.shared.principal.endpoint.clone();
        self.inner.subscribe(&Destination::Inbox(own), Feed::forwarded).await
    }
}

impl Inner {
    pub(crate) async fn subscribe<T: Payload>(
        self: &Arc<Self>,
        from: &Destination,
        make: fn(Arc<Backlog>, async_nats::Subscriber, Weak<Shared>) -> Feed,
    ) -> Result<Subscription<T>, SubscribeError> {
        let message_type = T::message_type(&self.gate.registry)?;
        self.have_sealing_keys().await?;
        let since = unix_ms();
        let (filter, feed) = self.open_feed(message_type.as_ref(), from, make).await?;
        let mut intake = Intake::new(Arc::clone(&self.gate), Some(since));
        // Whoever takes messages of every type may see that there are some that he cannot read.
        intake.show_sealed(message_type.is_none());
        Ok(Subscription { feed, filter, intake, missed: 0, ended: false, inner: Arc::clone(self) })
    }

    /// Asks the policy, then the broker, and waits for its verdict. The feed is made by `make`.
    pub(crate) async fn open_feed(
        &self,
        message_type: Option<&MessageType>,
        from: &Destination,
        make: fn(Arc<Backlog>, async_nats::Subscriber, Weak<Shared>) -> Feed,
    ) -> Result<(String, Feed), SubscribeError> {
        let filter = self.authorize_subscription(message_type, from)?.subject(&self.gate.root);
        let timeout_ms = self.operation_timeout.as_millis();
        let or_closed = |error| self.shared.closed().map_or(error, SubscribeError::Closed);
        if !self.is_up().await {
            return Err(or_closed(SubscribeError::Disconnected { timeout_ms }));
        }
        let timed_out = || or_closed(SubscribeError::TimedOut { timeout_ms });
        let verdicts = &self.shared.verdicts;
        // Watched before it exists, so that no withdrawal can fall between.
        let backlog = Arc::new(Backlog::new(self.bounds));
        verdicts.watch(&filter, &backlog);
        let moment = verdicts.now();
        let asked = timeout(self.operation_timeout, self.nats.subscribe(filter.clone())).await;
        let subscriber = asked.map_err(|_| timed_out())?.map_err(|_| timed_out())?;
        let feed = make(backlog, subscriber, Arc::downgrade(&self.shared));
        let answered = self.round_trip().await;
        match verdicts.subscribed(&filter, moment).await {
            Subscribed::Denied => Err(SubscribeError::BrokerDenied { filter }),
            Subscribed::TooMany => Err(SubscribeError::TooMany),
            Subscribed::Accepted if !answered => Err(timed_out()),
            Subscribed::Accepted => Ok((filter, feed)),
        }
    }

    fn authorize_subscription<'a>(
        &'a self,
        message_type: Option<&'a MessageType>,
        from: &'a Destination,
    ) -> Result<Permit<'a>, SubscribeError> {
        let own = &self.shared.principal;
        let decision = self.gate.policy.authorize_subscription(own, message_type, from);
        decision.map_err(|denied| {
            count(&self.shared.counters.denied);
            tracing::warn!(target: "bus::security", principal = %own, from = %from, "the policy denied a subscription");
            denied.into()
        })
    }
}
