//! Why the spool does not do what it was asked for.

use std::fmt;

use crate::error::StoreError;

/// A bound of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bound {
    /// [`Limits::bytes`](crate::Limits::bytes).
    Bytes,
    /// [`Limits::messages`](crate::Limits::messages).
    Messages,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Messages => "messages",
        })
    }
}

/// Why the spool does not do what it was asked for. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The message does not fit beside the durable ones and the dead letters that are there.
    #[error("the spool is full: {limit} {what} is its limit; drain it, remove dead letters, or raise the limit")]
    Full {
        /// The bound that was reached.
        what: Bound,
        /// Its value.
        limit: u64,
    },
    /// The message has expired already.
    #[error("the message has expired already")]
    Expired,
    /// A part of the message is longer than the spool can hold, or has another form.
    #[error("the message cannot be spooled: {what}")]
    Message {
        /// What is wrong.
        what: &'static str,
    },
    /// A signed envelope is for messages of one lane that are in the spool, each once.
    #[error("an envelope holds messages of one lane that are in the spool; peek again")]
    Envelope,
    /// No such dead letter.
    #[error("there is no such dead letter; list them again")]
    NoDeadLetter,
    /// A message that was asked for by its id can no longer be read: its row was damaged.
    #[error("the stored message is damaged; remove it")]
    Unreadable,
    /// The spool was closed before this was done, or its thread ended.
    #[error("the spool is closed")]
    Closed,
    /// The file.
    #[error(transparent)]
    Store(#[from] StoreError),
}
