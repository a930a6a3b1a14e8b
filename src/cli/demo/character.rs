//! What a demo upstream is like: when it is well, and when it is not.
//!
//! A demo has to show trouble soon and show it again, so trouble comes by the clock, in a cycle of
//! thirty seconds, early enough for a run of twenty: the flaky upstream fails from second 5 to 12, the
//! slow one grows slower from 14 to 18. All here is a function of the time since the start and of a
//! draw; nothing is remembered.

use std::time::Duration;

use crate::model::Random;

/// After this long, everything begins again.
const CYCLE: Duration = Duration::from_secs(30);

/// What an upstream is like, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Character {
    /// Answers in 1 to 3 ms, always.
    Steady,
    /// Answers in 40 to 120 ms; for four seconds in every thirty in 700 ms.
    Slow,
    /// Answers in 4 to 8 ms; for seven seconds in every thirty it fails or hangs.
    Flaky,
}

/// How an upstream is right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As it should be.
    Well,
    /// Every answer takes much longer than it should.
    Slower,
    /// No answer is good: half of the calls get a 503, the others hang.
    Failing,
}

/// What an upstream does with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// A good answer, after this time.
    Answer(Duration),
    /// Its own 503, after this time.
    Fail(Duration),
    /// No answer in any useful time.
    Hang,
}

impl Character {
    /// When in each cycle it is unwell, from and to, and how.
    pub(crate) fn trouble(self) -> Option<(Duration, Duration, Mood)> {
        let seconds = Duration::from_secs;
        match self {
            Self::Steady => None,
            Self::Slow => Some((seconds(14), seconds(18), Mood::Slower)),
            Self::Flaky => Some((seconds(5), seconds(12), Mood::Failing)),
        }
    }

    /// How it is, so long after its start.
    pub(crate) fn mood(self, elapsed: Duration) -> Mood {
        let place = within_cycle(elapsed);
        match self.trouble() {
            Some((from, to, mood)) if from <= place && place < to => mood,
            _ => Mood::Well,
        }
    }

    /// What it does with a call that comes so long after its start; `draw` is any 64 bits.
    pub(crate) fn behaviour(self, elapsed: Duration, draw: u64) -> Behaviour {
        let mut random = Random::seeded(draw);
        let mut between = |from: u32, to: u32| Duration::from_micros(u64::from(from + random.below(to - from)));
        match (self, self.mood(elapsed)) {
            (_, Mood::Slower) => Behaviour::Answer(Duration::from_millis(700)),
            (_, Mood::Failing) if draw.is_multiple_of(2) => Behaviour::Fail(between(1_000, 3_000)),
            (_, Mood::Failing) => Behaviour::Hang,
            (Self::Steady, Mood::Well) => Behaviour::Answer(between(1_000, 3_000)),
            (Self::Slow, Mood::Well) => Behaviour::Answer(between(40_000, 120_000)),
            (Self::Flaky, Mood::Well) => Behaviour::Answer(between(4_000, 8_000)),
        }
    }

    /// How much of the time up to `elapsed` it was unwell.
    pub(crate) fn unwell_for(self, elapsed: Duration) -> Duration {
        let Some((from, to, _)) = self.trouble() else { return Duration::ZERO };
        let cycles = (elapsed.as_nanos() / CYCLE.as_nanos()) as u32;
        (to - from) * cycles + within_cycle(elapsed).clamp(from, to) - from
    }
}

fn within_cycle(elapsed: Duration) -> Duration {
    Duration::from_nanos((elapsed.as_nanos() % CYCLE.as_nanos()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn trouble_comes_by_the_clock_and_again() {
        for start in [0, 30_000, 3_000_000] {
            assert_eq!(Character::Flaky.mood(at(start + 4_999)), Mood::Well);
            assert_eq!(Character::Flaky.mood(at(start + 5_000)), Mood::Failing);
            assert_eq!(Character::Flaky.mood(at(start + 11_999)), Mood::Failing);
            assert_eq!(Character::Flaky.mood(at(start + 12_000)), Mood::Well);
            assert_eq!(Character::Slow.mood(at(start + 14_000)), Mood::Slower);
            assert_eq!(Character::Slow.mood(at(start + 18_000)), Mood::Well);
        }
        assert!((0..60_000).step_by(100).all(|ms| Character::Steady.mood(at(ms)) == Mood::Well));
    }

    #[test]
    fn a_failing_upstream_fails_half_of_the_calls_and_hangs_on_the_others() {
        let draws = 0..1_000;
        let hung = draws.filter(|&draw| Character::Flaky.behaviour(at(6_000), draw) == Behaviour::Hang).count();
        assert_eq!(hung, 500);
        assert!(matches!(Character::Flaky.behaviour(at(6_000), 2), Behaviour::Fail(after) if after < at(3)));
    }

    #[test]
    fn a_well_upstream_answers_within_its_range() {
        for draw in 0..1_000 {
            for (character, from, to) in
                [(Character::Steady, 1, 3), (Character::Slow, 40, 120), (Character::Flaky, 4, 8)]
            {
                let Behaviour::Answer(after) = character.behaviour(at(0), draw) else {
                    panic!("{character:?} is unwell")
                };
                assert!(at(from) <= after && after < at(to), "{character:?} answers after {after:?}");
            }
        }
    }

    #[test]
    fn time_unwell_adds_up_over_cycles() {
        for (elapsed, unwell) in
            [(0, 0), (5_000, 0), (7_500, 2_500), (20_000, 7_000), (36_000, 8_000), (90_000, 21_000)]
        {
            assert_eq!(Character::Flaky.unwell_for(at(elapsed)), at(unwell), "after {elapsed} ms");
        }
        assert_eq!(Character::Steady.unwell_for(at(90_000)), Duration::ZERO);
    }
}
