//! A subscription: a stream of messages that no peer can stop.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bus_acl::Permit;
use bus_proto::{Destination, MessageType, Payload};
use futures_util::Stream;
use tokio::time::timeout;

use crate::backlog::{Arrival, Backlog, Feed};
use crate::connection::{BusClient, Inner};
use crate::error::SubscribeError;
use crate::gaps::Gaps;
use crate::inbound::{Received, Rejected};
use crate::status::{add, count};
use crate::verdict::Subscribed;

/// A stream of `Result<Received<T>, Rejected>`.
///
/// Whatever arrives and is refused is counted, logged to the `bus::security` target and yielded as an error; the
/// stream goes on. It ends when the client is drained or closes, after what already arrived.
///
/// A subscription that is read too slowly misses the newest messages; [`Subscription::missed`] says how many.
pub struct Subscription<T> {
    feed: Feed,
    filter: String,
    gaps: Gaps,
    missed: u64,
    inner: Arc<Inner>,
    payload: PhantomData<fn() -> T>,
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

    /// How many messages this subscription missed so far, counted exactly from the senders' sequences: each gap shows
    /// when the next message of the same sender and subject arrives. What a sender published before its first message
    /// arrived here is not counted.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl<T: Payload> Subscription<T> {
    /// The next message, or `None` when the client was drained or closed.
    pub async fn next(&mut self) -> Option<Result<Received<T>, Rejected>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    fn admit(&mut self, message: &async_nats::Message) -> Result<Received<T>, Rejected> {
        let counters = &self.inner.shared.counters;
        match self.inner.gate.admit::<T>(message) {
            Ok(received) => {
                let missed = self.gaps.note(received.subject(), &received.session(), received.sequence());
                if missed > 0 {
                    self.missed = self.missed.saturating_add(missed);
                    add(&counters.missed, missed);
                }
                count(&counters.received);
                Ok(received)
            }
            Err(rejected) => {
                self.inner.shared.report(message.subject.as_str(), &rejected);
                Err(rejected)
            }
        }
    }
}

impl<T: Payload> Stream for Subscription<T> {
    type Item = Result<Received<T>, Rejected>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.feed.poll(context) {
            Poll::Ready(Some(Arrival::Message(message))) => Poll::Ready(Some(self.admit(&message))),
            Poll::Ready(Some(Arrival::Withdrawn)) => {
                Poll::Ready(Some(Err(Rejected::Withdrawn { filter: self.filter.clone() })))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl BusClient {
    /// Subscribes to events of type `T`, or of every type when `T` is [`AnyPayload`](bus_proto::AnyPayload).
    ///
    /// Returns when the broker has accepted the subscription: what is published from then on arrives.
    ///
    /// # Errors
    ///
    /// [`SubscribeError::Denied`] when the policy denies it: nothing was sent. Others when the broker denies it or does
    /// not answer within the operation timeout.
    pub async fn subscribe<T: Payload>(&self) -> Result<Subscription<T>, SubscribeError> {
        self.inner.subscribe(&Destination::Events).await
    }

    /// Subscribes to messages of type `T` that are sent to this component alone.
    ///
    /// # Errors
    ///
    /// As [`BusClient::subscribe`].
    pub async fn subscribe_inbox<T: Payload>(&self) -> Result<Subscription<T>, SubscribeError> {
        let own = self.inner.shared.principal.endpoint.clone();
        self.inner.subscribe(&Destination::Inbox(own)).await
    }
}

impl Inner {
    async fn subscribe<T: Payload>(self: &Arc<Self>, from: &Destination) -> Result<Subscription<T>, SubscribeError> {
        let message_type = T::message_type(&self.gate.registry)?;
        let (filter, feed) = self.open_feed(message_type.as_ref(), from).await?;
        let inner = Arc::clone(self);
        Ok(Subscription { feed, filter, gaps: Gaps::default(), missed: 0, inner, payload: PhantomData })
    }

    /// Asks the policy, then the broker, and waits for its verdict.
    pub(crate) async fn open_feed(
        &self,
        message_type: Option<&MessageType>,
        from: &Destination,
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
        let feed = Feed::new(backlog, subscriber, Arc::downgrade(&self.shared));
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
