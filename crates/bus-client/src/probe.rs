//! Round trips with the broker itself.
//!
//! A component may publish to its own probe subject, which nobody may subscribe to. The server answers "no responders"
//! on the component's private reply subject. Because a server handles one connection's operations in order, that answer
//! proves that everything sent before it was handled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{StatusCode, Subscriber};
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

type Waiting = Mutex<HashMap<String, oneshot::Sender<()>>>;

/// Ends a background task with its owner.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The private subjects on which the broker says "no responders".
#[derive(Debug)]
pub(crate) struct NoResponders {
    prefix: String,
    next: AtomicU64,
    waiting: Arc<Waiting>,
    _reader: AbortOnDrop,
}

/// One awaited "no responders". Forgets itself when dropped.
#[derive(Debug)]
pub(crate) struct Awaited {
    /// The reply subject to publish with.
    pub(crate) reply: String,
    token: String,
    answer: oneshot::Receiver<()>,
    waiting: Arc<Waiting>,
}

impl NoResponders {
    /// Reads `subscriber`, which is subscribed to `<prefix>.*`.
    pub(crate) fn new(prefix: String, mut subscriber: Subscriber) -> Self {
        let waiting = Arc::<Waiting>::default();
        let answers = Arc::clone(&waiting);
        let reader = tokio::spawn(async move {
            while let Some(message) = subscriber.next().await {
                // Nothing but the broker's own status is expected here; a message of any other kind is no answer.
                if message.status != Some(StatusCode::NO_RESPONDERS) {
                    continue;
                }
                let token = message.subject.rsplit('.').next().unwrap_or_default();
                let waiter = answers.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
                if let Some(waiter) = waiter {
                    // The one who asked may have gone; nobody else cares.
                    let _ = waiter.send(());
                }
            }
        });
        Self { prefix, next: AtomicU64::new(0), waiting, _reader: AbortOnDrop(reader) }
    }

    /// Prepares to learn that nobody responds.
    pub(crate) fn expect(&self) -> Awaited {
        let token = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), sender);
        Awaited { reply: format!("{}.{token}", self.prefix), token, answer, waiting: Arc::clone(&self.waiting) }
    }
}

impl Awaited {
    /// Completes when the broker says that nobody responds. Never completes otherwise.
    pub(crate) async fn arrived(&mut self) {
        if (&mut self.answer).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}
