//! What calls do to a world: they come, wait, try, fail, try again, end early, late or not at all.

use std::time::Duration;

use outrigger::{
    model::Judgement,
    policy::{
        balance::{PeakEwma, hash_key},
        breaker::{self, Forced, Mode, State, Transition},
        bulkhead::{self, GaveUp, WaiterId},
    },
};

use crate::world::{Attempt, MS, World};

impl World {
    /// A call comes in.
    pub(crate) fn call(&mut self) {
        match self.bulkhead.admit() {
            bulkhead::Verdict::Admit => {
                assert!(self.waiting.is_empty(), "a newcomer passed those who wait");
                self.attempt(3);
            }
            bulkhead::Verdict::Queue(id) => {
                self.seen.note("queued");
                self.waiting.push_back(id);
            }
            bulkhead::Verdict::Displace { .. } => unreachable!("all calls matter the same"),
            bulkhead::Verdict::Refuse => self.seen.note("bulkhead refused"),
        }
    }

    /// A call that holds a permit tries.
    pub(crate) fn attempt(&mut self, tries_left: u32) {
        let before = self.breaker.state();
        let admission = self.breaker.admit(self.now);
        self.transition(admission.transition);
        if admission.transition.is_some() {
            assert_eq!((before, self.breaker.state()), (State::Open, State::HalfOpen));
        }
        let ticket = match admission.verdict {
            breaker::Verdict::Admit(ticket) => ticket,
            breaker::Verdict::Refuse { .. } => {
                assert_ne!(self.breaker.state(), State::Closed);
                let observes = self.breaker_settings.mode == Mode::Observe;
                assert!(!observes || self.breaker.forced() == Forced::Open, "observing refused a call");
                self.seen.note("breaker refused");
                return self.release();
            }
        };
        if self.breaker.state() != State::Closed && !ticket.is_probe() {
            assert_eq!(self.breaker_settings.mode, Mode::Observe);
            self.seen.note("bystander");
        }
        let Some(place) = self.pick() else {
            self.seen.note("no endpoint");
            let transition = self.breaker.record(self.now, ticket, Duration::ZERO, Judgement::Nothing);
            assert_eq!(transition, None);
            return self.release();
        };
        let endpoint = &mut self.endpoints[place];
        endpoint.outstanding += 1;
        let failing = if self.outage { 90 } else { endpoint.failing };
        let takes = match self.random.below(200) {
            0 => {
                self.seen.note("very late");
                60_000
            }
            1..10 => 1_000,
            _ => 5 + self.random.below(60),
        };
        self.attempts.push(Attempt {
            ticket,
            era: self.era,
            endpoint: endpoint.id,
            began: self.now,
            ends: self.now + MS * takes,
            fails: self.random.below(100) < failing,
            tries_left: tries_left - 1,
        });
    }

    pub(crate) fn pick(&mut self) -> Option<usize> {
        let usable = |place: usize| !self.endpoints[place].drained && self.endpoints[place].outstanding < 40;
        let key = (self.random.below(3) > 0).then(|| hash_key(&self.random.bits().to_be_bytes()));
        let picked = self.balancer.pick(self.revision, &self.endpoints, usable, key, self.now, &mut self.random);
        let best = (0..self.endpoints.len()).filter(|&i| usable(i)).map(|i| self.endpoints[i].priority).min();
        assert!(picked.is_none_or(usable), "an unusable endpoint was picked");
        assert_eq!(picked.map(|i| self.endpoints[i].priority), best, "not of the first group that is usable");
        picked
    }

