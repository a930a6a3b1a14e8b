//! When to look again, as a pure function of the last answer.
//!
//! Docker's DNS hands out a TTL of 600 s for addresses that change within one, and others hand out 0;
//! neither is a good rhythm. A TTL is therefore clamped to a range, and spread, so that thousands of
//! services that started together do not go on asking together.

use std::time::Duration;

use super::Again;

/// A look that was asked for early begins no sooner than this after the last one has ended.
const EARLY: Duration = Duration::from_millis(500);
/// The share of an interval over which looks are spread.
const SPREAD: f64 = 0.2;
/// The share of a poll's interval that is added at random.
const POLL_SPREAD: f64 = 0.1;

/// The range in which answers are trusted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    pub(super) ttl_min: Duration,
    pub(super) ttl_max: Duration,
}

impl Rhythm {
    /// The pause before the next look; `None` is for good.
    ///
    /// `futile` counts the looks in a row, this one included, that brought no endpoints; `share` is
    /// uniform in `[0, 1)`.
    pub(super) fn pause(&self, again: Again, futile: u32, share: f64) -> Option<Duration> {
        match again {
            Again::Never => None,
            Again::In(time) => Some(time.mul_f64(1.0 + POLL_SPREAD * share)),
            Again::Ttl(ttl) => Some(self.spread(ttl, share)),
            Again::BackOff => {
                let doubled = self.ttl_min.saturating_mul(1 << futile.saturating_sub(1).min(16));
                Some(self.spread(doubled, share))
            }
        }
    }

    /// The pause that an early look has to keep.
    pub(super) fn early(&self) -> Duration {
        EARLY.min(self.ttl_min)
    }

    /// A time clamped to the range and spread over its last fifth; at the lower end of the range over
    /// the fifth that follows, as long as the upper end allows it.
    fn spread(&self, time: Duration, share: f64) -> Duration {
        let time = time.clamp(self.ttl_min.min(self.ttl_max), self.ttl_max);
        let early = time.mul_f64(SPREAD * share);
        if time - early >= self.ttl_min { time - early } else { (time + early).min(self.ttl_max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RHYTHM: Rhythm = Rhythm { ttl_min: Duration::from_secs(1), ttl_max: Duration::from_secs(5) };

    fn bounds(again: Again, futile: u32) -> (f64, f64) {
        let at = |share| RHYTHM.pause(again, futile, share).unwrap().as_secs_f64();
        let all: Vec<f64> = (0..1000).map(|i| at(f64::from(i) / 1000.0)).collect();
        (all.iter().copied().fold(f64::MAX, f64::min), all.iter().copied().fold(0.0, f64::max))
    }

    #[test]
    fn a_ttl_is_clamped_and_spread_within_the_range() {
        let (low, high) = bounds(Again::Ttl(Duration::from_secs(600)), 0);
        assert!((4.0..4.01).contains(&low) && high == 5.0, "{low} {high}");
        let (low, high) = bounds(Again::Ttl(Duration::ZERO), 0);
        assert!(low == 1.0 && (1.19..1.2).contains(&high), "{low} {high}");
        let (low, high) = bounds(Again::Ttl(Duration::from_secs(3)), 0);
        assert!((2.4..2.41).contains(&low) && high == 3.0, "{low} {high}");
    }

    #[test]
    fn futile_looks_become_rarer_up_to_the_upper_end() {
        let highs: Vec<f64> = [1, 2, 3, 4, 40, u32::MAX].map(|n| bounds(Again::BackOff, n).1).into();
        assert!(highs[0] < 1.2 && highs[1] == 2.0 && highs[2] == 4.0, "{highs:?}");
        assert_eq!(highs[3..], [5.0, 5.0, 5.0]);
    }

    #[test]
    fn an_odd_range_never_panics() {
        let upside_down = Rhythm { ttl_min: Duration::from_secs(9), ttl_max: Duration::from_secs(5) };
        assert_eq!(upside_down.pause(Again::Ttl(Duration::MAX), 0, 0.5), Some(Duration::from_secs(5)));
        let endless = Rhythm { ttl_min: Duration::MAX, ttl_max: Duration::MAX };
        assert_eq!(endless.pause(Again::BackOff, u32::MAX, 0.0), Some(Duration::MAX));
    }
}
