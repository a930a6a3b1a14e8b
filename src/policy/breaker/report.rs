//! What a breaker says about itself: its states, its transitions with their reasons, and its view.
//!
//! These words are the single source of the metric label, the log field and the API word.

use std::{fmt, time::Duration};

use super::Mode;

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls flow.
    Closed,
    /// A few calls probe; the others are refused.
    HalfOpen,
    /// Calls are refused.
    Open,
}

impl State {
    /// Every state, in the order of the gauge.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The word for this state in metrics, logs and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    /// The value of `outrigger_breaker_state`: 0 closed, 1 half-open, 2 open.
    pub fn as_gauge(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an operator has told a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forced {
    /// To decide for itself.
    Auto,
    /// To refuse everything.
    Open,
    /// To admit everything.
    Closed,
}

impl Forced {
    /// The word for this, as `outrigger breaker` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }

    /// Reads a word as [`Forced::as_str`] writes it; `None` for any other.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Auto, Self::Open, Self::Closed].into_iter().find(|forced| forced.as_str() == word)
    }
}

impl fmt::Display for Forced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Transition {
    /// The state that it came to.
    pub to: State,
    /// What made it change.
    pub why: Why,
}

/// What made a breaker change its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Closed => open: too many of the window's calls failed.
    ErrorRate {
        /// Calls that failed.
        failures: u32,
        /// Calls in the window.
        calls: u32,
    },
    /// Closed => open: too many of the window's calls were slow.
    SlowRate {
        /// Calls that were slow.
        slow: u32,
        /// Calls in the window.
        calls: u32,
    },
    /// Open => half-open: it has been open for long enough, and somebody calls.
    OpenElapsed,
    /// Half-open => open: too many probes failed or were slow.
    ProbeFailed {
        /// Probes that failed.
        failures: u32,
        /// Probes that were slow.
        slow: u32,
        /// Probes in all.
        probes: u32,
    },
    /// Half-open => closed: the probes went well.
    Probed {
        /// Probes in all.
        probes: u32,
    },
    /// An operator said so.
    Forced,
}

/// Completes "the breaker is open: …", for logs.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ErrorRate { failures, calls } => write!(f, "{failures} of {calls} calls failed"),
            Self::SlowRate { slow, calls } => write!(f, "{slow} of {calls} calls were slow"),
            Self::OpenElapsed => f.write_str("its time to be open is over"),
            Self::ProbeFailed { failures, slow, probes } => {
                write!(f, "of {probes} probes {failures} failed and {slow} were slow")
            }
            Self::Probed { probes } => write!(f, "{probes} probes went well enough"),
            Self::Forced => f.write_str("an operator said so"),
        }
    }
}

/// A breaker, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// What it does with calls, or would do were it not observing.
    pub state: State,
    /// What an operator has told it.
    pub forced: Forced,
    /// Whether it acts.
    pub mode: Mode,
    /// Attempts that the next figures are about: closed, those in the window; open, those that opened it;
    /// half-open, the probes that have reported; forced, none.
    pub calls: u32,
    /// Failures among them.
    pub failures: u32,
    /// Slow ones among them.
    pub slow: u32,
    /// While open and not forced: until it probes.
    pub probes_in: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for forced in [Forced::Auto, Forced::Open, Forced::Closed] {
            assert_eq!(Forced::parse(forced.as_str()), Some(forced));
        }
        assert_eq!(Forced::parse("Open"), None);
        assert_eq!(Forced::parse("half_open"), None);
    }

    #[test]
    fn states_have_the_words_and_numbers_of_the_metrics() {
        let got = State::ALL.map(|state| (state.as_str(), state.as_gauge()));
        assert_eq!(got, [("closed", 0), ("half_open", 1), ("open", 2)]);
    }

    #[test]
    fn reasons_read_as_sentences() {
        let why = Why::ErrorRate { failures: 11, calls: 20 };
        assert_eq!(why.to_string(), "11 of 20 calls failed");
        let why = Why::ProbeFailed { failures: 1, slow: 0, probes: 3 };
        assert_eq!(why.to_string(), "of 3 probes 1 failed and 0 were slow");
    }
}
