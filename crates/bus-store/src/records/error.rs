//! Why a message is not handled.

use crate::error::StoreError;

/// Why a message is not handled now, or not recorded. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// There are as many records of this sender as there may be, and all of them are needed. The message is to be delivered again
    /// later.
    #[error("{sender} has {limit} messages on record, which is its limit; have the message delivered again later")]
    OverQuota {
        /// The sender.
        sender: String,
        /// The limit.
        limit: u64,
    },
    /// The message has expired. There may have been a record of it, which is gone: whether it was handled is not known any more.
    #[error("the message has expired, and may not be handled")]
    Expired,
    /// A member's index is too large.
    #[error("a batch has at most {max} members")]
    Member {
        /// How many members a batch has at most.
        max: u16,
    },
    /// The interruption was settled already, or the message was finished after all.
    #[error("the message is not among the interrupted ones any more; list them again")]
    NotBegun,
    /// The file. When it is in use by another process for longer than [`RecordLimits::busy`](crate::RecordLimits::busy), the message is
    /// to be delivered again later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a handler that was handed a message did not handle it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError<E> {
    /// The handler failed, with its own error.
    #[error("the handler failed")]
    Handler(#[source] E),
    /// The records failed.
    #[error(transparent)]
    Records(#[from] RecordsError),
}
