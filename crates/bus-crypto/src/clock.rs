//! The receiver's time, as an argument.

/// What a receiver knows about the time, and how far it lets clocks differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    now_unix_ms: Option<i64>,
    skew_ms: i64,
}

impl Clock {
    /// The time now, in Unix milliseconds, and how far clocks may differ, in milliseconds (30,000 unless configured; a
    /// negative value counts as 0).
    #[must_use]
    pub fn new(now_unix_ms: i64, skew_ms: i64) -> Self {
        Self { now_unix_ms: Some(now_unix_ms), skew_ms: skew_ms.max(0) }
    }

    /// For evidence that was captured earlier: only the message's own time is compared with the key's, and a key may be
    /// past its `verify_until`.
    ///
    /// Never use it for messages that arrive: whoever gets hold of a discarded key can sign with any timestamp from the
    /// time of that key.
    #[must_use]
    pub fn dangerous_without_now(skew_ms: i64) -> Self {
        Self { now_unix_ms: None, skew_ms: skew_ms.max(0) }
    }

    /// How far past `moment` it is now, in milliseconds, if it is.
    pub(crate) fn late_for(&self, moment: i64) -> Option<i64> {
        self.now_unix_ms.map(|now| now.saturating_sub(moment)).filter(|late_ms| *late_ms > 0)
    }

    /// How far before `moment` it is now, in milliseconds, if that is more than clocks may differ.
    pub(crate) fn early_for(&self, moment: i64) -> Option<i64> {
        self.now_unix_ms.map(|now| moment.saturating_sub(now)).filter(|early_ms| *early_ms > self.skew_ms)
    }

    /// How far clocks may differ, in milliseconds.
    pub(crate) fn skew_ms(&self) -> i64 {
        self.skew_ms
    }
}
