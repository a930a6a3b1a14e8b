//! Peak EWMA: how long does an endpoint take, by its latest answers?
//!
//! Finagle's measure. An answer that took longer than the average *is* the new average, at once, because an
//! endpoint that has begun to stall must be felt with its first slow answer. Answers that took less pull the
//! average down, by `e^(-t/10 s)` for the time since the last one. Without answers it falls in the same way,
//! so that an endpoint that was slow once is tried again by and by.
//!
//! It packs into 64 bits, for an atomic that workers share: read, observe, store. A lost race loses one
//! sample, and the next peak is felt again. To fit, time is counted in milliseconds from a base that all
//! sharers agree on, and wraps after 49 days: an endpoint that nobody asked for so long may seem younger
//! than it is, by which time its latency has long fallen to nothing.

use std::time::{Duration, Instant};

/// In how long the past loses e-fold, at the most (Finagle's and linkerd's default) and at the least.
const DECAY_MS: f64 = 10_000.0;
const SHORTEST_DECAY_MS: f64 = 1_000.0;

/// The decay of a latency, as a multiple of it.
const DECAY_FACTOR: f64 = 50.0;

/// How far the clock of one sharer may be behind another's: a stamp in the near future is now.
const RACE_MS: u32 = 60_000;

/// A peak-sensitive moving average of latencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakEwma {
    base: Instant,
    /// Microseconds; 0 when nothing is known.
    micros: f32,
    /// When `micros` was true, in milliseconds from `base`, wrapping.
    stamp: u32,
}

impl PeakEwma {
    /// Nothing is known yet. Its packed form is 0.
    pub fn new(base: Instant) -> Self {
        Self { base, micros: 0.0, stamp: 0 }
    }

    /// Reads the packed form; `base` must be that of who packed it.
    pub fn unpack(base: Instant, packed: u64) -> Self {
        // Any 64 bits must do: what is not a latency is nothing known.
        let micros = f32::from_bits((packed >> 32) as u32);
        let micros = if micros.is_finite() { micros.max(0.0) } else { 0.0 };
        Self { base, micros, stamp: packed as u32 }
    }

    /// The packed form.
    pub fn pack(self) -> u64 {
        u64::from(self.micros.to_bits()) << 32 | u64::from(self.stamp)
    }

    /// Takes in that an answer took `took`, counted as a microsecond at least.
    ///
    /// A failure that came fast is no good latency: whoever reports one should report what it cost, such as
    /// the connect time-out, or nothing.
    pub fn observe(&mut self, now: Instant, took: Duration) {
        let took = (took.as_secs_f64() * 1e6).max(1.0) as f32;
        if self.micros <= 0.0 || took >= self.micros {
            // A peak, or the first.
            *self = Self { base: self.base, micros: took, stamp: self.millis(now) };
            return;
        }
        let elapsed = self.elapsed_ms(now);
        if elapsed == 0 {
            // Within one tick of the stamp a lower one weighs nothing; the stamp stays, so that time adds up.
            return;
        }
        let past = self.keeps(elapsed);
        self.micros = (f64::from(self.micros) * past + f64::from(took) * (1.0 - past)) as f32;
        self.stamp = self.millis(now);
    }

    /// The latency in microseconds as it stands now; 0 when nothing is known, or no longer.
    pub fn read(self, now: Instant) -> f64 {
        match self.elapsed_ms(now) {
            0 => f64::from(self.micros),
            elapsed => f64::from(self.micros) * self.keeps(elapsed),
        }
    }

    /// What is left of the past after so long.
    fn keeps(self, elapsed_ms: u32) -> f64 {
        let decay = (f64::from(self.micros) / 1e3 * DECAY_FACTOR).clamp(SHORTEST_DECAY_MS, DECAY_MS);
        (-f64::from(elapsed_ms) / decay).exp()
    }

    fn elapsed_ms(self, now: Instant) -> u32 {
        let elapsed = self.millis(now).wrapping_sub(self.stamp);
        if elapsed > u32::MAX - RACE_MS { 0 } else { elapsed }
    }

