//! How large a stream's window has to be: as much as is under way in one round trip.
//!
//! The estimate is that of gRPC and of hyper: a PING is sent while data flow in, and what has flowed until it
//! is answered is one sample of the product of bandwidth and delay. A sample that nearly fills the window says
//! that the window is what limits the flow, and doubles it, up to a fixed limit.
//!
//! Only what an app has taken counts, so that a slow app does not widen the window that it fails to drain.

use std::time::Duration;

use tokio::time::Instant;

use super::{STREAM_WINDOW, STREAM_WINDOW_MAX};

/// Data that have to flow in before a sample is worth a PING.
const WORTHWHILE: usize = STREAM_WINDOW as usize / 2;

/// The first pause between two samples; it doubles its way up to [`LONGEST_PAUSE`] while they bring nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The estimate for one connection.
#[derive(Debug)]
pub(super) struct Window {
    size: u32,
    /// The best seen so far, in bytes a second.
    bandwidth: f64,
    /// A moving average, in seconds.
    round_trip: f64,
    pause: Duration,
    /// Samples in a row that brought nothing.
    steady: u32,
    next: Option<Instant>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { size: STREAM_WINDOW, bandwidth: 0.0, round_trip: 0.0, pause: FIRST_PAUSE, steady: 0, next: None }
    }

    /// Whether `bytes` that have flowed in call for a sample.
    pub(super) fn wants_sample(&self, bytes: usize, now: Instant) -> bool {
        self.size < STREAM_WINDOW_MAX && bytes >= WORTHWHILE && self.next.is_none_or(|next| now >= next)
    }

    /// Takes a sample: `bytes` flowed in during one round trip. Tells the size to take on, if it is another.
    pub(super) fn sample(&mut self, bytes: usize, round_trip: Duration, now: Instant) -> Option<u32> {
        let seconds = round_trip.as_secs_f64();
        self.round_trip =
            if self.round_trip == 0.0 { seconds } else { self.round_trip + (seconds - self.round_trip) / 8.0 };
        let bandwidth = bytes as f64 / (self.round_trip * 1.5);
        let widens = bandwidth >= self.bandwidth && bytes >= self.size as usize / 3 * 2;
        self.bandwidth = self.bandwidth.max(bandwidth);
        if widens {
            self.steady = 0;
            self.pause /= 2;
        } else {
            self.steady += 1;
            if self.steady.is_multiple_of(2) {
                self.pause = (self.pause * 4).min(LONGEST_PAUSE);
            }
        }
        self.next = Some(now + self.pause);
        widens.then(|| u32::try_from(bytes * 2).unwrap_or(u32::MAX).clamp(self.size, STREAM_WINDOW_MAX))
    }

    /// The peer is told of this size.
    pub(super) fn set(&mut self, size: u32) {
        self.size = size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(50);

    #[test]
    fn a_full_window_widens_it_and_a_limit_holds_it() {
        let (mut window, now) = (Window::new(), Instant::now());
        assert!(!window.wants_sample(WORTHWHILE - 1, now));
        assert!(window.wants_sample(WORTHWHILE, now));
        let first = window.sample(STREAM_WINDOW as usize, TRIP, now).expect("it was full");
        assert_eq!(first, 2 * STREAM_WINDOW);
        window.set(first);
        assert!(!window.wants_sample(WORTHWHILE, now), "not at once again");
        assert!(window.wants_sample(WORTHWHILE, now + FIRST_PAUSE));
        let widest = window.sample(100 << 20, TRIP, now).expect("full");
        assert_eq!(widest, STREAM_WINDOW_MAX);
        window.set(widest);
        assert!(!window.wants_sample(1 << 30, now + 2 * LONGEST_PAUSE), "it is as wide as it may be");
    }

    #[test]
    fn a_window_that_is_not_the_limit_stays() {
        let (mut window, now) = (Window::new(), Instant::now());
        assert_eq!(window.sample(STREAM_WINDOW as usize / 2, TRIP, now), None);
        for _ in 0..20 {
            assert_eq!(window.sample(10, TRIP, now), None);
        }
        assert!(!window.wants_sample(WORTHWHILE, now + LONGEST_PAUSE - FIRST_PAUSE));
        assert!(window.wants_sample(WORTHWHILE, now + LONGEST_PAUSE));
    }
}
