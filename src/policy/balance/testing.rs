//! Endpoints made of numbers, and a balancer with its generator: what the tests of all ways share.

use super::*;

/// An endpoint whose load a test sets by hand.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) weight: u32,
    pub(super) priority: u16,
    pub(super) outstanding: u32,
    pub(super) latency_us: f64,
    pub(super) id: u64,
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
    fn latency_us(&self, _now: Instant) -> f64 {
        self.latency_us
    }
    fn hash_id(&self) -> u64 {
        self.id
    }
}

/// Idle endpoints of one priority, without a latency yet.
pub(super) fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
    let ids = (0..).map(|n: u32| hash_key(format!("10.0.0.{n}:80").as_bytes()));
    let endpoint = |(&weight, id)| Endpoint { weight, priority: 0, outstanding: 0, latency_us: 0.0, id };
    weights.iter().zip(ids).map(endpoint).collect()
}

/// A balancer and all that a pick needs beside the endpoints.
pub(super) struct Picker {
    balancer: Balancer,
    random: Random,
    now: Instant,
    picks: u64,
    pub(super) revision: u64,
    pub(super) keyless: bool,
}

impl Picker {
    pub(super) fn new(settings: &Settings) -> Self {
        Self::seeded(settings, 42)
    }

    #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    pub(super) fn seeded(settings: &Settings, seed: u64) -> Self {
        let (balancer, random, now) = (Balancer::new(settings), Random::seeded(seed), Instant::now());
        Self { balancer, random, now, picks: 0, revision: 1, keyless: false }
    }

    /// One pick, with a key of its own.
    pub(super) fn pick(&mut self, loads: &[Endpoint], usable: impl Fn(usize) -> bool) -> Option<usize> {
        self.picks += 1;
        let key = (!self.keyless).then(|| hash_key(&self.picks.to_be_bytes()));
        self.balancer.pick(self.revision, loads, usable, key, self.now, &mut self.random)
    }

    pub(super) fn pick_key(&mut self, loads: &[Endpoint], usable: impl Fn(usize) -> bool, key: u64) -> Option<usize> {
        self.balancer.pick(self.revision, loads, usable, Some(key), self.now, &mut self.random)
    }

    /// How often each is picked.
    pub(super) fn count(&mut self, picks: u32, loads: &[Endpoint], usable: impl Fn(usize) -> bool) -> Vec<u32> {
        let mut counts = vec![0; loads.len()];
        for _ in 0..picks {
            counts[self.pick(loads, &usable).expect("one is usable")] += 1;
        }
        counts
    }
}
