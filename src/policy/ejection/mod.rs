//! Ejection: which endpoints are left out for a while, since they fail where others do not?
//!
//! ```text
//!              consecutive failures, or a rate that the others do not share
//!     ┌────────┐ ───────────────────────────────────────────────────► ┌─────┐
//!     │   in   │                                                      │ out │ ◄─┐
//!     └────────┘ ◄──────────── success ──── ┌─────────┐ ◄── time ──── └─────┘   │ failure: out for
//!      (slow start)                         │ probing │                         │ twice as long
//!                                           └─────────┘ ────────────────────────┘
//! ```
//!
//! Rules:
//! - A [`Member`] suspects itself: so many failures in a row, or a share of failures over the window. Whether it is
//!   ejected is decided over all of them: no more than `max_ejected` are out at once, and the last one never is.
//!   When all fail alike nobody is to blame but the service, and that is the breaker's business.
//! - What counts as a failure is what counts for the breaker. What says nothing about the service changes nothing.
//! - An ejection lasts `first`, twice as long each time in a row, `longest` at most, and a random share less or more,
//!   so that sidecars that ejected together do not come back together. Staying in for as long as the last ejection
//!   lasted forgives one.
//! - After its time one attempt, a real call's, is the probe. Success brings the endpoint back, with a share of the
//!   calls that grows over `slow_start`; failure sends it out again. A probe without a result leaves it to the next.

mod member;

pub use self::member::{Change, Member, Reason, State, Suspicion};
use std::time::Duration;

use super::Share;

/// When an endpoint is taken out of rotation, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Failures in a row that eject; `None` is off. Default 5.
    pub consecutive: Option<u32>,
    /// The share of failures in the window that ejects, where the other endpoints fail clearly less; `None` is off.
    /// Default 25 %.
    pub error_rate: Option<Share>,
    /// Judges no rate before this many attempts are in the window. Default 20.
    pub min_calls: u32,
    /// The time that the rate looks back. Default 10 s.
    pub window: Duration,
    /// How long the first ejection lasts; each further one in a row twice as long, with jitter. Default 5 s.
    pub first: Duration,
    /// How long an ejection lasts at most. Default 60 s.
    pub longest: Duration,
    /// The share of endpoints that may be out at once; the last one never is. Default 50 %.
    pub max_ejected: Share,
    /// How long an endpoint that comes back takes to get its full share of calls; `None` is at once. Default 10 s.
    pub slow_start: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consecutive: Some(5),
            error_rate: Some(Share(25.0)),
            min_calls: 20,
            window: Duration::from_secs(10),
            first: Duration::from_secs(5),
            longest: Duration::from_secs(60),
            max_ejected: Share(50.0),
            slow_start: Some(Duration::from_secs(10)),
        }
    }
}

impl Settings {
    /// How many of so many endpoints may be out at once: their share, at least one, and never all.
    pub fn most_out(&self, endpoints: usize) -> usize {
        let share = (endpoints as f64 * self.max_ejected.as_percent() / 100.0) as usize;
        share.max(1).min(endpoints.saturating_sub(1))
    }

    /// How long the `nth` ejection in a row lasts; `share`, 0 to 1, draws up to a fifth less or more.
    fn lasts(&self, nth: u32, share: f64) -> Duration {
        let time = self.first.saturating_mul(1 << nth.saturating_sub(1).min(20)).min(self.longest);
        time.mul_f64(0.8 + 0.4 * share.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_endpoints_may_be_out_and_never_all() {
        let settings = Settings::default();
        for (endpoints, most) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (100, 50)] {
            assert_eq!(settings.most_out(endpoints), most, "{endpoints}");
        }
        let all = Settings { max_ejected: Share(100.0), ..settings.clone() };
        assert_eq!((all.most_out(1), all.most_out(5)), (0, 4));
        let few = Settings { max_ejected: Share(1.0), ..settings };
        assert_eq!((few.most_out(3), few.most_out(300)), (1, 3));
    }

    #[test]
    fn each_ejection_lasts_twice_as_long_up_to_the_longest() {
        let settings = Settings::default();
        for (nth, seconds) in [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (99, 60)] {
            assert_eq!(settings.lasts(nth, 0.5), Duration::from_secs(seconds), "{nth}");
        }
        assert_eq!((settings.lasts(1, 0.0), settings.lasts(1, 1.0)), (Duration::from_secs(4), Duration::from_secs(6)));
    }
}
