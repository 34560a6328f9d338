//! Values on the command line, and times in the output.

use std::time::Duration;

use bus_crypto::KeyId;
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

/// As [`duration`], or `0`.
pub(crate) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text) }
}

/// Reads a size in bytes, such as `1048576`, `512MiB` or `8GiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let units = [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let unit = units.into_iter().find(|(name, _)| *name == unit.trim_start());
    let bytes = unit.and_then(|(_, length)| number.parse::<u64>().ok()?.checked_mul(length));
    bytes.ok_or_else(|| "it must be a whole number of bytes, or with a unit, such as 512MiB or 8GiB".to_owned())
}

/// Reads a percentage.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("it must be a number from 0 to 100".to_owned()),
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

/// The first 16 of the 64 digits of a key id, for people: enough to tell keys apart that nobody made to be mistaken.
pub(crate) fn short(key_id: &KeyId) -> String {
    key_id.as_bytes().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A number and what it counts: `1 component`, `2 components`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
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
        assert_eq!(duration_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(duration_or_zero("2s"), Ok(Duration::from_secs(2)));
        for bad in ["", "5", "-1s"] {
            assert!(duration_or_zero(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_with_or_without_a_unit() {
        assert_eq!(["1048576", "1 MiB", "8GiB", "0B"].map(size), [Ok(1 << 20), Ok(1 << 20), Ok(8 << 30), Ok(0)]);
        for bad in ["", "MiB", "1.5GiB", "-1", "8GB", "99999999TiB", "ä"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn percentages_stay_within_their_bounds() {
        assert_eq!(["0", "12.5", "100"].map(percent), [Ok(0.0), Ok(12.5), Ok(100.0)]);
        for bad in ["", "-1", "100.1", "NaN", "inf", "much"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_written_with_what_they_count() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "message")), ["0 messages", "1 message", "2 messages"]);
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
