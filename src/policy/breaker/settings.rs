//! A breaker's settings, and what they say about calls that have ended.

use std::time::Duration;

use super::{
    super::{Share, window::Tally},
    Why,
};

/// When a breaker opens, and how it closes again.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Opens when failures reach this share of the window's calls. Default 50 %.
    pub error_rate: Share,
    /// Judges nothing before this many calls are in the window. Default 20.
    pub min_calls: u32,
    /// The time it looks back. Default 10 s.
    pub window: Duration,
    /// How long it refuses before it probes. Default 5 s.
    pub open_for: Duration,
    /// Calls that probe a half-open breaker. Default 1; 0 is taken for 1.
    pub probes: u32,
    /// A call that takes longer is slow. Off by default.
    pub slow_call: Option<Duration>,
    /// Opens when slow calls reach this share. Default 100 %; counts only with `slow_call`.
    pub slow_rate: Share,
    /// Whether it acts or only reports. Default on.
    pub mode: Mode,
}

/// Hystrix's numbers (20 requests, 50 %, 10 s, 5 s, one probe).
impl Default for Settings {
    fn default() -> Self {
        Self {
            error_rate: Share(50.0),
            min_calls: 20,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            probes: 1,
            slow_call: None,
            slow_rate: Share(100.0),
            mode: Mode::On,
        }
    }
}

impl Settings {
    /// Whether a call that took so long is slow.
    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow_call.is_some_and(|limit| took > limit)
    }

    /// Why these calls speak against the service, if they do.
    pub(super) fn against(&self, tally: Tally) -> Option<Why> {
        let Tally { calls, failures, slow } = tally;
        if self.error_rate.is_reached(failures, calls) {
            Some(Why::ErrorRate { failures, calls })
        } else if self.slow_call.is_some() && self.slow_rate.is_reached(slow, calls) {
            Some(Why::SlowRate { slow, calls })
        } else {
            None
        }
    }
}

/// Whether a breaker acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It refuses calls while open.
    On,
    /// It reports what it would do, and refuses nothing.
    Observe,
}

impl Mode {
    /// The word for this mode, as the config spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Observe => "observe",
        }
    }
}
