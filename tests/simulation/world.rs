//! Bulkhead, breaker and balancer as the sidecar puts them together, with everything that can go wrong.
//!
//! A call takes a permit of the bulkhead, or waits for one. Each of its attempts asks the breaker and picks
//! an endpoint; a failed one may be followed by another. Whoever is admitted from the queue learns of it a
//! little later, and may have given up meanwhile: that race is played out here too.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use outrigger::{
    model::{Judgement, Random},
    policy::{
        balance::{self, Balancer, HashKey, Load, PeakEwma},
        breaker::{self, Breaker, Forced, State, Ticket},
        bulkhead::{self, Bulkhead, WaiterId},
    },
};

use crate::{
    changes::{any_breaker, any_bulkhead},
    seen::Seen,
};

pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) struct Endpoint {
    pub(crate) base: Instant,
    pub(crate) id: u64,
    pub(crate) weight: u32,
    pub(crate) priority: u16,
    pub(crate) drained: bool,
    /// Per cent of its attempts that fail.
    pub(crate) failing: u32,
    pub(crate) latency: u64,
    pub(crate) outstanding: u32,
}

impl Load for Endpoint {
    fn weight(&self) -> u32 {
        self.weight
    }
    fn priority(&self) -> u16 {
        self.priority
    }
    fn outstanding(&self) -> u32 {
        self.outstanding
    }
    fn latency_us(&self, now: Instant) -> f64 {
        PeakEwma::unpack(self.base, self.latency).read(now)
    }
    fn hash_id(&self) -> u64 {
        self.id
    }
}

/// An attempt that is under way, with the permit of its call.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) ticket: Ticket,
    /// The breaker's era in which it was admitted; see [`World::era`].
    pub(crate) era: u64,
    pub(crate) endpoint: u64,
    pub(crate) began: Instant,
    pub(crate) ends: Instant,
    pub(crate) fails: bool,
    pub(crate) tries_left: u32,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) bulkhead_settings: bulkhead::Settings,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) breaker_settings: breaker::Settings,
    pub(crate) breaker: Breaker,
    /// Counts what makes earlier probes void: transitions, forced states, reloads.
    pub(crate) era: u64,
    pub(crate) balancer: Balancer,
    pub(crate) revision: u64,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) endpoints_made: u32,
    pub(crate) attempts: Vec<Attempt>,
    /// Who waits, as the queue should see it.
    pub(crate) waiting: VecDeque<WaiterId>,
    /// Who has been admitted from the queue and has not noticed yet.
    pub(crate) woken: VecDeque<WaiterId>,
    pub(crate) outage: bool,
    pub(crate) seen: Seen,
}

impl World {
    #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    pub(crate) fn new(mut random: Random) -> Self {
        let start = Instant::now();
        let bulkhead_settings = any_bulkhead(&mut random);
        let breaker_settings = any_breaker(&mut random);
        let ways = [
            balance::Settings::P2c,
            balance::Settings::RoundRobin,
            balance::Settings::Random,
            balance::Settings::LeastRequest,
            balance::Settings::Hash(HashKey::Path),
        ];
        let balancer = Balancer::new(&ways[random.below(5) as usize]);
        let mut world = Self {
            random,
            start,
            now: start,
            bulkhead: Bulkhead::new(bulkhead_settings.clone()),
            bulkhead_settings,
            breaker: Breaker::new(breaker_settings.clone(), start),
            breaker_settings,
            era: 0,
            balancer,
            revision: 0,
            endpoints: Vec::new(),
            endpoints_made: 0,
            attempts: Vec::new(),
            waiting: VecDeque::new(),
            woken: VecDeque::new(),
            outage: false,
            seen: Seen::default(),
        };
        for _ in 0..3 {
            world.add_endpoint();
        }
        world
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// One thing happens, and everything still holds.
    pub(crate) fn step(&mut self) {
        let (in_flight, queued) = (self.bulkhead.view().in_flight, self.bulkhead.view().queued);
        match self.random.below(1_000) {
            0..400 => self.call(),
            400..600 => self.time_passes(),
            600..720 => self.a_woken_waiter_begins(),
            720..780 => self.a_waiter_gives_up(),
            780..860 => self.an_attempt_is_cancelled(),
            860..940 => self.an_attempt_ends_early(),
            940..950 => self.outage = !self.outage,
            950..955 => self.drain_or_undrain(),
            955..960 => self.endpoints_change(),
            960..965 => self.force(),
            965..970 => self.resize(),
            970..972 => self.reconfigure(),
            972..980 => self.an_age_passes(),
            _ => self.would_recover(),
        }
        self.check(in_flight, queued);
    }

