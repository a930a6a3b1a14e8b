//! The breaker's rules a second time: a list of everything, and no cleverness.

use std::time::{Duration, Instant};

use outrigger::{
    model::{Judgement, Random},
    policy::{
        Share,
        breaker::{Breaker, Forced, Mode, Settings, State, Ticket, Verdict},
    },
};

/// Milliseconds from the start. All results of the present state are kept, with the bucket each ended in.
struct Reference {
    error_rate: u64,
    slow_rate: u64,
    min_calls: usize,
    window: u64,
    open_for: u64,
    probes: usize,
    slow_call: Option<u64>,
    observe: bool,

    state: State,
    forced: Forced,
    opened_at: u64,
    /// Counts the changes of state, and whatever else makes earlier tickets void.
    era: u64,
    /// Bucket, failed, slow.
    results: Vec<(u64, bool, bool)>,
    probes_out: usize,
}

/// A ticket's twin: its era, and whether it counts at all.
#[derive(Clone, Copy)]
struct Admitted {
    era: u64,
    counts: bool,
}

impl Reference {
    fn admit(&mut self, at: u64) -> Option<Admitted> {
        match self.forced {
            Forced::Open => return None,
            Forced::Closed => return Some(Admitted { era: self.era, counts: false }),
            Forced::Auto => {}
        }
        if self.state == State::Open && at > self.opened_at && at - self.opened_at > self.open_for {
            self.go(State::HalfOpen);
        }
        let admits = match self.state {
            State::Closed => true,
            State::Open => false,
            State::HalfOpen => self.probes_out + self.results.len() < self.probes,
        };
        if admits && self.state == State::HalfOpen {
            self.probes_out += 1;
        }
        if !admits && !self.observe {
            return None;
        }
        Some(Admitted { era: self.era, counts: admits })
    }

    fn record(&mut self, at: u64, admitted: Admitted, took: u64, judgement: Judgement) {
        if !admitted.counts || admitted.era != self.era {
            return;
        }
        if self.state == State::HalfOpen {
            self.probes_out -= 1;
        }
        if judgement == Judgement::Nothing {
            return;
        }
        let slow = self.slow_call.is_some_and(|limit| took > limit);
        self.results.push((at / (self.window / 10), judgement == Judgement::Failure, slow));
        let lately = self.lately(at);
        let bad = self.is_reached(lately.1, lately.0, self.error_rate)
            || self.slow_call.is_some() && self.is_reached(lately.2, lately.0, self.slow_rate);
        match self.state {
            State::Closed if lately.0 >= self.min_calls && bad => {
                self.opened_at = at;
                self.go(State::Open);
            }
            State::HalfOpen if lately.0 == self.probes => {
                self.opened_at = at;
                self.go(if bad { State::Open } else { State::Closed });
            }
            _ => {}
        }
    }

    fn force(&mut self, forced: Forced) {
        if forced == self.forced {
            return;
        }
        self.forced = forced;
        self.go(if forced == Forced::Open { State::Open } else { State::Closed });
    }

    /// Calls, failures and slow ones: of the last ten buckets when closed, of all probes when half-open.
    fn lately(&self, at: u64) -> (usize, usize, usize) {
        let bucket = at / (self.window / 10);
        let counted: Vec<_> =
            self.results.iter().filter(|(b, ..)| self.state == State::HalfOpen || b + 10 > bucket).collect();
        let failures = counted.iter().filter(|(_, failed, _)| *failed).count();
        let slow = counted.iter().filter(|(_, _, slow)| *slow).count();
        (counted.len(), failures, slow)
    }

    fn is_reached(&self, part: usize, whole: usize, percent: u64) -> bool {
        part as u64 * 100 >= percent * whole as u64
    }

    fn go(&mut self, state: State) {
        self.state = state;
        self.era += 1;
        self.results.clear();
        self.probes_out = 0;
    }
}

