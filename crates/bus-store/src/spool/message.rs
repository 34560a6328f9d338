//! What is spooled, and how a row holds it.

use std::fmt;

use crate::spool::SpoolError;

/// The length of a message id, in bytes: a UUID in its text form.
pub const MESSAGE_ID_LEN: usize = 36;

/// Which promise a message was accepted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// It is delivered or its sender is told. It is refused when it does not fit.
    Durable,
    /// It is worth something for a while. The oldest ones make room for what is newer, or durable.
    Live,
}

impl Class {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Durable => 0,
            Self::Live => 1,
        }
    }

    pub(super) fn from_code(code: i64) -> Self {
        if code == 1 { Self::Live } else { Self::Durable }
    }
}

/// A message in the spool, for as long as the file exists: ids rise in the order of acceptance, and none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub(super) i64);

impl EntryId {
    /// The number, for people.
    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }

    /// The id with this number, as a person gives it back.
    #[must_use]
    pub fn from_number(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A message, before it is signed.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Its promise.
    pub class: Class,
    /// Whatever keeps its order: messages of one lane are drained in the order in which they were accepted. At most 65,535 bytes.
    pub lane: String,
    /// The type's token, at most 65,535 bytes.
    pub message_type: String,
    /// The message's id, which stays the same however often it is signed.
    pub message_id: [u8; MESSAGE_ID_LEN],
    /// Unix milliseconds from which on it is not delivered any more; 0 is never.
    pub expires_at: i64,
    /// Kept for the caller, as it is.
    pub priority: u8,
    /// Unix milliseconds: now.
    pub accepted_at: i64,
    /// The encoded payload, kept as it is.
    pub content: Vec<u8>,
}

/// The content stays out of logs.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, lane, message_type, message_id, expires_at, priority, accepted_at, content } = self;
        f.debug_struct("Message")
            .field("class", class)
            .field("lane", lane)
            .field("message_type", message_type)
            .field("message_id", &String::from_utf8_lossy(message_id))
            .field("expires_at", expires_at)
            .field("priority", priority)
            .field("accepted_at", accepted_at)
            .field("content_len", &content.len())
            .finish()
    }
}

/// A message that is in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id in the spool.
    pub id: EntryId,
    /// The message.
    pub message: Message,
}

/// class (1) ‖ priority (1) ‖ accepted_at (8) ‖ expires_at (8) ‖ message_id (36).
const FIXED_LEN: usize = 18 + MESSAGE_ID_LEN;

impl Message {
    /// What a row holds, before it is sealed: the fixed part, lane and type each after its length as a u16, the content; numbers
    /// big-endian.
    pub(super) fn encode(&self) -> Result<Vec<u8>, SpoolError> {
        let too_long = |what| SpoolError::Message { what };
        let lane = u16::try_from(self.lane.len()).map_err(|_| too_long("its lane is longer than 65,535 bytes"))?;
        let kind =
            u16::try_from(self.message_type.len()).map_err(|_| too_long("its type is longer than 65,535 bytes"))?;
        let len = FIXED_LEN + 4 + self.lane.len() + self.message_type.len() + self.content.len();
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&[self.class.code(), self.priority]);
        bytes.extend_from_slice(&self.accepted_at.to_be_bytes());
        bytes.extend_from_slice(&self.expires_at.to_be_bytes());
        bytes.extend_from_slice(&self.message_id);
        bytes.extend_from_slice(&lane.to_be_bytes());
        bytes.extend_from_slice(self.lane.as_bytes());
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(self.message_type.as_bytes());
        bytes.extend_from_slice(&self.content);
        Ok(bytes)
    }

    /// `None` when the bytes are not what [`encode`](Self::encode) makes.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let [class, priority] = *take(&mut bytes)?;
        let accepted_at = i64::from_be_bytes(*take(&mut bytes)?);
        let expires_at = i64::from_be_bytes(*take(&mut bytes)?);
        let message_id = *take(&mut bytes)?;
        let lane = text(&mut bytes)?;
        let message_type = text(&mut bytes)?;
        let class = Class::from_code(class.into());
        let content = bytes.to_vec();
        Some(Self { class, lane, message_type, message_id, expires_at, priority, accepted_at, content })
    }
}

pub(super) fn take<'b, const N: usize>(bytes: &mut &'b [u8]) -> Option<&'b [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

/// A text after its length as a u16.
pub(super) fn text(bytes: &mut &[u8]) -> Option<String> {
    let len = usize::from(u16::from_be_bytes(*take(bytes)?));
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    std::str::from_utf8(text).ok().map(str::to_owned)
}
