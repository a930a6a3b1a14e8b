//! What operators and discovery do to a world: endpoints drain, come and go; breakers are forced; reloads.

use outrigger::{
    model::Random,
    policy::{
        Share,
        balance::hash_key,
        breaker::{self, Forced, Mode, State},
        bulkhead,
    },
};

use crate::world::{Endpoint, MS, World};

impl World {
    pub(crate) fn drain_or_undrain(&mut self) {
        let n = self.random.below(self.endpoints.len() as u32) as usize;
        if let Some(endpoint) = self.endpoints.get_mut(n) {
            endpoint.drained = !endpoint.drained;
            self.seen.note("drained");
        }
    }

    pub(crate) fn endpoints_change(&mut self) {
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

    pub(crate) fn add_endpoint(&mut self) {
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

    pub(crate) fn force(&mut self) {
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

    pub(crate) fn resize(&mut self) {
        self.seen.note("resized");
        self.bulkhead_settings = any_bulkhead(&mut self.random);
        let admitted = self.bulkhead.resize(self.bulkhead_settings.clone());
        self.wake(admitted);
    }

    pub(crate) fn reconfigure(&mut self) {
        self.seen.note("reconfigured");
        let before = (self.breaker.state(), self.breaker.forced());
        self.breaker_settings = any_breaker(&mut self.random);
        self.breaker.reconfigure(self.breaker_settings.clone(), self.now);
        assert_eq!((self.breaker.state(), self.breaker.forced()), before, "a reload keeps the state");
        if self.breaker.state() == State::HalfOpen {
            self.era += 1;
        }
    }
}

pub(crate) fn any_bulkhead(random: &mut Random) -> bulkhead::Settings {
    bulkhead::Settings { max: 1 + random.below(40), queue: random.below(10), ..bulkhead::Settings::default() }
}

pub(crate) fn any_breaker(random: &mut Random) -> breaker::Settings {
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
