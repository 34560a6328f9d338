//! The time, and its units.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time, in Unix milliseconds.
pub(crate) fn unix_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration in milliseconds, up to the greatest number there is.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
