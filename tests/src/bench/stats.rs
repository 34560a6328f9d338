//! Medians and percentiles.

use serde::Serialize;

/// A percentile of sorted numbers.
///
/// # Panics
///
/// When there are none.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len() - 1);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a short run")]
    let value = sorted[place] as f64;
    value
}

/// What several runs came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of all these figures.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (lower, upper) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
        Self { median: f64::midpoint(lower, upper), min: figures[0], max: figures[figures.len() - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    }

    #[test]
    fn a_percentile_is_one_of_the_figures() {
        let figures: Vec<u64> = (1..=200).collect();
        assert_eq!((percentile(&figures, 50), percentile(&figures, 99)), (101.0, 199.0));
        assert_eq!(percentile(&[7], 99), 7.0);
    }
}
