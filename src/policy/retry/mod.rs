//! Retries: is a failed attempt worth another, and when?
//!
//! A retry may save a call, and may kill a service that is already overloaded. So each is asked four questions,
//! and one "no" ends the call: may this request be repeated at all, is this failure one that a repetition can
//! mend, is there budget left, and does the deadline leave time for it?

mod budget;
mod latency;

use std::time::Duration;

use http::StatusCode;

pub use self::{
    budget::Budget,
    latency::{Latencies, RECENT},
};
use super::Share;

/// When and how often a failed attempt is made again.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Attempts in all, the first included; 1 to 100. Default 3.
    pub attempts: u32,
    /// What is tried again. Default: whatever counts as a failure.
    pub on: Conditions,
    /// Retries as a share of calls, over all workers. Default 20 %.
    pub budget: Share,
    /// Retries that are always affordable, a second; so that a service with few calls has some. Default 3.
    pub min_per_second: u32,
    /// The longest pause before the first retry; it doubles with each. The pause is drawn from nothing to that.
    /// Default 25 ms.
    pub backoff: Duration,
    /// The longest pause there is. Default 250 ms.
    pub max_backoff: Duration,
    /// How much of a request's body is kept to be sent again, in bytes. A longer one is sent once. Default 64 KiB.
    pub body: usize,
}

/// What is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// No connection came about, or its TLS handshake failed: nothing was sent, so it holds for any method.
    pub connect: bool,
    /// The connection broke, or what came back was not HTTP.
    pub reset: bool,
    /// The attempt took longer than `timeout.attempt`.
    pub timeout: bool,
    /// Every 5xx that counts as a failure.
    pub server_errors: bool,
    /// These statuses.
    pub statuses: Vec<StatusCode>,
    /// These gRPC codes, 1 to 16; whoever names one says that calls of any method may be repeated on it.
    pub grpc: Vec<u16>,
}

/// When a second attempt is made beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedge {
    /// The first has taken so long.
    After(Duration),
    /// The first has taken longer than this percentile of the service's recent answers: 50 to 99.
    Percentile(u8),
}

impl Settings {
    /// The pause before the `nth` retry, from 1: drawn by `share`, 0 to 1, from nothing to a bound that doubles with
    /// each ("full jitter": callers that failed together do not come back together).
    pub fn pause(&self, nth: u32, share: f64) -> Duration {
        let bound = self.backoff.saturating_mul(1 << (nth - 1).min(31)).min(self.max_backoff);
        bound.mul_f64(share.clamp(0.0, 1.0))
    }
}

impl Default for Conditions {
    fn default() -> Self {
        let (statuses, grpc) = (Vec::new(), Vec::new());
        Self { connect: true, reset: true, timeout: true, server_errors: true, statuses, grpc }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            attempts: 3,
            on: Conditions::default(),
            budget: Share(20.0),
            min_per_second: 3,
            backoff: Duration::from_millis(25),
            max_backoff: Duration::from_millis(250),
            body: 64 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_drawn_from_nothing_on() {
        let settings = Settings::default();
        for (nth, longest) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (40, 250), (u32::MAX, 250)] {
            let longest = Duration::from_millis(longest);
            assert_eq!(settings.pause(nth, 1.0), longest, "{nth}");
            assert_eq!(settings.pause(nth, 0.5), longest / 2, "{nth}");
            assert_eq!(settings.pause(nth, 0.0), Duration::ZERO, "{nth}");
        }
        let none = Settings { backoff: Duration::ZERO, ..settings };
        assert_eq!(none.pause(7, 1.0), Duration::ZERO);
    }
}
