//! Bulkhead, breaker and balancer as the sidecar puts them together, with everything that can go wrong.
//!
//! A call takes a permit of the bulkhead, or waits for one. Each of its attempts asks the breaker and picks
//! an endpoint; a failed one may be followed by another. Whoever is admitted from the queue learns of it a
//! little later, and may have given up meanwhile: that race is played out here too.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use outrigger::{
    model::{Judgement, Random},
    policy::{
        Share,
        balance::{self, Balancer, HashKey, Load, PeakEwma, hash_key},
        breaker::{self, Breaker, Forced, Mode, State, Ticket, Transition},
        bulkhead::{self, Bulkhead, GaveUp, WaiterId},
    },
};

const MS: Duration = Duration::from_millis(1);

/// What happened, so that a life in which nothing does is noticed.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<&'static str, u32>);

impl Seen {
    fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, n) in &other.0 {
            *self.0.entry(what).or_default() += n;
        }
    }

    /// Everything that this file can provoke has been provoked, and not just once.
    pub(crate) fn has_everything(&self) {
        for what in [
            "answered",
            "failed",
            "retried",
            "cancelled",
            "very late",
            "breaker refused",
            "bulkhead refused",
            "queued",
            "admitted from the queue",
            "gave up",
            "gave up too late",
            "no endpoint",
            "opened",
            "half-opened",
            "opened again",
            "closed",
            "forced",
            "resized",
            "reconfigured",
            "drained",
            "endpoints changed",
            "bystander",
            "would recover",
        ] {
            let n = self.0.get(what).copied().unwrap_or(0);
            assert!(n >= 20, "too little of it: {what}, {n} times; {self:?}");
        }
    }
}

struct Endpoint {
    base: Instant,
    id: u64,
    weight: u32,
    priority: u16,
    drained: bool,
    /// Per cent of its attempts that fail.
    failing: u32,
    latency: u64,
    outstanding: u32,
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
struct Attempt {
    ticket: Ticket,
    /// The breaker's era in which it was admitted; see [`World::era`].
    era: u64,
    endpoint: u64,
    began: Instant,
    ends: Instant,
    fails: bool,
    tries_left: u32,
}

pub(crate) struct World {
    random: Random,
    start: Instant,
    now: Instant,
    bulkhead_settings: bulkhead::Settings,
    bulkhead: Bulkhead,
    breaker_settings: breaker::Settings,
    breaker: Breaker,
    /// Counts what makes earlier probes void: transitions, forced states, reloads.
    era: u64,
    balancer: Balancer,
    revision: u64,
    endpoints: Vec<Endpoint>,
    endpoints_made: u32,
    attempts: Vec<Attempt>,
    /// Who waits, as the queue should see it.
    waiting: VecDeque<WaiterId>,
    /// Who has been admitted from the queue and has not noticed yet.
    woken: VecDeque<WaiterId>,
    outage: bool,
    seen: Seen,
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

    /// A call comes in.
    fn call(&mut self) {
        match self.bulkhead.admit() {
            bulkhead::Verdict::Admit => {
                assert!(self.waiting.is_empty(), "a newcomer passed those who wait");
                self.attempt(3);
            }
            bulkhead::Verdict::Queue(id) => {
                self.seen.note("queued");
                self.waiting.push_back(id);
            }
            bulkhead::Verdict::Refuse => self.seen.note("bulkhead refused"),
        }
    }

