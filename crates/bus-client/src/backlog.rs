//! What waits between the connection and the reader of one subscription.
//!
//! async-nats drops the newest messages of a subscription that is read too slowly, and reports each drop through a
//! small queue that its other events share, so that a flood would hide them. A forwarder therefore empties its channel
//! at once into a backlog of ours, which is bounded in number and bytes and counts what it drops.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use futures_util::task::AtomicWaker;

use crate::probe::AbortOnDrop;
use crate::shared::Shared;

/// How many messages are moved under one lock.
const CHUNK: usize = 256;

/// The bounds of a backlog.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// What a reader is given.
#[derive(Debug)]
pub(crate) enum Arrival {
    Message(Message),
    /// The broker withdrew the subscription.
    Withdrawn,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    ended: bool,
    withdrawn: bool,
}

/// The messages that arrived and were not read yet.
#[derive(Debug)]
pub(crate) struct Backlog {
    queue: Mutex<Queue>,
    reader: AtomicWaker,
    bounds: Bounds,
}

impl Backlog {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { queue: Mutex::default(), reader: AtomicWaker::new(), bounds }
    }

    /// Takes in what fits, and returns how many messages did not.
    fn push(&self, messages: Vec<Message>) -> usize {
        let mut dropped = 0;
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            let bytes = queue.bytes.saturating_add(message.length);
            if queue.messages.len() >= self.bounds.messages || bytes > self.bounds.bytes {
                dropped += 1;
            } else {
                queue.bytes = bytes;
                queue.messages.push_back(message);
            }
        }
        drop(queue);
        self.reader.wake();
        dropped
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.reader.wake();
    }

    /// The broker withdrew the subscription.
    pub(crate) fn withdraw(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).withdrawn = true;
        self.reader.wake();
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<Arrival>> {
        self.reader.register(context.waker());
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut queue.withdrawn) {
            return Poll::Ready(Some(Arrival::Withdrawn));
        }
        match queue.messages.pop_front() {
            Some(message) => {
                queue.bytes = queue.bytes.saturating_sub(message.length);
                Poll::Ready(Some(Arrival::Message(message)))
            }
            None if queue.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// One subscription's backlog, with the task that fills it.
#[derive(Debug)]
pub(crate) struct Feed {
    backlog: Arc<Backlog>,
    _forwarder: AbortOnDrop,
}

impl Feed {
    /// Starts to fill `backlog` from `subscriber`.
    pub(crate) fn new(backlog: Arc<Backlog>, subscriber: Subscriber, shared: Weak<Shared>) -> Self {
        let forwarder = tokio::spawn(forward(subscriber, Arc::clone(&backlog), shared));
        Self { backlog, _forwarder: AbortOnDrop(forwarder) }
    }

    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Option<Arrival>> {
        self.backlog.poll(context)
    }

    /// The next arrival, or `None` at the end.
    pub(crate) async fn next(&self) -> Option<Arrival> {
        std::future::poll_fn(|context| self.poll(context)).await
    }
}

async fn forward(subscriber: Subscriber, backlog: Arc<Backlog>, shared: Weak<Shared>) {
    let mut chunks = subscriber.ready_chunks(CHUNK);
    while let Some(messages) = chunks.next().await {
        if backlog.push(messages) > 0
            && let Some(shared) = shared.upgrade()
        {
            shared.slow_consumer();
        }
    }
    backlog.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Message {
        Message {
            subject: "s".into(),
            reply: None,
            payload: Default::default(),
            headers: None,
            status: None,
            description: None,
            length,
        }
    }

    fn poll(backlog: &Backlog) -> Poll<Option<Arrival>> {
        backlog.poll(&Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn a_backlog_is_bounded_in_number_and_in_bytes() {
        let by_number = Backlog::new(Bounds { messages: 2, bytes: usize::MAX });
        assert_eq!(by_number.push(vec![message(1), message(1), message(1)]), 1);
        let by_bytes = Backlog::new(Bounds { messages: usize::MAX, bytes: 10 });
        assert_eq!(by_bytes.push(vec![message(6), message(6), message(4)]), 1);
        assert!(matches!(poll(&by_bytes), Poll::Ready(Some(Arrival::Message(_)))));
        assert_eq!(by_bytes.push(vec![message(6)]), 0);
    }

    #[test]
    fn what_waits_is_read_before_the_end() {
        let backlog = Backlog::new(Bounds { messages: 9, bytes: 9 });
        backlog.push(vec![message(1)]);
        backlog.end();
        assert!(matches!(poll(&backlog), Poll::Ready(Some(Arrival::Message(_)))));
        assert!(matches!(poll(&backlog), Poll::Ready(None)));
    }

    #[test]
    fn a_withdrawal_is_told_once() {
        let backlog = Backlog::new(Bounds { messages: 9, bytes: 9 });
        backlog.withdraw();
        assert!(matches!(poll(&backlog), Poll::Ready(Some(Arrival::Withdrawn))));
        assert!(poll(&backlog).is_pending());
    }
}
