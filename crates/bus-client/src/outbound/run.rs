//! Messages that wait for one subject, as they will share an envelope.

use std::fmt;
use std::ops::Range;

use bus_crypto::MAX_MEMBERS;
use bus_proto::v1::envelope::Payload;

use super::encode::{Common, member_cost, put_payload};

/// One message that waits to be signed, apart from what it shares with others.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) message_id: [u8; 36],
    pub(crate) timestamp: i64,
    /// 0 for never.
    pub(crate) expires_at: i64,
    pub(crate) correlation: Option<[u8; 32]>,
    /// Where its payload's field stands among the encoded payloads of its run. Before it is in one: only its length counts.
    pub(crate) payload: Range<usize>,
}

/// Messages in the order in which they were published, which become one envelope: a single message, or a batch.
#[derive(Default)]
pub(crate) struct Run {
    common: Common,
    payloads: Vec<u8>,
    messages: Vec<Waiting>,
    members_len: usize,
    /// Whether one of them expires.
    expiring: bool,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what they say: it may be about to be sealed.
        f.debug_struct("Run").field("common", &self.common).field("messages", &self.messages).finish_non_exhaustive()
    }
}

impl Run {
    /// A run of messages that have this in common, and nothing in it yet.
    pub(crate) fn new(common: Common) -> Self {
        Self { common, ..Self::default() }
    }

    /// Empties it, for other messages. What it has allocated stays.
    pub(crate) fn reuse(&mut self, common: Common) {
        self.common = common;
        self.payloads.clear();
        self.messages.clear();
        (self.members_len, self.expiring) = (0, false);
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }

    pub(crate) fn messages(&self) -> &[Waiting] {
        &self.messages
    }

    /// The encoded payload of one of its messages, with its tag and length.
    pub(crate) fn payload(&self, message: &Waiting) -> &[u8] {
        self.payloads.get(message.payload.clone()).unwrap_or_default()
    }

    /// How long its messages are together as members of a batch.
    pub(crate) fn members_len(&self) -> usize {
        self.members_len
    }

    /// Whether another message may join it, which has `common` with others.
    pub(crate) fn takes(&self, common: &Common, message: &Waiting, max_members: usize, max_len: usize) -> bool {
        self.messages.len() < max_members.min(MAX_MEMBERS)
            && self.members_len + member_cost(message) <= max_len
            && self.common == *common
    }

    /// Takes in a message; its place among the payloads is filled in.
    pub(crate) fn push(&mut self, mut message: Waiting, payload: &Payload) {
        let start = self.payloads.len();
        put_payload(&mut self.payloads, payload);
        message.payload = start..self.payloads.len();
        self.members_len += member_cost(&message);
        self.expiring |= message.expires_at != 0;
        self.messages.push(message);
    }

    /// Leaves out what has expired, and says how many messages that were.
    pub(crate) fn drop_expired(&mut self, now_unix_ms: i64) -> usize {
        if !self.expiring {
            return 0;
        }
        let before = self.messages.len();
        self.messages.retain(|message| message.expires_at == 0 || message.expires_at > now_unix_ms);
        self.members_len = self.messages.iter().map(member_cost).sum();
        before - self.messages.len()
    }
}