    /// An attempt ends; its call tries again, or gives its permit back.
    pub(crate) fn end_attempt(&mut self, n: usize, judgement: Judgement) {
        let attempt = self.attempts.swap_remove(n);
        let took = self.now.saturating_duration_since(attempt.began);
        // An endpoint may be gone before its last answers are in.
        if let Some(endpoint) = self.endpoints.iter_mut().find(|endpoint| endpoint.id == attempt.endpoint) {
            endpoint.outstanding -= 1;
            if judgement != Judgement::Nothing {
                let mut latency = PeakEwma::unpack(self.start, endpoint.latency);
                latency.observe(self.now, took);
                endpoint.latency = latency.pack();
            }
        }
        let before = self.breaker.state();
        let transition = self.breaker.record(self.now, attempt.ticket, took, judgement);
        if let Some(Transition { to, .. }) = transition {
            let what = match (before, to) {
                (State::Closed, State::Open) => "opened",
                (State::HalfOpen, State::Open) => "opened again",
                (State::HalfOpen, State::Closed) => "closed",
                other => panic!("a result led from => to {other:?}"),
            };
            self.seen.note(what);
            assert_eq!(attempt.era, self.era, "a late result changed the state");
        }
        self.transition(transition);
        match judgement {
            Judgement::Failure if attempt.tries_left > 0 => {
                self.seen.note("retried");
                self.attempt(attempt.tries_left);
            }
            Judgement::Nothing => {
                self.seen.note("cancelled");
                self.release();
            }
            Judgement::Success | Judgement::Failure => {
                self.seen.note(if judgement == Judgement::Success { "answered" } else { "failed" });
                self.release();
            }
        }
    }

    /// A call gives its permit back.
    pub(crate) fn release(&mut self) {
        let next = self.bulkhead.release();
        self.wake(next);
    }

    pub(crate) fn wake(&mut self, admitted: impl IntoIterator<Item = WaiterId>) {
        for id in admitted {
            assert_eq!(Some(id), self.waiting.pop_front(), "not who has waited longest");
            self.seen.note("admitted from the queue");
            self.woken.push_back(id);
        }
    }

    pub(crate) fn a_woken_waiter_begins(&mut self) {
        if self.woken.pop_front().is_some() {
            self.attempt(3);
        }
    }

    pub(crate) fn a_waiter_gives_up(&mut self) {
        let (waiting, woken) = (self.waiting.len() as u32, self.woken.len() as u32);
        let n = self.random.below(waiting + woken);
        if n < waiting {
            if let Some(id) = self.waiting.remove(n as usize) {
                assert_eq!(self.bulkhead.give_up(id), GaveUp::Left);
                self.seen.note("gave up");
            }
        } else if let Some(id) = self.woken.remove((n - waiting) as usize) {
            assert_eq!(self.bulkhead.give_up(id), GaveUp::AlreadyAdmitted);
            self.seen.note("gave up too late");
            self.release();
        }
    }

    pub(crate) fn time_passes(&mut self) {
        let most = if self.random.below(20) == 0 { 2_000 } else { 30 };
        self.now += MS * self.random.below(most);
        while let Some(n) = self.attempts.iter().position(|attempt| attempt.ends <= self.now) {
            let judgement = if self.attempts[n].fails { Judgement::Failure } else { Judgement::Success };
            self.attempts[n].ends = self.now;
            self.end_attempt(n, judgement);
        }
    }

    pub(crate) fn an_age_passes(&mut self) {
        self.now += MS * self.random.below(30_000);
    }

    pub(crate) fn an_attempt_is_cancelled(&mut self) {
        if let Some(n) = self.any_attempt() {
            self.end_attempt(n, Judgement::Nothing);
        }
    }

    pub(crate) fn an_attempt_ends_early(&mut self) {
        if let Some(n) = self.any_attempt() {
            let judgement = if self.attempts[n].fails { Judgement::Failure } else { Judgement::Success };
            self.end_attempt(n, judgement);
        }
    }

    pub(crate) fn any_attempt(&mut self) -> Option<usize> {
        (!self.attempts.is_empty()).then(|| self.random.below(self.attempts.len() as u32) as usize)
    }

    pub(crate) fn transition(&mut self, transition: Option<Transition>) {
        if let Some(Transition { to, .. }) = transition {
            assert_eq!(to, self.breaker.state(), "a transition says where it led");
            if to == State::HalfOpen {
                self.seen.note("half-opened");
            }
            self.era += 1;
        }
    }
}
