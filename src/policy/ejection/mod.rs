//! Ejection: which endpoints are left out for a while, since they fail where others do not?

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
