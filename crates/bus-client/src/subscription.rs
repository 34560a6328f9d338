//! A subscription: a stream of messages that no peer can stop.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bus_acl::Permit;
use bus_proto::{Destination, MessageType, Payload};
use futures_util::Stream;
use tokio::time::timeout;

use crate::connection::{BusClient, Inner};
use crate::error::SubscribeError;
use crate::gaps::Gaps;
use crate::inbound::{Received, Rejected};
use crate::status::count;
use crate::verdict::Withdrawal;

/// A stream of `Result<Received<T>, Rejected>`.
///
/// Whatever arrives and is refused is counted, logged to the `bus::security` target and yielded as an error; the
/// stream goes on. It ends when the client is drained or closes.
///
/// A subscription that is read too slowly misses the newest messages; [`Subscription::missed`] says how many.
pub struct Subscription<T> {
    subscriber: async_nats::Subscriber,
    filter: String,
    gaps: Gaps,
    missed: u64,
    withdrawal: Arc<Withdrawal>,
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

    /// The bare NATS subscription, for a reader of this crate's own.
    pub(crate) fn into_raw(self) -> async_nats::Subscriber {
        self.subscriber
    }

    fn admit(&mut self, message: &async_nats::Message) -> Result<Received<T>, Rejected> {
        let counters = &self.inner.shared.counters;
        match self.inner.gate.admit::<T>(message) {
            Ok(received) => {
                let missed = self.gaps.note(received.subject(), &received.session(), received.sequence());
                if missed > 0 {
                    self.missed = self.missed.saturating_add(missed);
                    counters.missed.fetch_add(missed, Ordering::Relaxed);
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
        if self.withdrawal.poll(context) {
            return Poll::Ready(Some(Err(Rejected::Withdrawn { filter: self.filter.clone() })));
        }
        match Pin::new(&mut self.subscriber).poll_next(context) {
            Poll::Ready(Some(message)) => Poll::Ready(Some(self.admit(&message))),
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
    pub(crate) async fn subscribe<T: Payload>(
        self: &Arc<Self>,
        from: &Destination,
    ) -> Result<Subscription<T>, SubscribeError> {
        if let Some(reason) = self.closed() {
            return Err(SubscribeError::Closed(reason));
        }
        let message_type = T::message_type(&self.gate.registry)?;
        let permit = self.authorize_subscription(message_type.as_ref(), from)?;
        let filter = permit.subject(&self.gate.root);
        let verdicts = &self.shared.verdicts;
        let before = verdicts.before_subscribe(&filter);
        let timed_out = || match self.closed() {
            Some(reason) => SubscribeError::Closed(reason),
            None => SubscribeError::TimedOut { timeout_ms: self.operation_timeout.as_millis() },
        };
        let asked = timeout(self.operation_timeout, self.nats.subscribe(filter.clone())).await;
        let subscriber = asked.map_err(|_| timed_out())?.map_err(|_| timed_out())?;
        let answered = self.round_trip().await;
        if verdicts.subscribe_denied(&filter, before).await {
            return Err(SubscribeError::BrokerDenied { filter });
        }
        if !answered {
            return Err(timed_out());
        }
        let withdrawal = verdicts.watch(&filter);
        Ok(Subscription {
            subscriber,
            filter,
            gaps: Gaps::default(),
            missed: 0,
            withdrawal,
            inner: Arc::clone(self),
            payload: PhantomData,
        })
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
