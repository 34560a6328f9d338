//! What waits for the writer, and how its answers come back.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::spool::SpoolError;
use crate::spool::writer::Task;

/// How much may wait: tasks, and the bytes of the messages in them.
const MAX_WAITING: usize = 16_384;
const MAX_WAITING_BYTES: usize = 8 << 20;

/// How much is written in one transaction, and so with one wait for the disk.
const MAX_GROUP: usize = 4_096;
const MAX_GROUP_BYTES: usize = 4 << 20;

/// The tasks that wait for the writer. What adds to the spool is bounded; what drains it is not, so that it is never held up.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// The writer waits for work.
    work: Condvar,
    /// Threads wait for room.
    room: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Box<dyn Task>>,
    bytes: usize,
    closed: bool,
    /// Whether the writer sleeps. Waking it costs a system call.
    idle: bool,
    /// Tasks, of the asynchronous kind, that wait for room.
    wakers: Vec<Waker>,
    /// How many threads wait for room.
    blocked: usize,
}

impl State {
    fn has_room(&self, bytes: usize) -> bool {
        self.closed
            || self.tasks.is_empty()
            || (self.tasks.len() < MAX_WAITING && self.bytes + bytes <= MAX_WAITING_BYTES)
    }
}

impl Queue {
    /// Adds a task, whether there is room or not. After the end it is dropped, which answers it.
    pub(super) fn push(&self, task: Box<dyn Task>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.bytes += task.bytes();
        state.tasks.push_back(task);
        if std::mem::take(&mut state.idle) {
            self.work.notify_one();
        }
    }

    /// Whether there is room for so many bytes more. Who adds without room makes the queue longer than it should be.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.lock().has_room(bytes)
    }

    /// Keeps the thread waiting until there is room.
    pub(super) fn wait_for_room(&self, bytes: usize) {
        let mut state = self.lock();
        while !state.has_room(bytes) {
            state.blocked += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
        }
    }

    /// Whether there is room. If not, the waker is called when it is worth asking again.
    pub(super) fn poll_room(&self, bytes: usize, context: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.has_room(bytes) {
            return Poll::Ready(());
        }
        if !state.wakers.last().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// The next tasks, in the order in which they came: as many as there are, up to a group. `None` when the queue was closed and
    /// nothing is left.
    pub(super) fn take(&self) -> Option<Vec<Box<dyn Task>>> {
        let mut state = self.lock();
        while state.tasks.is_empty() {
            if state.closed {
                return None;
            }
            state.idle = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut group = Vec::with_capacity(state.tasks.len().min(MAX_GROUP));
        let mut bytes = 0;
        while let Some(next) = state.tasks.front()
            && group.len() < MAX_GROUP
            && (group.is_empty() || bytes + next.bytes() <= MAX_GROUP_BYTES)
        {
            bytes += next.bytes();
            group.extend(state.tasks.pop_front());
        }
        state.bytes -= bytes;
        self.tell_of_room(state);
        Some(group)
    }

    /// Whether nothing waits, and something still may come.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.tasks.is_empty() && !state.closed
    }

    /// Nothing is added any more; what waits is still done.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.work.notify_one();
        self.tell_of_room(state);
    }

    /// Nothing is added any more, and what waits is not done: it is answered so.
    pub(super) fn abandon(&self) {
        self.close();
        let left = std::mem::take(&mut self.lock().tasks);
        drop(left);
    }

    fn tell_of_room(&self, mut state: MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.wakers);
        if state.blocked > 0 {
            self.room.notify_all();
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the spool will answer: a future, or something to [`wait`](Reply::wait) for in a thread. What was asked for is done
/// whether or not the answer is awaited.
#[must_use = "what was asked for may fail"]
#[derive(Debug)]
pub struct Reply<T> {
    slot: Arc<Mutex<Slot<T>>>,
}

#[derive(Debug)]
struct Slot<T> {
    answer: Option<Result<T, SpoolError>>,
    waker: Option<Waker>,
}

impl<T> Reply<T> {
    /// A place for an answer, and who will give it.
    pub(super) fn new() -> (Answer<T>, Self) {
        let slot = Arc::new(Mutex::new(Slot { answer: None, waker: None }));
        (Answer { slot: Some(Arc::clone(&slot)) }, Self { slot })
    }

    /// Keeps the thread waiting until the answer is there.
    ///
    /// # Errors
    ///
    /// What the spool answers.
    pub fn wait(mut self) -> Result<T, SpoolError> {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut self).poll(&mut context) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => thread::park(),
            }
        }
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, SpoolError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = slot.answer.take() {
            return Poll::Ready(answer);
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Who answers. Dropped without an answer, it says that the spool is closed.
pub(super) struct Answer<T> {
    slot: Option<Arc<Mutex<Slot<T>>>>,
}

impl<T> Answer<T> {
    pub(super) fn send(&mut self, answer: Result<T, SpoolError>) {
        let Some(shared) = self.slot.take() else { return };
        let mut slot = shared.lock().unwrap_or_else(PoisonError::into_inner);
        slot.answer = Some(answer);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.send(Err(SpoolError::Closed));
    }
}
