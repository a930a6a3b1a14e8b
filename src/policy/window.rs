//! A sliding window of counts: how many calls ended lately, and how?
//!
//! Ten buckets, each a tenth of the window long, on a grid that is counted from a fixed start; a call
//! counts in the bucket in which it ends. The sum over the buckets is kept as calls come and as buckets
//! leave, so that recording costs the same whether the window holds ten calls or ten million, and takes
//! no memory of its own. The figures are exact for the bucket at hand and the nine before it: the window
//! looks back for nine to ten tenths of its length, as resilience4j's time-based one does.
//!
//! Threads read the clock before they get here, so `now` may lie a little behind the bucket at hand;
//! such a call counts in the bucket at hand. Time never runs backwards here.

use std::time::{Duration, Instant};

/// Buckets a window has (resilience4j's and linkerd's number).
const BUCKETS: usize = 10;

/// Calls that ended, and what is held against them. A failure may also be slow, so the two overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: u32,
    pub(super) failures: u32,
    pub(super) slow: u32,
}

impl Tally {
    /// Counts one call. At four billion calls it stands still, which keeps the shares right.
    pub(super) fn add(&mut self, failed: bool, slow: bool) {
        if self.calls < u32::MAX {
            self.calls += 1;
            self.failures += u32::from(failed);
            self.slow += u32::from(slow);
        }
    }

    /// Takes out a part that is known to be in it.
    fn remove(&mut self, part: Self) {
        self.calls -= part.calls;
        self.failures -= part.failures;
        self.slow -= part.slow;
    }
}

/// The counts of the last `length`, in ten buckets.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// Where the grid of buckets begins.
    start: Instant,
    /// A bucket's length in nanoseconds, at least 1.
    width: u64,
    /// The number of the bucket at hand, counted from `start`.
    bucket: u64,
    /// When it ends, in nanoseconds from `start`: saves the hot path a division.
    ends: u64,
    /// The bucket with number `n` lies at `n % BUCKETS`.
    buckets: [Tally; BUCKETS],
    /// The sum of `buckets`.
    total: Tally,
}

impl Window {
    /// An empty window over `length`, whose grid begins at `start`.
    pub(super) fn new(start: Instant, length: Duration, now: Instant) -> Self {
        let width = (nanos(length) / BUCKETS as u64).max(1);
        let bucket = nanos(now.saturating_duration_since(start)) / width;
        let ends = end_of(bucket, width);
        Self { start, width, bucket, ends, buckets: [Tally::default(); BUCKETS], total: Tally::default() }
    }

    /// Counts a call that ends now, and says what the window then holds.
    pub(super) fn record(&mut self, now: Instant, failed: bool, slow: bool) -> Tally {
        self.advance(now);
        // The total is never less than a bucket, so a total that still counts means a bucket that does.
        if self.total.calls < u32::MAX {
            self.buckets[place(self.bucket)].add(failed, slow);
            self.total.add(failed, slow);
        }
        self.total
    }

    /// What the window holds now, without moving it: for views, which only read.
    pub(super) fn tally(&self, now: Instant) -> Tally {
        let left = self.buckets_left(now);
        (1..=left).fold(self.total, |mut total, n| {
            total.remove(self.buckets[place(self.bucket + n)]);
            total
        })
    }

    /// Moves on to the bucket of `now`, and forgets those that leave the window.
    fn advance(&mut self, now: Instant) {
        let offset = nanos(now.saturating_duration_since(self.start));
        if offset < self.ends {
            return;
        }
        for n in 1..=self.buckets_left(now) {
            let leaving = &mut self.buckets[place(self.bucket + n)];
            self.total.remove(*leaving);
            *leaving = Tally::default();
        }
        self.bucket = offset / self.width;
        self.ends = end_of(self.bucket, self.width);
    }

    /// How many buckets, from the oldest on, are no longer in the window at `now`.
    fn buckets_left(&self, now: Instant) -> u64 {
        let bucket = nanos(now.saturating_duration_since(self.start)) / self.width;
        bucket.saturating_sub(self.bucket).min(BUCKETS as u64)
    }
}

/// Where a bucket lies in the ring.
fn place(bucket: u64) -> usize {
    (bucket % BUCKETS as u64) as usize
}

/// When a bucket ends, in nanoseconds from the grid's start.
fn end_of(bucket: u64, width: u64) -> u64 {
    bucket.saturating_add(1).saturating_mul(width)
}

/// A duration in nanoseconds; 584 years at most.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn window() -> (Instant, Window) {
        let start = Instant::now();
        (start, Window::new(start, 10_000 * MS, start))
    }

    #[test]
    fn a_call_leaves_with_its_bucket() {
        let (start, mut window) = window();
        window.record(start + 999 * MS, true, false);
        window.record(start + 1_000 * MS, false, true);
        assert_eq!(window.tally(start + 9_999 * MS), Tally { calls: 2, failures: 1, slow: 1 });
        assert_eq!(window.tally(start + 10_000 * MS), Tally { calls: 1, failures: 0, slow: 1 });
        assert_eq!(window.tally(start + 10_999 * MS), Tally { calls: 1, failures: 0, slow: 1 });
        assert_eq!(window.tally(start + 11_000 * MS), Tally::default());
    }

    #[test]
    fn recording_and_reading_agree() {
        let (start, mut window) = window();
        let mut random = crate::model::Random::seeded(11);
        let mut at = start;
        let mut ends: Vec<(u64, bool, bool)> = Vec::new();
        for _ in 0..5_000 {
            at += MS * if random.below(200) == 0 { random.below(30_000) } else { random.below(300) };
            let bucket = (at - start).as_secs();
            ends.push((bucket, random.below(2) == 0, random.below(3) == 0));
            let (_, failed, slow) = ends[ends.len() - 1];
            let recorded = window.record(at, failed, slow);
            let lately = ends.iter().filter(|(b, ..)| b + 10 > bucket);
            let expected = lately.fold(Tally::default(), |mut tally, &(_, failed, slow)| {
                tally.add(failed, slow);
                tally
            });
            assert_eq!(recorded, expected);
            assert_eq!(window.tally(at), expected);
        }
    }

    #[test]
    fn a_late_clock_counts_in_the_bucket_at_hand() {
        let (start, mut window) = window();
        window.record(start + 5_000 * MS, false, false);
        window.record(start + 3_000 * MS, false, false);
        assert_eq!(window.tally(start + 14_999 * MS).calls, 2);
        assert_eq!(window.tally(start + 15_000 * MS).calls, 0);
    }

    #[test]
    fn absurd_lengths_do_no_harm() {
        let start = Instant::now();
        for length in [Duration::ZERO, Duration::from_nanos(3), Duration::MAX] {
            let mut window = Window::new(start, length, start);
            window.record(start, true, true);
            window.record(start + Duration::from_secs(1 << 33), true, true);
            assert!((1..=2).contains(&window.tally(start + Duration::from_secs(1 << 33)).calls));
        }
    }

    #[test]
    fn a_full_count_stands_still() {
        let (start, mut window) = window();
        let full = Tally { calls: u32::MAX, failures: 7, slow: 0 };
        window.buckets[0] = full;
        window.total = full;
        assert_eq!(window.record(start + 2_000 * MS, true, true), full);
        assert_eq!(window.tally(start + 10_000 * MS), Tally::default());
    }
}