/// Lets both live through `steps` random steps.
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
pub(crate) fn compare(mut random: Random, steps: usize) {
    let ms = Duration::from_millis;
    let one_of = |random: &mut Random, of: &[u64]| of[random.below(of.len() as u32) as usize];
    let mut twin = Reference {
        error_rate: one_of(&mut random, &[1, 10, 33, 50, 75, 100]),
        slow_rate: one_of(&mut random, &[10, 50, 80, 100]),
        min_calls: one_of(&mut random, &[1, 2, 5, 20]) as usize,
        window: one_of(&mut random, &[10, 1_000, 10_000]),
        open_for: one_of(&mut random, &[0, 1, 500, 5_000]),
        probes: one_of(&mut random, &[1, 2, 5]) as usize,
        slow_call: [None, Some(200)][random.below(2) as usize],
        observe: random.below(4) == 0,
        state: State::Closed,
        forced: Forced::Auto,
        opened_at: 0,
        era: 0,
        results: Vec::new(),
        probes_out: 0,
    };
    let share = |percent: u64| Share::percent(percent as f64).expect("a share is 0 to 100");
    let settings = Settings {
        error_rate: share(twin.error_rate),
        min_calls: twin.min_calls as u32,
        window: ms(twin.window),
        open_for: ms(twin.open_for),
        probes: twin.probes as u32,
        slow_call: twin.slow_call.map(ms),
        slow_rate: share(twin.slow_rate),
        mode: if twin.observe { Mode::Observe } else { Mode::On },
    };
    let start = Instant::now();
    let mut breaker = Breaker::new(settings, start);
    let mut out: Vec<(Ticket, Admitted, u64)> = Vec::new();
    let mut at = 0;
    for step in 0..steps {
        // Mostly little time passes, sometimes a window's worth, seldom much more.
        at += u64::from(match random.below(100) {
            0 => random.below(60_000),
            1..5 => random.below(6_000),
            5..40 => random.below(60),
            _ => 0,
        });
        let bad = 10 + 80 * ((step / 500) % 2) as u32;
        match random.below(20) {
            0..10 => {
                let ours = breaker.admit(start + ms(at));
                let theirs = twin.admit(at);
                match (ours.verdict, theirs) {
                    (Verdict::Admit(ticket), Some(admitted)) => out.push((ticket, admitted, at)),
                    (Verdict::Refuse { .. }, None) => {}
                    other => panic!("step {step} at {at} ms: {other:?}", other = (other.0, other.1.is_some())),
                }
                assert!(ours.transition.is_none_or(|t| t.to == breaker.state()));
            }
            10..19 if !out.is_empty() => {
                let n = random.below(out.len() as u32) as usize;
                let (ticket, admitted, since) = out.swap_remove(n);
                let judgement = match random.below(100) {
                    0..8 => Judgement::Nothing,
                    n if n < 8 + bad => Judgement::Failure,
                    _ => Judgement::Success,
                };
                let before = breaker.state();
                let transition = breaker.record(start + ms(at), ticket, ms(at - since), judgement);
                twin.record(at, admitted, at - since, judgement);
                assert_eq!(transition.map(|t| t.to), (before != breaker.state()).then(|| breaker.state()));
            }
            19 if random.below(40) == 0 => {
                let forced = [Forced::Auto, Forced::Auto, Forced::Open, Forced::Closed][random.below(4) as usize];
                let _ = breaker.force(forced, start + ms(at));
                twin.force(forced);
            }
            _ => {}
        }
        let view = breaker.view(start + ms(at));
        assert_eq!((view.state, view.forced), (twin.state, twin.forced), "step {step} at {at} ms");
        if view.forced == Forced::Auto && view.state != State::Open {
            let (calls, failures, slow) = twin.lately(at);
            let ours = (view.calls as usize, view.failures as usize, view.slow as usize);
            assert_eq!(ours, (calls, failures, slow), "step {step} at {at} ms");
        }
    }
}
