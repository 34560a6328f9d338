//! Round trips with the broker itself.
//!
//! A component may publish to its own probe subject, which nobody may subscribe to. The server answers "no responders"
//! on the component's private reply subject. Because a server handles one connection's operations in order, that answer
//! proves that everything sent before it was handled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::connection::{hex, random};

type Waiting = Mutex<HashMap<String, Waiter>>;

/// The most answers to one question that are kept for who asked.
const MAX_ANSWERS: usize = 16;

#[derive(Debug)]
enum Waiter {
    /// For the broker's status alone.
    NoResponders(oneshot::Sender<()>),
    /// For whatever comes, until it goes.
    Answers(mpsc::Sender<Message>),
}

/// Ends a background task with its owner.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The private subjects on which the broker says "no responders", and answers what its own services are asked.
#[derive(Debug)]
pub(crate) struct Replies {
    prefix: String,
    next: AtomicU64,
    waiting: Arc<Waiting>,
    /// Woken whenever somebody waits no longer.
    ended: Arc<Notify>,
    _reader: AbortOnDrop,
}

/// One awaited "no responders".
#[derive(Debug)]
pub(crate) struct Awaited {
    question: Question,
    answer: oneshot::Receiver<()>,
}

impl Replies {
    /// Reads `subscriber`, which is subscribed to `<prefix>.*`.
    pub(crate) fn new(prefix: String, mut subscriber: Subscriber) -> Self {
        let waiting = Arc::<Waiting>::default();
        let answers = Arc::clone(&waiting);
        let reader = tokio::spawn(async move {
            while let Some(message) = subscriber.next().await {
                let nobody = message.status == Some(StatusCode::NO_RESPONDERS);
                let mut waiting = answers.lock().unwrap_or_else(PoisonError::into_inner);
                let token = message.subject.rsplit('.').next().unwrap_or_default().to_owned();
                match waiting.get(&token) {
                    // The one who asked may have gone, or may have heard enough; nobody else cares.
                    Some(Waiter::Answers(sender)) => drop(sender.try_send(message)),
                    // Nothing but the broker's own status is expected; a message of any other kind is no answer.
                    Some(Waiter::NoResponders(_)) if nobody => {
                        if let Some(Waiter::NoResponders(waiter)) = waiting.remove(&token) {
                            let _ = waiter.send(());
                        }
                    }
                    _ => {}
                }
            }
        });
        Self { prefix, next: AtomicU64::new(0), waiting, ended: Arc::default(), _reader: AbortOnDrop(reader) }
    }

    /// Prepares to learn that nobody responds; `None` when the system gives no randomness.
    pub(crate) fn expect(&self) -> Option<Awaited> {
        let (sender, answer) = oneshot::channel();
        Some(Awaited { question: self.wait(Waiter::NoResponders(sender))?, answer })
    }

    /// Prepares for the answers of a service of the broker's own, which are untrusted; `None` as [`Replies::expect`].
    pub(crate) fn listen(&self) -> Option<Answers> {
        let (sender, answers) = mpsc::channel(MAX_ANSWERS);
        Some(Answers { question: self.wait(Waiter::Answers(sender))?, answers })
    }

    /// `None` when the system gives no randomness: then somebody could guess where an answer is awaited.
    fn wait(&self, waiter: Waiter) -> Option<Question> {
        // The prefix is known to whoever was asked before, and can have the server publish there.
        let secret = hex(&random::<8>()?);
        let token = format!("{}-{secret}", self.next.fetch_add(1, Ordering::Relaxed));
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), waiter);
        let (waiting, ended) = (Arc::clone(&self.waiting), Arc::clone(&self.ended));
        Some(Question { reply: format!("{}.{token}", self.prefix), token, waiting, ended })
    }

    /// Waits until nobody waits for anything: no request, no round trip and no look-up is under way.
    pub(crate) async fn idle(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // From here on no end is missed.
            ended.as_mut().enable();
            if self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
            ended.await;
        }
    }
}

/// Answers of the broker, as they come.
#[derive(Debug)]
pub(crate) struct Answers {
    question: Question,
    answers: mpsc::Receiver<Message>,
}

impl Answers {
    /// The reply subject to publish with.
    pub(crate) fn reply(&self) -> String {
        self.question.reply.clone()
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        self.answers.recv().await
    }
}

/// A private reply subject on which something is awaited. It is forgotten when dropped.
#[derive(Debug)]
struct Question {
    reply: String,
    token: String,
    waiting: Arc<Waiting>,
    ended: Arc<Notify>,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
        self.ended.notify_waiters();
    }
}

impl Awaited {
    /// The reply subject to publish with.
    pub(crate) fn reply(&self) -> &str {
        &self.question.reply
    }

    /// Completes when the broker says that nobody responds. Never completes otherwise.
    pub(crate) async fn arrived(&mut self) {
        if (&mut self.answer).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