    /// A call that holds a permit tries.
    fn attempt(&mut self, tries_left: u32) {
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

    fn pick(&mut self) -> Option<usize> {
        let usable = |place: usize| !self.endpoints[place].drained && self.endpoints[place].outstanding < 40;
        let key = (self.random.below(3) > 0).then(|| hash_key(&self.random.bits().to_be_bytes()));
        let picked = self.balancer.pick(self.revision, &self.endpoints, usable, key, self.now, &mut self.random);
        let best = (0..self.endpoints.len()).filter(|&i| usable(i)).map(|i| self.endpoints[i].priority).min();
        assert!(picked.is_none_or(usable), "an unusable endpoint was picked");
        assert_eq!(picked.map(|i| self.endpoints[i].priority), best, "not of the first group that is usable");
        picked
    }

    /// An attempt ends; its call tries again, or gives its permit back.
    fn end_attempt(&mut self, n: usize, judgement: Judgement) {
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
    fn release(&mut self) {
        let next = self.bulkhead.release();
        self.wake(next);
    }

    fn wake(&mut self, admitted: impl IntoIterator<Item = WaiterId>) {
        for id in admitted {
            assert_eq!(Some(id), self.waiting.pop_front(), "not who has waited longest");
            self.seen.note("admitted from the queue");
            self.woken.push_back(id);
        }
    }

    fn a_woken_waiter_begins(&mut self) {
        if self.woken.pop_front().is_some() {
            self.attempt(3);
        }
    }

    fn a_waiter_gives_up(&mut self) {
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

    fn time_passes(&mut self) {
        let most = if self.random.below(20) == 0 { 2_000 } else { 30 };
        self.now += MS * self.random.below(most);
        while let Some(n) = self.attempts.iter().position(|attempt| attempt.ends <= self.now) {
            let judgement = if self.attempts[n].fails { Judgement::Failure } else { Judgement::Success };
            self.attempts[n].ends = self.now;
            self.end_attempt(n, judgement);
        }
    }

    fn an_age_passes(&mut self) {
        self.now += MS * self.random.below(30_000);
    }

    fn an_attempt_is_cancelled(&mut self) {
        if let Some(n) = self.any_attempt() {
            self.end_attempt(n, Judgement::Nothing);
        }
    }

    fn an_attempt_ends_early(&mut self) {
        if let Some(n) = self.any_attempt() {
            let judgement = if self.attempts[n].fails { Judgement::Failure } else { Judgement::Success };
            self.end_attempt(n, judgement);
        }
    }

    fn any_attempt(&mut self) -> Option<usize> {
        (!self.attempts.is_empty()).then(|| self.random.below(self.attempts.len() as u32) as usize)
    }

    fn drain_or_undrain(&mut self) {
        let n = self.random.below(self.endpoints.len() as u32) as usize;
        if let Some(endpoint) = self.endpoints.get_mut(n) {
            endpoint.drained = !endpoint.drained;
            self.seen.note("drained");
        }
    }

    fn endpoints_change(&mut self) {
        self.seen.note("endpoints changed");
        match self.random.below(3) {
            0 if !self.endpoints.is_empty() => {
                let n = self.random.below(self.endpoints.len() as u32) as usize;
                self.endpoints.remove(n);
                self.revision += 1;
            }
            _ if self.endpoints.len() < 12 => self.add_endpoint(),
            _ => {}
        }
    }

    fn add_endpoint(&mut self) {
        self.endpoints_made += 1;
        self.revision += 1;
        self.endpoints.push(Endpoint {
            base: self.start,
            id: hash_key(&self.endpoints_made.to_be_bytes()),
            weight: 1 + self.random.below(4),
            priority: self.random.below(2) as u16,
            drained: self.random.below(4) == 0,
            failing: [0, 0, 10, 60][self.random.below(4) as usize],
            latency: 0,
            outstanding: 0,
        });
        self.endpoints.sort_by_key(|endpoint| (endpoint.priority, endpoint.id));
    }

    fn force(&mut self) {
        // Mostly auto, or a life would be spent in forced states.
        let forced =
            [Forced::Auto, Forced::Auto, Forced::Auto, Forced::Open, Forced::Closed][self.random.below(5) as usize];
        if forced != self.breaker.forced() {
            self.seen.note("forced");
            self.era += 1;
        }
        let transition = self.breaker.force(forced, self.now);
        self.transition(transition);
        assert_eq!(self.breaker.forced(), forced);
    }

    fn resize(&mut self) {
        self.seen.note("resized");
        self.bulkhead_settings = any_bulkhead(&mut self.random);
        let admitted = self.bulkhead.resize(self.bulkhead_settings.clone());
        self.wake(admitted);
    }

    fn reconfigure(&mut self) {
        self.seen.note("reconfigured");
        let before = (self.breaker.state(), self.breaker.forced());
        self.breaker_settings = any_breaker(&mut self.random);
        self.breaker.reconfigure(self.breaker_settings.clone(), self.now);
        assert_eq!((self.breaker.state(), self.breaker.forced()), before, "a reload keeps the state");
        if self.breaker.state() == State::HalfOpen {
            self.era += 1;
        }
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

    fn transition(&mut self, transition: Option<Transition>) {
        if let Some(Transition { to, .. }) = transition {
            assert_eq!(to, self.breaker.state(), "a transition says where it led");
            if to == State::HalfOpen {
                self.seen.note("half-opened");
            }
            self.era += 1;
        }
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

fn any_bulkhead(random: &mut Random) -> bulkhead::Settings {
    bulkhead::Settings { max: 1 + random.below(40), queue: random.below(10), ..bulkhead::Settings::default() }
}

fn any_breaker(random: &mut Random) -> breaker::Settings {
    let share = |percent: u32| Share::percent(percent.into()).expect("a share is 0 to 100");
    breaker::Settings {
        error_rate: share(20 + random.below(81)),
        min_calls: 1 + random.below(30),
        window: MS * [100, 1_000, 10_000][random.below(3) as usize],
        open_for: MS * [0, 100, 1_000, 5_000][random.below(4) as usize],
        probes: 1 + random.below(4),
        slow_call: [None, Some(500 * MS)][random.below(2) as usize],
        slow_rate: share(50 + random.below(51)),
        mode: if random.below(4) == 0 { Mode::Observe } else { Mode::On },
    }
}