    fn millis(self, now: Instant) -> u32 {
        now.saturating_duration_since(self.base).as_millis() as u32
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
mod tests {
    use super::*;
    use crate::model::Random;

    const MS: Duration = Duration::from_millis(1);

    fn near(got: f64, expected: f64) -> bool {
        (got - expected).abs() <= expected * 1e-3
    }

    #[test]
    fn it_jumps_up_to_a_peak_at_once_and_comes_down_slowly() {
        let base = Instant::now();
        let mut ewma = PeakEwma::new(base);
        ewma.observe(base, 10 * MS);
        assert!(near(ewma.read(base), 10_000.0));
        ewma.observe(base + MS, 500 * MS);
        assert!(near(ewma.read(base + MS), 500_000.0), "a peak counts in full");
        ewma.observe(base + 10_001 * MS, 10 * MS);
        let expected = 500_000.0 / std::f64::consts::E + 10_000.0 * (1.0 - 1.0 / std::f64::consts::E);
        assert!(near(ewma.read(base + 10_001 * MS), expected));
    }

    #[test]
    fn without_answers_it_falls_to_nothing() {
        let base = Instant::now();
        let mut ewma = PeakEwma::new(base);
        ewma.observe(base, 1_000 * MS);
        assert!(near(ewma.read(base + 10_000 * MS), 367_879.4));
        assert!(ewma.read(base + 120_000 * MS) < 10.0);
        assert_eq!(ewma.read(base + Duration::from_secs(86_400)), 0.0);
    }

    #[test]
    fn a_hiccup_is_forgotten_in_seconds() {
        let base = Instant::now();
        let mut ewma = PeakEwma::new(base);
        ewma.observe(base, 20 * MS);
        assert!(near(ewma.read(base + 1_000 * MS), 20_000.0 / std::f64::consts::E));
        assert!(ewma.read(base + 4_000 * MS) < 500.0, "about what the others take");
    }

    #[test]
    fn nothing_known_is_zero_and_known_never_is() {
        let base = Instant::now();
        let mut ewma = PeakEwma::new(base);
        assert_eq!((ewma.read(base), ewma.pack()), (0.0, 0));
        ewma.observe(base, Duration::ZERO);
        assert_eq!(ewma.read(base), 1.0);
    }

    #[test]
    fn many_fast_answers_a_millisecond_bring_it_down_as_time_does() {
        let base = Instant::now();
        let mut ewma = PeakEwma::new(base);
        ewma.observe(base, 1_000 * MS);
        for n in 0..100_000 {
            ewma.observe(base + Duration::from_micros(n * 100), MS);
        }
        let expected = 1_000.0 + 999_000.0 / std::f64::consts::E;
        let got = ewma.read(base + 10_000 * MS);
        assert!((got - expected).abs() < expected * 0.01, "{got} instead of {expected}");
    }

    #[test]
    fn packing_keeps_it() {
        let base = Instant::now();
        let mut random = Random::seeded(9);
        let mut ewma = PeakEwma::new(base);
        for n in 0..10_000u32 {
            let now = base + n * 7 * MS;
            ewma.observe(now, Duration::from_micros(random.below(1 << 20).into()));
            assert_eq!(PeakEwma::unpack(base, ewma.pack()), ewma);
        }
    }

    #[test]
    fn any_bits_can_be_read() {
        let base = Instant::now();
        let mut random = Random::seeded(10);
        for _ in 0..100_000 {
            let mut ewma = PeakEwma::unpack(base, random.bits());
            let now = base + Duration::from_millis(random.bits() >> 20);
            assert!(ewma.read(now) >= 0.0);
            ewma.observe(now, MS);
            assert!(ewma.read(now).is_finite());
        }
    }

    #[test]
    fn a_sharer_whose_clock_is_behind_does_no_harm() {
        let base = Instant::now();
        let mut ewma = PeakEwma::new(base);
        ewma.observe(base + 5_000 * MS, 10 * MS);
        ewma.observe(base + 4_990 * MS, MS);
        assert!(near(ewma.read(base + 4_990 * MS), 10_000.0));
        ewma.observe(base + 4_990 * MS, 20 * MS);
        assert!(near(ewma.read(base + 4_990 * MS), 20_000.0), "a peak counts all the same");
    }

    #[test]
    fn the_clock_may_wrap() {
        let base = Instant::now();
        let day = Duration::from_secs(86_400);
        let mut ewma = PeakEwma::new(base);
        ewma.observe(base, 100 * MS);
        for now in [20 * day, 30 * day, 45 * day, 60 * day, 100 * day] {
            assert_eq!(ewma.read(base + now), 0.0, "{} s", now.as_secs());
            ewma.observe(base + now, 100 * MS);
            assert!(near(ewma.read(base + now), 100_000.0));
            assert!(near(ewma.read(base + now + 5_000 * MS), 36_787.9));
        }
    }
}
