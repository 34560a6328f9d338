//! What was dropped, so that the sender can be told.

use crate::spool::message::{Class, EntryId, MESSAGE_ID_LEN, take, text};

/// Why a message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// Its `expires_at` has come.
    Expired,
    /// It has waited longer than [`Limits::age_ms`](crate::Limits::age_ms).
    TooOld,
    /// It was live, and made room for another.
    Displaced,
}

impl Why {
    pub(super) fn code(self) -> i64 {
        match self {
            Self::Expired => 0,
            Self::TooOld => 1,
            Self::Displaced => 2,
        }
    }

    pub(super) fn from_code(code: i64) -> Self {
        match code {
            0 => Self::Expired,
            1 => Self::TooOld,
            _ => Self::Displaced,
        }
    }
}

/// A report, for as long as the file exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportId(pub(super) i64);

/// A message was dropped. The report is kept, through restarts, until [`Spool::forget`](crate::Spool::forget).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// The report's id.
    pub id: ReportId,
    /// What the message's id in the spool was.
    pub entry: EntryId,
    /// The message's class.
    pub class: Class,
    /// Why.
    pub why: Why,
    /// When, in Unix milliseconds.
    pub at: i64,
    /// Whether a signed envelope had been stored for it. If so, it may have been sent, and may arrive all the same.
    pub was_signed: bool,
    /// Which message; `None` when its row could not be read.
    pub message: Option<DroppedMessage>,
}

/// What is left of a message that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedMessage {
    /// Its id.
    pub message_id: [u8; MESSAGE_ID_LEN],
    /// Its lane.
    pub lane: String,
    /// Its type.
    pub message_type: String,
}

/// What a report's row holds, before it is sealed: entry (8) ‖ readable (1) ‖ message_id (36) ‖ lane ‖ type, the texts each after its
/// length as a u16.
pub(super) fn encode(entry: EntryId, message: Option<&DroppedMessage>) -> Vec<u8> {
    let mut bytes = entry.0.to_be_bytes().to_vec();
    bytes.push(u8::from(message.is_some()));
    if let Some(message) = message {
        bytes.extend_from_slice(&message.message_id);
        for text in [&message.lane, &message.message_type] {
            // No longer than a u16 says: they come from a row that was read.
            bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

pub(super) fn decode(mut bytes: &[u8]) -> Option<(EntryId, Option<DroppedMessage>)> {
    let entry = EntryId(i64::from_be_bytes(*take(&mut bytes)?));
    let [readable] = *take(&mut bytes)?;
    if readable == 0 {
        return Some((entry, None));
    }
    let message_id = *take(&mut bytes)?;
    let (lane, message_type) = (text(&mut bytes)?, text(&mut bytes)?);
    Some((entry, Some(DroppedMessage { message_id, lane, message_type })))
}
