//! The streams in which components leave what others need of their keys: how they are asked, and how something gets there.

use async_nats::StatusCode;
use bus_proto::prost::bytes::Bytes;
use bus_proto::{Endpoint, KeyStream};
use tokio::time::timeout;

use crate::connection::Inner;
use crate::error::KeysError;
use crate::provision::refusal;

/// How many messages of one component such a stream keeps; the next one drops the oldest.
pub(crate) const KEPT: usize = 8;

/// Why a service of the broker's gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// There is no such service.
    NoResponders,
    /// The system gives no randomness.
    Randomness,
    /// It did not answer within the operation timeout, or does not permit the question.
    TimedOut,
}

impl Inner {
    /// What a stream has of one component, unverified, the oldest first.
    pub(crate) async fn read(&self, stream: KeyStream<'_>, owner: &Endpoint) -> Result<Vec<Bytes>, KeysError> {
        let request = format!(r#"{{"batch":{KEPT},"next_by_subj":"{}","seq":1}}"#, stream.subject(owner));
        let read = async {
            let mut answers = self.replies.listen().ok_or(Unanswered::Randomness)?;
            let sent = self.nats.publish_with_reply(stream.lookup(), answers.reply(), request.into()).await;
            sent.map_err(|_| Unanswered::TimedOut)?;
            let mut found = Vec::new();
            while let Some(message) = answers.next().await {
                // The status is the broker's own word; headers of a stored message are its publisher's.
                match message.status {
                    None if found.len() < KEPT => found.push(message.payload),
                    Some(StatusCode::NO_RESPONDERS) => return Err(Unanswered::NoResponders),
                    _ => break,
                }
            }
            Ok(found)
        };
        let read = timeout(self.operation_timeout, read).await.unwrap_or(Err(Unanswered::TimedOut));
        read.map_err(|why| self.of_no_use(stream, why))
    }

    /// Leaves something of our own in a stream.
    pub(crate) async fn leave(&self, stream: KeyStream<'_>, bytes: Bytes) -> Result<(), KeysError> {
        let subject = stream.subject(&self.shared.principal.endpoint);
        let answer = self.ask_broker(subject, bytes).await.map_err(|why| self.of_no_use(stream, why))?;
        let refused = |reason| KeysError::Refused { stream: stream.name(), reason };
        let answer =
            serde_json::from_slice(&answer.payload).map_err(|_| refused("its answer is not understood".into()))?;
        match refusal(&answer) {
            Some((_, reason)) => Err(refused(reason)),
            None => Ok(()),
        }
    }

    /// Asks a service of the broker's own, and returns its one answer.
    pub(crate) async fn ask_broker(&self, subject: String, question: Bytes) -> Result<async_nats::Message, Unanswered> {
        let mut answers = self.replies.listen().ok_or(Unanswered::Randomness)?;
        let ask = async {
            let sent = self.nats.publish_with_reply(subject, answers.reply(), question).await;
            sent.map_err(|_| Unanswered::TimedOut)?;
            answers.next().await.ok_or(Unanswered::TimedOut)
        };
        let answer = timeout(self.operation_timeout, ask).await.unwrap_or(Err(Unanswered::TimedOut))?;
        if answer.status == Some(StatusCode::NO_RESPONDERS) { Err(Unanswered::NoResponders) } else { Ok(answer) }
    }

    fn of_no_use(&self, stream: KeyStream<'_>, why: Unanswered) -> KeysError {
        let stream = stream.name();
        match why {
            Unanswered::NoResponders => KeysError::NoStream { stream },
            Unanswered::Randomness => KeysError::Randomness,
            Unanswered::TimedOut => KeysError::TimedOut { stream, timeout_ms: self.operation_timeout.as_millis() },
        }
    }
}
