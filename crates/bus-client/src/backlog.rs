//! What waits between the connection and the reader of one subscription.
//!
//! async-nats drops the newest messages of a subscription that is read too slowly, and reports each drop through a
//! small queue that its other events share, so that a flood would hide them. A forwarder therefore moves what comes into
//! a backlog of ours, which is bounded in number and in bytes.

use std::collections::VecDeque;
use std::future::Future as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use async_nats::{Message, Subscriber};
use bus_proto::prost::bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::ReadyChunks;
use futures_util::task::AtomicWaker;

use crate::probe::AbortOnDrop;
use crate::shared::Shared;

/// How many messages are moved under one lock.
const CHUNK: usize = 256;

/// After how many chunks the forwarder lets other tasks run.
const CHUNKS_AT_ONCE: usize = 64;

/// What a waiting message costs besides its content, in bytes.
const OVERHEAD: usize = 256;

/// Up to this size a message that waits is copied, in bytes. It would otherwise keep the whole buffer alive that it was
/// read in, with whatever else that held.
const COPIED: usize = 16 * 1024;

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
    /// Keys that were looked up for this reader have been found, or not.
    Nudge,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    ended: bool,
    /// Withdrawn by the broker, and the reader was not told yet.
    withdrawn: bool,
    /// Nothing more is to be expected, for either reason.
    gone: bool,
    nudged: bool,
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
        let mut queue = self.queue();
        if queue.ended {
            return 0;
        }
        for mut message in messages {
            let bytes = queue.bytes.saturating_add(cost(&message));
            if queue.messages.len() >= self.bounds.messages || bytes > self.bounds.bytes {
                dropped += 1;
                continue;
            }
            if message.payload.len() <= COPIED {
                message.payload = Bytes::copy_from_slice(&message.payload);
            }
            queue.bytes = bytes;
            queue.messages.push_back(message);
        }
        dropped
    }

    /// Takes in what fits, and reports if that is not all. The reader is not woken: it may be the reader that does this.
    fn take_in(&self, messages: Vec<Message>, shared: &Weak<Shared>) {
        if self.push(messages) > 0
            && let Some(shared) = shared.upgrade()
        {
            shared.slow_consumer();
        }
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        let mut queue = self.queue();
        (queue.ended, queue.gone) = (true, true);
        drop(queue);
        self.reader.wake();
    }

    /// The broker withdrew the subscription.
    pub(crate) fn withdraw(&self) {
        let mut queue = self.queue();
        (queue.withdrawn, queue.gone) = (true, true);
        drop(queue);
        self.reader.wake();
    }

    /// What the reader has asked for is there.
    pub(crate) fn nudge(&self) {
        self.queue().nudged = true;
        self.reader.wake();
    }

    /// Whether more may come.
    pub(crate) fn is_live(&self) -> bool {
        !self.queue().gone
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Arrival>> {
        // A reader whose backlog never empties must still let other tasks run.
        let turn = ready!(tokio::task::coop::poll_proceed(context));
        self.reader.register(context.waker());
        let polled = self.take();
        if polled.is_ready() {
            turn.made_progress();
        }
        polled
    }

    fn take(&self) -> Poll<Option<Arrival>> {
        let mut queue = self.queue();
        if std::mem::take(&mut queue.withdrawn) {
            return Poll::Ready(Some(Arrival::Withdrawn));
        }
        if std::mem::take(&mut queue.nudged) {
            return Poll::Ready(Some(Arrival::Nudge));
        }
        match queue.messages.pop_front() {
            Some(message) => {
                queue.bytes = queue.bytes.saturating_sub(cost(&message));
                Poll::Ready(Some(Arrival::Message(message)))
            }
            None if queue.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

fn cost(message: &Message) -> usize {
    message.length.saturating_add(OVERHEAD)
}

/// One subscription's backlog, with what fills it.
#[derive(Debug)]
pub(crate) struct Feed {
    backlog: Arc<Backlog>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// A task of its own, as nobody knows when the reader will come.
    Forwarder(#[expect(dead_code, reason = "it ends with its owner")] AbortOnDrop),
    /// The reader itself, which never stays away for long: that saves a task's turn for each message.
    Reader { chunks: ReadyChunks<Subscriber>, shared: Weak<Shared> },
}

impl Feed {
    /// Starts to fill `backlog` from `subscriber`.
    pub(crate) fn forwarded(backlog: Arc<Backlog>, subscriber: Subscriber, shared: Weak<Shared>) -> Self {
        // Not held back by the runtime's budget for one task: async-nats is not either, and would run ahead of it.
        let forward = tokio::task::unconstrained(forward(subscriber, Arc::clone(&backlog), shared));
        Self { backlog, source: Source::Forwarder(AbortOnDrop(tokio::spawn(forward))) }
    }

    /// Fills `backlog` from `subscriber` whenever it is polled, which the reader does at all times.
    pub(crate) fn read_at_all_times(backlog: Arc<Backlog>, subscriber: Subscriber, shared: Weak<Shared>) -> Self {
        Self { backlog, source: Source::Reader { chunks: subscriber.ready_chunks(CHUNK), shared } }
    }

    /// What it reads from.
    pub(crate) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Arrival>> {
        self.fill(context);
        self.backlog.poll(context)
    }

    /// Takes in what has arrived, if that is left to the reader.
    fn fill(&mut self, context: &mut Context<'_>) {
        let Source::Reader { chunks, shared } = &mut self.source else { return };
        for _ in 0..CHUNKS_AT_ONCE {
            // Not held back by the budget for one task, as a forwarder is not.
            let next = std::pin::pin!(tokio::task::unconstrained(chunks.next()));
            match next.poll(context) {
                Poll::Ready(Some(messages)) => self.backlog.take_in(messages, shared),
                Poll::Ready(None) => return self.backlog.end(),
                Poll::Pending => return,
            }
        }
        // There is more than one turn takes.
        context.waker().wake_by_ref();
    }

    /// Takes in what arrives, without end, while the reader waits for something else.
    pub(crate) async fn keep_filling(&mut self) {
        std::future::poll_fn::<(), _>(|context| {
            self.fill(context);
            Poll::Pending
        })
        .await;
    }

    /// The next arrival, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Arrival> {
        std::future::poll_fn(|context| self.poll(context)).await
    }
}

/// Ends a backlog whose forwarder is no more, however that came about.
struct EndOnDrop(Arc<Backlog>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn forward(subscriber: Subscriber, backlog: Arc<Backlog>, shared: Weak<Shared>) {
    let backlog = EndOnDrop(backlog);
    let mut chunks = subscriber.ready_chunks(CHUNK);
    let mut moved = 0_usize;
    while let Some(messages) = chunks.next().await {
        backlog.0.take_in(messages, &shared);
        backlog.0.reader.wake();
        moved = moved.wrapping_add(1);
        if moved.is_multiple_of(CHUNKS_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
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
        backlog.poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn a_backlog_is_bounded_in_number_and_in_bytes() {
        let by_number = Backlog::new(Bounds { messages: 2, bytes: usize::MAX });
        assert_eq!(by_number.push(vec![message(1), message(1), message(1)]), 1);
        let by_bytes = Backlog::new(Bounds { messages: usize::MAX, bytes: 10 + 2 * OVERHEAD });
        assert_eq!(by_bytes.push(vec![message(6), message(6), message(4)]), 1);
        assert!(matches!(poll(&by_bytes), Poll::Ready(Some(Arrival::Message(_)))));
        assert_eq!(by_bytes.push(vec![message(6)]), 0);
    }

    #[test]
    fn a_small_message_does_not_keep_the_buffer_alive_that_it_came_in() {
        let backlog = Backlog::new(Bounds { messages: 9, bytes: 9_999 });
        let buffer = Bytes::from(vec![7; 1_000_000]);
        let mut small = message(1);
        small.payload = buffer.slice(10..11);
        backlog.push(vec![small]);
        assert!(buffer.is_unique());
    }

    #[test]
    fn what_comes_after_the_end_is_not_kept() {
        let backlog = Backlog::new(Bounds { messages: 9, bytes: 9_999 });
        backlog.end();
        backlog.push(vec![message(1)]);
        assert!(matches!(poll(&backlog), Poll::Ready(None)));
    }

    #[test]
    fn what_waits_is_read_before_the_end() {
        let backlog = Backlog::new(Bounds { messages: 9, bytes: 9_999 });
        backlog.push(vec![message(1)]);
        backlog.end();
        assert!(matches!(poll(&backlog), Poll::Ready(Some(Arrival::Message(_)))));
        assert!(matches!(poll(&backlog), Poll::Ready(None)));
    }

    #[test]
    fn a_withdrawal_is_told_once() {
        let backlog = Backlog::new(Bounds { messages: 9, bytes: 9_999 });
        backlog.withdraw();
        assert!(matches!(poll(&backlog), Poll::Ready(Some(Arrival::Withdrawn))));
        assert!(poll(&backlog).is_pending());
    }
}
