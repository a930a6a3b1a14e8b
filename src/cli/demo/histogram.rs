//! How long calls took, in a fixed 3 KiB.
//!
//! A list of all latencies would grow with the run, and an average hides the very calls that a time-out
//! is there for. So latencies fall into buckets whose width grows with the value: sixteen to each
//! power of two, which is 6 % of the value at worst, from a microsecond to two minutes.

use std::time::Duration;

/// Buckets to each power of two.
const FINE: u64 = 16;
/// `log2(FINE)`.
const FINE_BITS: u32 = FINE.trailing_zeros();
/// The highest power of two (in microseconds, about 134 s) that has buckets of its own.
const TOP_BIT: u32 = 26;
const BUCKETS: usize = ((TOP_BIT - FINE_BITS + 2) * FINE as u32) as usize;

/// Counts of latencies by size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
}

impl Histogram {
    /// Without any call.
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into(), total: 0 }
    }

    /// Counts one call; what is over two minutes counts as that.
    pub(crate) fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    /// Adds the calls of another one.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// The latency that this share (0 to 1) of all calls did not exceed; none without calls.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        // The rank is at least 1: the smallest call is the quantile of every share near 0.
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        let index = self.counts.iter().position(|&count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_micros(middle(index)))
    }
}

fn bucket(micros: u64) -> usize {
    if micros < FINE {
        return micros as usize;
    }
    let micros = micros.min((1 << (TOP_BIT + 1)) - 1);
    let bit = micros.ilog2();
    let fine = (micros >> (bit - FINE_BITS)) % FINE;
    (u64::from(bit - FINE_BITS + 1) * FINE + fine) as usize
}

fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket;
    }
    let shift = bucket / FINE - 1;
    ((FINE + bucket % FINE) << shift) + ((1 << shift) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Random;

    #[test]
    fn every_latency_is_told_within_six_per_cent() {
        let mut random = Random::seeded(4);
        for _ in 0..10_000 {
            let bits = random.below(27);
            let micros = 1 + random.bits() % (1 << bits);
            let mut histogram = Histogram::new();
            histogram.record(Duration::from_micros(micros));
            let told = histogram.quantile(0.5).unwrap().as_micros() as f64;
            let error = (told - micros as f64).abs() / micros as f64;
            assert!(error <= 0.0625, "{micros} µs was told as {told}");
        }
    }

    #[test]
    fn quantiles_are_ranks() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=10).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        let at = |share| histogram.quantile(share).unwrap().as_micros();
        assert_eq!((at(0.0), at(0.5), at(0.9), at(0.91), at(1.0)), (1, 5, 9, 10, 10));
    }

    #[test]
    fn the_longest_of_calls_has_a_bucket() {
        let mut histogram = Histogram::new();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.quantile(1.0).unwrap().as_secs(), 132);
        let mut sum = Histogram::new();
        sum.add(&histogram);
        assert_eq!(sum, histogram);
    }
}
