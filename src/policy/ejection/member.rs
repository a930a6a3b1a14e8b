//! One endpoint, as ejection sees it.

use std::time::{Duration, Instant};

use super::Settings;
use crate::{model::Judgement, policy::window::Window};

/// One endpoint's record, and whether it is in rotation.
#[derive(Debug, Clone, Default)]
pub struct Member {
    state: State,
    /// Failures in a row.
    run: u32,
    window: Option<Box<Window>>,
    /// Ejections in a row, and how long the last one lasted.
    times: u32,
    last: Duration,
    /// Active checks say that it is down.
    down: bool,
}

/// Whether an endpoint is in rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is; if it has been out, it came back then.
    In {
        /// When it came back.
        back: Option<Instant>,
    },
    /// It is out.
    Out {
        /// Since when.
        since: Instant,
        /// When it may be probed.
        until: Instant,
        /// Why.
        why: Reason,
    },
    /// One attempt finds out whether it is back.
    Probing {
        /// Since when it has been out.
        since: Instant,
        /// Why.
        why: Reason,
    },
}

/// Why an endpoint is out; the `reason` label of `outrigger_ejections_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// So many failures in a row.
    Consecutive,
    /// A share of failures that the others do not have.
    ErrorRate,
    /// Its probe failed.
    Probe,
    /// Active checks failed.
    HealthCheck,
}

/// What speaks against an endpoint; the others have to be heard before it is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// It is to be ejected for this.
    Certain(Reason),
    /// So many of its attempts failed: to be ejected if the others fail clearly less.
    Outlier {
        /// Failures in the window.
        failures: u32,
        /// Attempts in the window.
        calls: u32,
    },
}

/// What an attempt, or a check, has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is out for so long.
    Ejected(Reason, Duration),
    /// It is back in rotation.
    Returned,
}

impl Default for State {
    fn default() -> Self {
        Self::In { back: None }
    }
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Consecutive, Self::ErrorRate, Self::Probe, Self::HealthCheck];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::ErrorRate => "error_rate",
            Self::Probe => "probe",
            Self::HealthCheck => "health_check",
        }
    }
}

impl Member {
    /// An attempt has ended; what that makes of an endpoint that is in rotation.
    pub fn record(&mut self, settings: &Settings, now: Instant, judgement: Judgement) -> Option<Suspicion> {
        let failed = match judgement {
            Judgement::Nothing => return None,
            Judgement::Success => false,
            Judgement::Failure => true,
        };
        self.run = if failed { self.run.saturating_add(1) } else { 0 };
        let tally = settings.error_rate.map(|_| {
            let window = self.window.get_or_insert_with(|| Box::new(Window::new(now, settings.window, now)));
            window.record(now, failed, false)
        });
        let State::In { back } = self.state else { return None };
        if self.times > 0 && back.is_some_and(|back| now.saturating_duration_since(back) >= self.last) {
            // A time as long as the last ejection forgives one.
            self.times -= 1;
            self.state = State::In { back: Some(now) };
        }
        if !failed {
            return None;
        }
        if settings.consecutive.is_some_and(|limit| self.run >= limit) {
            return Some(Suspicion::Certain(Reason::Consecutive));
        }
        let (tally, rate) = tally.zip(settings.error_rate)?;
        let is_high = tally.calls >= settings.min_calls && rate.is_reached(tally.failures, tally.calls);
        is_high.then_some(Suspicion::Outlier { failures: tally.failures, calls: tally.calls })
    }

    /// in ⇒ out
    pub fn eject(&mut self, settings: &Settings, why: Reason, now: Instant, share: f64) -> Change {
        self.times += 1;
        self.last = settings.lasts(self.times, share);
        self.run = 0;
        self.window = None;
        self.state = State::Out { since: now, until: now + self.last, why };
        Change::Ejected(why, self.last)
    }

    /// out ⇒ probing, if its time has come and checks do not say that it is down; whether the caller is the probe.
    pub fn probe(&mut self, now: Instant) -> bool {
        match self.state {
            State::Out { since, until, why } if now >= until && !self.down => {
                self.state = State::Probing { since, why };
                true
            }
            _ => false,
        }
    }

    /// probing ⇒ in, or out again: the probe has ended so. One that says nothing leaves its place to the next.
    pub fn probed(&mut self, settings: &Settings, now: Instant, judgement: Judgement, share: f64) -> Option<Change> {
        let State::Probing { since, why } = self.state else { return None };
        match judgement {
            Judgement::Nothing => {
                self.state = State::Out { since, until: now, why };
                None
            }
            Judgement::Failure => Some(self.eject(settings, Reason::Probe, now, share)),
            Judgement::Success => Some(self.come_back(now)),
        }
    }

    /// Checks have found it down: in ⇒ out, for as long as they do.
    pub fn found_down(&mut self, now: Instant) -> Option<Change> {
        self.down = true;
        let State::In { .. } = self.state else { return None };
        self.state = State::Out { since: now, until: now, why: Reason::HealthCheck };
        Some(Change::Ejected(Reason::HealthCheck, Duration::ZERO))
    }

    /// Checks have found it up. What only they held against it is forgiven; what calls held against it may be probed
    /// at once.
    pub fn found_up(&mut self, now: Instant) -> Option<Change> {
        self.down = false;
        match self.state {
            State::Out { why: Reason::HealthCheck, .. } => Some(self.come_back(now)),
            State::Out { since, until, why } => {
                self.state = State::Out { since, until: until.min(now), why };
                None
            }
            State::In { .. } | State::Probing { .. } => None,
        }
    }

