//! A message as it arrives, and what is known of it.

use crate::records::RecordsError;

/// How many members a batch has at most.
pub const MAX_MEMBERS: u16 = 256;

/// One message, or one member of a batch, that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Who sent it: the verified principal.
    pub sender: &'a str,
    /// The id of the envelope, which names it together with the sender.
    pub message_id: &'a str,
    /// The member's index in its batch; 0 for a message that is alone. Less than [`MAX_MEMBERS`].
    pub member: u16,
    /// Unix milliseconds until which the message may be delivered, and so has to be on record.
    pub expires_at: i64,
    /// Unix milliseconds: now.
    pub now: i64,
}

impl Delivery<'_> {
    pub(super) fn check(&self) -> Result<(), RecordsError> {
        if self.member >= MAX_MEMBERS {
            return Err(RecordsError::Member { max: MAX_MEMBERS });
        }
        if self.expires_at <= self.now {
            return Err(RecordsError::Expired);
        }
        Ok(())
    }
}

/// What is on record about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Known {
    /// Nothing: it is to be handled.
    Fresh,
    /// It was begun, record first, and not finished: its handler is at work, or was interrupted. It is not handled again.
    Begun,
    /// It was handled.
    Handled,
}

/// What came of handing a message to its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome<T> {
    /// The handler has handled it, and said this.
    Done(T),
    /// It was not handed over: it had been handled.
    Handled,
    /// It was not handed over: it had been begun, record first, and not finished. See [`Records::interrupted`](crate::Records::interrupted).
    Begun,
}

/// A message that was begun, record first, and not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interrupted {
    /// Who sent it.
    pub sender: String,
    /// Its envelope's id.
    pub message_id: String,
    /// The member's index.
    pub member: u16,
    /// When it was begun, in Unix milliseconds.
    pub begun_at: i64,
}

/// The members of a batch that were handled, as a row holds them: bit 0 of byte 0 is member 0, and bytes of no member are left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Members(Vec<u8>);

impl Members {
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn contains(&self, member: u16) -> bool {
        self.0.get(usize::from(member / 8)).is_some_and(|byte| byte & (1 << (member % 8)) != 0)
    }

    pub(super) fn insert(&mut self, member: u16) {
        let index = usize::from(member / 8);
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        self.0[index] |= 1 << (member % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_has_a_bit_of_its_own() {
        let mut members = Members::default();
        for member in (0..MAX_MEMBERS).rev() {
            assert!(!members.contains(member), "{member}");
            members.insert(member);
            assert!(members.contains(member), "{member}");
        }
        assert_eq!(members.as_bytes(), [0xff; 32]);
    }
}
