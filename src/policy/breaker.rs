//! The breaker: is the service worth trying?

use std::time::Duration;

use super::Share;

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
    /// Calls that probe a half-open breaker. Default 1.
    pub probes: u32,
    /// A call that takes longer is slow. Off by default.
    pub slow_call: Option<Duration>,
    /// Opens when slow calls reach this share. Default 100 %; counts only with `slow_call`.
    pub slow_rate: Share,
    /// Whether it acts or only reports. Default on.
    pub mode: Mode,
}

/// Whether a breaker acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It refuses calls while open.
    On,
    /// It reports what it would do, and refuses nothing.
    Observe,
}

/// What an operator has decided for a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forced {
    /// Nothing: it decides.
    Auto,
    /// It refuses.
    Open,
    /// It admits.
    Closed,
}

impl Forced {
    /// Parses the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Auto, Self::Open, Self::Closed].into_iter().find(|f| f.as_str() == word)
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}