    /// All faults end, everything reports: then calls flow, and nothing is held.
    pub(crate) fn end_of_faults(&mut self) {
        self.outage = false;
        let forced = self.breaker.force(Forced::Auto, self.now);
        self.transition(forced);
        self.endpoints.iter_mut().for_each(|endpoint| (endpoint.drained, endpoint.failing) = (false, 0));
        self.add_endpoint();
        while !self.attempts.is_empty() || !self.woken.is_empty() {
            while let Some(n) = self.attempts.len().checked_sub(1) {
                self.now += MS;
                self.end_attempt(n, Judgement::Success);
            }
            self.a_woken_waiter_begins();
        }
        assert_eq!((self.bulkhead.view().in_flight, self.bulkhead.view().queued), (0, 0), "all have gone home");
        // Probes that failed before the faults ended may open it once more.
        for _ in 0..2 {
            self.now += self.breaker_settings.open_for + self.breaker_settings.window + MS;
            for _ in 0..self.breaker_settings.probes {
                self.call();
                self.now += MS;
                self.attempts.len().checked_sub(1).into_iter().for_each(|n| self.end_attempt(n, Judgement::Success));
            }
        }
        for n in 0..50 {
            self.call();
            assert_eq!(self.attempts.len(), 1, "call {n} after the faults does not flow");
            self.now += MS;
            self.end_attempt(0, Judgement::Success);
        }
        assert_eq!(self.breaker.state(), State::Closed);
    }

    /// If from this very moment on everything went well, calls would flow again: tried on a copy.
    fn would_recover(&mut self) {
        let mut breaker = self.breaker.clone();
        let mut now = self.now;
        let _ = breaker.force(Forced::Auto, now);
        for attempt in &self.attempts {
            now += MS;
            let judgement = [Judgement::Success, Judgement::Failure, Judgement::Nothing][self.random.below(3) as usize];
            let _ = breaker.record(now, attempt.ticket, MS, judgement);
        }
        // Probes that failed before this moment may open it once more.
        for _ in 0..2 {
            now += self.breaker_settings.open_for + MS;
            for _ in 0..self.breaker_settings.probes {
                if let breaker::Verdict::Admit(ticket) = breaker.admit(now).verdict {
                    let _ = breaker.record(now, ticket, MS, Judgement::Success);
                }
            }
            // What a closed one remembers of the faults goes with its window.
            now += self.breaker_settings.window;
        }
        assert_eq!(breaker.state(), State::Closed, "{:?} for good", self.breaker.view(self.now));
        self.seen.note("would recover");
    }

    /// What must hold between any two steps; the arguments are the figures before this one.
    fn check(&self, in_flight_before: u32, queued_before: u32) {
        let bulkhead = self.bulkhead.view();
        let held = self.attempts.len() + self.woken.len();
        assert_eq!(bulkhead.in_flight as usize, held, "permits that are out, and calls that hold one");
        assert_eq!(bulkhead.queued as usize, self.waiting.len());
        assert!(bulkhead.in_flight <= bulkhead.limit.max(in_flight_before), "above the limit: {bulkhead:?}");
        assert!(bulkhead.queued <= bulkhead.queue.max(queued_before), "above the queue: {bulkhead:?}");
        assert!(bulkhead.queued == 0 || bulkhead.in_flight >= bulkhead.limit, "waiting for nothing: {bulkhead:?}");

        let probes = self.attempts.iter().filter(|a| a.ticket.is_probe() && a.era == self.era).count();
        assert!(probes <= self.breaker_settings.probes as usize, "{probes} probes at once");
        let view = self.breaker.view(self.now);
        assert!(view.failures <= view.calls && view.slow <= view.calls, "{view:?}");
        assert_eq!(view.probes_in.is_some(), view.state == State::Open && view.forced == Forced::Auto, "{view:?}");

        for endpoint in &self.endpoints {
            let out = self.attempts.iter().filter(|attempt| attempt.endpoint == endpoint.id).count();
            assert_eq!(endpoint.outstanding as usize, out);
        }
    }
}
