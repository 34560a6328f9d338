//! What the benchmark must show, and whether it does.

use std::fmt;

use serde::Serialize;

use super::report::{Contender, Requests};
use super::sealing::Sealing;
use super::senders::Memory;
use super::verification::Cost;

/// A figure that must be good enough.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Threshold {
    /// What was measured, with its unit.
    pub name: &'static str,
    /// What it must be.
    #[serde(flatten)]
    pub bound: Bound,
    /// What it is: of several rounds the median.
    pub found: f64,
    /// Whether that is good enough.
    pub holds: bool,
}

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// This, or more.
    AtLeast(f64),
    /// This, or less.
    AtMost(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "at least {bound}"),
            Self::AtMost(bound) => write!(f, "at most {bound}"),
        }
    }
}

impl Threshold {
    fn new(name: &'static str, bound: Bound, found: f64) -> Self {
        let holds = match bound {
            Bound::AtLeast(bound) => found >= bound,
            Bound::AtMost(bound) => found <= bound,
        };
        Self { name, bound, found, holds }
    }

    /// Whether it holds, in words.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        if self.holds { "holds" } else { "does not hold" }
    }
}

/// Compares what was measured with what must be. `ours` is this bus with batches, and `sealed` the same, sealed. That no message is missing is no line of
/// its own: a run in which one is makes no report.
pub(crate) fn judge(
    ours: &Contender,
    sealed: &Contender,
    requests: &Requests,
    [single, batch]: &[Cost; 2],
    sealing: &Sealing,
    memory: &Memory,
) -> Vec<Threshold> {
    use Bound::{AtLeast, AtMost};
    let figures = [
        ("messages a second, batches on, over async-nats one a publish", AtLeast(1.5), Some(ours.ratio.median)),
        ("publish to verified at that rate, p99, ms", AtMost(20.0), Some(ours.p99_us.median / 1e3)),
        ("request and answer, p50 over async-nats", AtMost(1.6), Some(requests.ratio.median)),
        (
            "request and answer, beyond async-nats and the signatures, µs",
            AtMost(40.0),
            requests.beyond_crypto_us.map(|beyond| beyond.median),
        ),
        ("verification of a single message without Ed25519, µs", AtMost(2.0), Some(single.rest_us.median)),
        ("verification of a batch's member without Ed25519, µs", AtMost(0.5), Some(batch.rest_us.median)),
        (
            "messages a second, sealed, batches on, over async-nats one a publish",
            AtLeast(1.2),
            Some(sealed.ratio.median),
        ),
        ("added by sealing to a payload of a batch of 64, µs", AtMost(0.5), Some(sealing.added.sealing_us.median)),
        ("added by opening to a payload of a batch of 64, µs", AtMost(0.5), Some(sealing.added.opening_us.median)),
        ("request and answer, sealed, p50 over signed alone", AtMost(1.15), Some(requests.sealed_ratio.median)),
        ("allocated memory of a receiver for each known sender, bytes", AtMost(2_000.0), Some(memory.allocated_bytes)),
    ];
    // What was not measured does not hold.
    let judged = figures.map(|(name, bound, found)| Threshold::new(name, bound, found.unwrap_or(f64::NAN)));
    judged.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_holds_at_its_bound_and_not_beyond() {
        let holds = |bound, found| Threshold::new("", bound, found).holds;
        assert!(holds(Bound::AtLeast(1.5), 1.5) && !holds(Bound::AtLeast(1.5), 1.49));
        assert!(holds(Bound::AtMost(40.0), 40.0) && !holds(Bound::AtMost(40.0), 40.1));
        assert!(!holds(Bound::AtMost(40.0), f64::NAN));
    }

    #[test]
    fn programs_read_which_bound_it_is() {
        let threshold = Threshold::new("a ratio", Bound::AtLeast(1.5), 1.25);
        let json = serde_json::to_string(&threshold).unwrap();
        assert_eq!(json, r#"{"name":"a ratio","at_least":1.5,"found":1.25,"holds":false}"#);
    }
}
