//! How long answers take, for a hedge that waits for a percentile.

use std::time::Duration;

/// How many answers are looked back at.
pub const RECENT: usize = 128;

/// The latencies of the last answers.
#[derive(Debug, Clone)]
pub struct Latencies {
    /// In microseconds, in a ring.
    recent: Vec<u32>,
    next: usize,
    /// What was asked for last, and what it came to; true until the ring has gone half round.
    known: Option<(u8, Duration)>,
    fresh: usize,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { recent: Vec::with_capacity(RECENT), next: 0, known: None, fresh: 0 }
    }
}

impl Latencies {
    /// An answer has taken so long.
    pub fn observe(&mut self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if self.recent.len() < RECENT {
            self.recent.push(took);
        } else {
            self.recent[self.next] = took;
        }
        self.next = (self.next + 1) % RECENT;
        self.fresh += 1;
    }

    /// What this percentile of the last answers took no longer than; `None` before there have been a few dozen.
    pub fn percentile(&mut self, percentile: u8) -> Option<Duration> {
        if self.recent.len() < RECENT / 4 {
            return None;
        }
        if let Some((of, known)) = self.known
            && of == percentile
            && self.fresh < RECENT / 4
        {
            return Some(known);
        }
        let mut sorted = self.recent.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * usize::from(percentile.min(100))).div_ceil(100).max(1);
        let found = Duration::from_micros(sorted[rank - 1].into());
        (self.known, self.fresh) = (Some((percentile, found)), 0);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_what_so_many_stay_within() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(95), None);
        for ms in 1..=100 {
            latencies.observe(Duration::from_millis(ms));
        }
        for percentile in [50, 95, 99, 100] {
            assert_eq!(latencies.percentile(percentile), Some(Duration::from_millis(percentile.into())));
        }
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut latencies = Latencies::default();
        (0..RECENT).for_each(|_| latencies.observe(Duration::from_secs(9)));
        assert_eq!(latencies.percentile(50), Some(Duration::from_secs(9)));
        (0..RECENT).for_each(|_| latencies.observe(Duration::from_millis(1)));
        assert_eq!(latencies.percentile(99), Some(Duration::from_millis(1)));
    }
}
