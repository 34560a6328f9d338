//! Values on the command line, and times in the output.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Reads a duration such as `10ms`, `1.5s`, `2m` or `1h 30m`, greater than zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration =
        text.parse().map_err(|_| "it must be a number and a unit, such as 10ms, 1s, 2m or 1h".to_owned())?;
    match Duration::try_from(parsed) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it must be greater than zero".to_owned()),
    }
}

/// A time in Unix seconds, in UTC as RFC 3339 writes it.
pub(crate) fn time_of_seconds(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// A time in Unix milliseconds, in UTC with all three digits, as RFC 3339 writes it.
pub(crate) fn time_of_millis(millis: i64) -> String {
    Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), |time| format!("{time:.3}"))
}

/// A span of seconds, for people: `42s`, `3m 05s`, `2h 07m`, `9d 04h`.
pub(crate) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(duration("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(duration("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "0s", "-1s", "1 parsec"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(time_of_seconds(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_of_millis(1_790_000_000_500), "2026-09-21T14:13:20.500Z");
    }

    #[test]
    fn spans_are_short() {
        let shown = [0, 59, 60, 3_599, 3_600, 90_061].map(span);
        assert_eq!(shown, ["0s", "59s", "1m 00s", "59m 59s", "1h 00m", "1d 01h"]);
    }
}
