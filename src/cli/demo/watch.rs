//! What the breakers did, as seen from outside: changes of state with their times.
//!
//! The demo looks at the observe port some times a second, as any operator could, rather than into the
//! sidecar's memory; so times are right to about that interval, and are told so.

use std::{collections::VecDeque, time::Duration};

/// Changes that are kept of each breaker.
const KEPT: usize = 256;

/// A breaker's state, as the observe port spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BreakerState {
    /// Nobody has said yet.
    Unknown,
    /// Calls flow.
    Closed,
    /// Some calls probe.
    HalfOpen,
    /// Calls are refused.
    Open,
}

impl BreakerState {
    /// Reads the word of the API.
    pub(crate) fn from_word(word: &str) -> Self {
        match word {
            "closed" => Self::Closed,
            "half_open" => Self::HalfOpen,
            "open" => Self::Open,
            _ => Self::Unknown,
        }
    }
}

/// One breaker, watched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    changes: VecDeque<(Duration, BreakerState)>,
}

impl Watch {
    /// Notes that the breaker is in this state, so long after the start.
    pub(crate) fn saw(&mut self, at: Duration, state: BreakerState) {
        if self.now() == state {
            return;
        }
        if self.changes.len() == KEPT {
            self.changes.pop_front();
        }
        self.changes.push_back((at, state));
    }

    /// The state that was seen last.
    pub(crate) fn now(&self) -> BreakerState {
        self.changes.back().map_or(BreakerState::Unknown, |&(_, state)| state)
    }

    /// The worst state that was seen in this second (from 0).
    pub(crate) fn during(&self, second: u64) -> BreakerState {
        let before = self.changes.iter().rev().find(|(at, _)| at.as_secs() < second).map(|&(_, state)| state);
        // A state that lasted into the second by no time at all (a change on its very first tick) still
        // counts: the picture shows rather too much trouble than too little.
        let within = self.changes.iter().filter(|(at, _)| at.as_secs() == second).map(|&(_, state)| state);
        before.into_iter().chain(within).max().unwrap_or(BreakerState::Unknown)
    }

    /// When it was first seen to come into this state at or after `from`.
    pub(crate) fn first(&self, state: BreakerState, from: Duration) -> Option<Duration> {
        self.changes.iter().find(|&&(at, came)| at >= from && came == state).map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BreakerState::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_second_shows_the_worst_state_in_it() {
        let mut watch = Watch::default();
        for (ms, state) in [(200, Closed), (400, Closed), (2_500, Open), (3_600, HalfOpen), (3_700, Closed)] {
            watch.saw(at(ms), state);
        }
        let seen: Vec<_> = (0..6).map(|second| watch.during(second)).collect();
        assert_eq!(seen, [Closed, Closed, Open, Open, Closed, Closed]);
        assert_eq!(watch.first(Open, at(0)), Some(at(2_500)));
        assert_eq!(watch.first(Closed, at(2_500)), Some(at(3_700)));
        assert_eq!(watch.first(Open, at(2_501)), None);
        assert_eq!(watch.changes.len(), 4, "a look that finds the same state is no change");
    }

    #[test]
    fn a_breaker_that_never_rests_is_forgotten_from_its_beginning() {
        let mut watch = Watch::default();
        for n in 0..10_000 {
            watch.saw(at(n), if n % 2 == 0 { Open } else { HalfOpen });
        }
        assert_eq!(watch.changes.len(), KEPT);
        assert_eq!(watch.now(), HalfOpen);
    }
}
