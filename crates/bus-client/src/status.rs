//! How the connection is doing: its state, what happened to it, and counts.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use bus_crypto::KeyId;

use crate::inbound::Gap;

/// The state of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Connected, and one authenticated round trip succeeded since.
    Connected,
    /// Not connected; attempts to reconnect go on.
    Disconnected,
    /// Closed for good.
    Closed(CloseReason),
}

/// Why a client closed for good.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The program drained it.
    Drained,
    /// The broker refused this identity too often in a row.
    Refused,
    /// The connection's own task ended, e.g. with the runtime that it was made on.
    Ended,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drained => "it was drained",
            Self::Refused => "the broker refused its identity repeatedly",
            Self::Ended => "its connection's task ended",
        })
    }
}

/// Something that happened to the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusEvent {
    /// Connected, or connected again; a round trip succeeded.
    Connected,
    /// The connection is gone; attempts to reconnect go on.
    Disconnected,
    /// An attempt to reconnect failed.
    ReconnectFailed {
        /// What was wrong.
        reason: String,
    },
    /// The broker refused this identity.
    Refused,
    /// The broker denied publishing to a subject.
    PublishDenied {
        /// The subject.
        subject: String,
    },
    /// The broker denied, or withdrew, a subscription.
    SubscriptionDenied {
        /// What was subscribed to.
        filter: String,
    },
    /// A subscription is read too slowly; its newest messages are being dropped. Reported at most once a second; how
    /// many were missed is counted from the messages' sequences.
    SlowConsumer,
    /// Envelopes were missed: a later one of the same key arrived on the same subject. At most 20 gaps a second are events;
    /// [`Subscription::take_gaps`](crate::Subscription::take_gaps) has the latest, and the statistics count all.
    Gap(Gap),
    /// Messages that waited to be sent could not be, or expired.
    Unsent {
        /// Where they were to go.
        subject: String,
        /// How many they were.
        messages: usize,
        /// Why.
        reason: String,
    },
    /// From now on messages are signed with another key.
    SigningKeyRotated {
        /// The key that was used before.
        former: KeyId,
        /// The new key.
        key_id: KeyId,
    },
    /// It was time for another signing key, and none could be made. The former one stays in use as long as it may sign.
    SigningKeyFailed {
        /// Why.
        reason: String,
    },
    /// Others are to seal to another key from now on.
    SealingKeyRotated {
        /// The version of the new key.
        version: u64,
    },
    /// It was time for another sealing key, and none could be made. The former one stays in use as long as it is good.
    SealingKeyFailed {
        /// Why.
        reason: String,
    },
    /// This host's clock differs from the broker's by more than receivers accept: one of the two is wrong, and receivers
    /// whose clocks are right refuse what this client sends, or it refuses what they send.
    ClockDiffers {
        /// How far this clock is ahead, in milliseconds; negative when it is behind.
        ahead_ms: i64,
    },
    /// The certificate was rotated; the client reconnects under the new one.
    IdentityRotated,
    /// The certificate files changed to something unusable; the former certificate stays in use.
    RotationFailed {
        /// What is wrong with them.
        reason: String,
    },
    /// The server is about to shut down. A client that was given other servers goes to one of them within five seconds.
    LameDuck,
    /// The server reported another error.
    ServerError {
        /// What it said.
        text: String,
    },
    /// Closed for good.
    Closed(CloseReason),
}

/// Counts since the client was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Messages handed to the connection.
    pub published: u64,
    /// Envelopes handed to the connection: fewer than messages where some shared one.
    pub envelopes: u64,
    /// Messages that waited to be sent and could not be, or expired.
    pub unsent: u64,
    /// Messages that the policy denied before anything was sent.
    pub denied: u64,
    /// Denials that the broker reported.
    pub broker_denied: u64,
    /// Messages that subscriptions yielded.
    pub received: u64,
    /// Messages that arrived and were refused.
    pub rejected: u64,
    /// Envelopes that subscriptions missed, counted from the senders' sequences.
    pub missed: u64,
    /// How often the connection was established.
    pub connects: u64,
}

/// The live counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) envelopes: AtomicU64,
    pub(crate) unsent: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) broker_denied: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) connects: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            published: read(&self.published),
            envelopes: read(&self.envelopes),
            unsent: read(&self.unsent),
            denied: read(&self.denied),
            broker_denied: read(&self.broker_denied),
            received: read(&self.received),
            rejected: read(&self.rejected),
            missed: read(&self.missed),
            connects: read(&self.connects),
        }
    }
}

/// Adds to a counter, up to its greatest value.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    // The closure always gives a value, so this cannot fail.
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count.saturating_add(more)));
}

/// Adds one to a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