    /// What its window holds: failures and attempts.
    pub fn tally(&self, now: Instant) -> (u32, u32) {
        let tally = self.window.as_ref().map(|window| window.tally(now)).unwrap_or_default();
        (tally.failures, tally.calls)
    }

    /// Whether it is in rotation.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether checks say that it is down.
    pub fn is_down(&self) -> bool {
        self.down
    }

    fn come_back(&mut self, now: Instant) -> Change {
        self.run = 0;
        self.window = None;
        self.state = State::In { back: Some(now) };
        Change::Returned
    }
}

impl Suspicion {
    /// The reason to eject, with what the other endpoints' windows hold in sum; `None` when they fail as well.
    pub fn weigh(self, others: (u64, u64)) -> Option<Reason> {
        match self {
            Self::Certain(reason) => Some(reason),
            Self::Outlier { failures, calls } => {
                // Others that were not called have no part in this.
                let (other_failures, other_calls) = others;
                let clearly_less = 2 * other_failures * u64::from(calls) < u64::from(failures) * other_calls;
                (other_calls > 0 && clearly_less).then_some(Reason::ErrorRate)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
mod tests {
    use super::*;
    use Judgement::{Failure, Nothing, Success};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn so_many_failures_in_a_row_are_enough() {
        let (settings, now) = (Settings::default(), Instant::now());
        let mut member = Member::default();
        for judgement in [Failure, Failure, Failure, Failure, Success, Failure, Nothing, Failure, Failure, Failure] {
            assert_eq!(member.record(&settings, now, judgement), None);
        }
        assert_eq!(member.record(&settings, now, Failure), Some(Suspicion::Certain(Reason::Consecutive)));
    }

    #[test]
    fn a_rate_counts_from_min_calls_on_and_against_the_others() {
        let (settings, now) = (Settings { consecutive: None, ..Settings::default() }, Instant::now());
        let mut member = Member::default();
        let mut suspicion = None;
        for n in 0..20 {
            assert_eq!(suspicion, None, "{n}");
            suspicion = member.record(&settings, now, if n % 4 == 3 { Failure } else { Success });
        }
        let suspicion = suspicion.unwrap();
        assert_eq!(suspicion, Suspicion::Outlier { failures: 5, calls: 20 });
        for (others, reason) in [
            ((0, 40), Some(Reason::ErrorRate)),
            ((4, 40), Some(Reason::ErrorRate)),
            ((5, 40), None),
            ((10, 40), None),
            ((0, 0), None),
        ] {
            assert_eq!(suspicion.weigh(others), reason, "{others:?}");
        }
    }

    #[test]
    fn a_probe_decides_and_failure_lasts_longer_each_time() {
        let (settings, start) = (Settings::default(), Instant::now());
        let mut member = Member::default();
        assert_eq!(
            member.eject(&settings, Reason::Consecutive, start, 0.5),
            Change::Ejected(Reason::Consecutive, 5 * SECOND)
        );
        assert!(!member.probe(start + 4 * SECOND));
        let at = start + 5 * SECOND;
        assert!(member.probe(at) && !member.probe(at), "one at a time");
        assert_eq!(member.probed(&settings, at, Nothing, 0.5), None);
        assert!(member.probe(at), "its place is free again");
        assert_eq!(member.probed(&settings, at, Failure, 0.5), Some(Change::Ejected(Reason::Probe, 10 * SECOND)));
        assert!(!member.probe(at + 9 * SECOND) && member.probe(at + 10 * SECOND));
        assert_eq!(member.probed(&settings, at, Success, 0.5), Some(Change::Returned));
        assert_eq!(member.state(), State::In { back: Some(at) });
    }

    #[test]
    fn staying_in_forgives() {
        let (settings, start) = (Settings::default(), Instant::now());
        let mut member = Member::default();
        for _ in 0..3 {
            member.eject(&settings, Reason::Consecutive, start, 0.5);
        }
        assert!(member.probe(start + 60 * SECOND));
        member.probed(&settings, start, Success, 0.5);
        for (after, lasts) in [(19, 40), (20, 40)] {
            let mut later = member.clone();
            later.record(&settings, start + after * SECOND, Success);
            let lasts = if after < 20 { lasts } else { lasts / 2 };
            let change = later.eject(&settings, Reason::Consecutive, start, 0.5);
            assert_eq!(change, Change::Ejected(Reason::Consecutive, lasts * SECOND), "{after}");
        }
    }

    #[test]
    fn checks_take_it_out_until_they_say_otherwise() {
        let (settings, now) = (Settings::default(), Instant::now());
        let mut member = Member::default();
        assert_eq!(member.found_down(now), Some(Change::Ejected(Reason::HealthCheck, Duration::ZERO)));
        assert_eq!(member.found_down(now), None);
        assert!(!member.probe(now + 3600 * SECOND), "calls do not find out what checks know");
        assert_eq!(member.found_up(now), Some(Change::Returned));
        member.eject(&settings, Reason::Consecutive, now, 0.5);
        assert_eq!(member.found_down(now), None);
        assert_eq!(member.found_up(now), None);
        assert!(member.probe(now), "a good check brings the probe early, and no more");
    }
}
