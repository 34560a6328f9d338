//! Flow control: the sender stays at most a window ahead of the receiver, so that nobody has to drop anything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// What the sending and the receiving side of one run share.
#[derive(Debug)]
pub(crate) struct Flow {
    window: u64,
    received: AtomicU64,
    /// The count at which the sender wants to be woken; the largest number while it does not wait.
    wake_at: AtomicU64,
    room: Notify,
    stopped: AtomicBool,
}

impl Flow {
    pub(crate) fn new(window: u64) -> Self {
        Self {
            window,
            received: AtomicU64::new(0),
            wake_at: AtomicU64::new(u64::MAX),
            room: Notify::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// The receiver says how many it has.
    pub(crate) fn count(&self, received: u64) {
        // Sequentially consistent with `room`: either the sender sees this count, or this side sees that it waits.
        self.received.store(received, Ordering::SeqCst);
        if received >= self.wake_at.load(Ordering::SeqCst) {
            self.room.notify_one();
        }
    }

    /// The receiver has seen enough.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Up to which number may be sent by someone who has sent `sent`. If the window is used up, waits until half of it is
    /// free again: a sender that is woken for every single message would measure the waking.
    pub(crate) async fn room(&self, sent: u64) -> u64 {
        if sent >= self.received.load(Ordering::SeqCst) + self.window {
            let target = sent - self.window / 2;
            self.wake_at.store(target, Ordering::SeqCst);
            while self.received.load(Ordering::SeqCst) < target {
                self.room.notified().await;
            }
            self.wake_at.store(u64::MAX, Ordering::SeqCst);
        }
        self.received.load(Ordering::SeqCst) + self.window
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_sender_stays_within_the_window_and_is_woken_at_half_of_it() {
        let flow = Flow::new(8);
        assert_eq!(flow.room(0).now_or_never(), Some(8));
        let mut waiting = Box::pin(flow.room(8));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        flow.count(3);
        assert_eq!(waiting.as_mut().now_or_never(), None);
        flow.count(4);
        assert_eq!(waiting.now_or_never(), Some(12));
    }
}
