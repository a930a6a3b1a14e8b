//! What the policies cost a call: nanoseconds an operation, on one core.
//!
//! `cargo bench --bench policies` prints a table. Each line is the best of several rounds, because what
//! disturbs a measurement only ever adds to it. There is nothing to pass or fail here.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use outrigger::{
    model::{Judgement, Random},
    policy::{
        balance::{Balancer, HashKey, Load, PeakEwma, Settings, hash_key},
        breaker::{self, Breaker},
        bulkhead::{self, Bulkhead},
    },
};

const ROUNDS: usize = 7;

struct Endpoint {
    weight: u32,
    outstanding: u32,
    latency: PeakEwma,
    id: u64,
}

impl Load for Endpoint {
    fn weight(&self) -> u32 {
        self.weight
    }
    fn priority(&self) -> u16 {
        0
    }
    fn outstanding(&self) -> u32 {
        self.outstanding
    }
    fn latency_us(&self, now: Instant) -> f64 {
        self.latency.read(now)
    }
    fn hash_id(&self) -> u64 {
        self.id
    }
}

#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::print_stdout, reason = "a benchmark speaks")]
fn measure(what: &str, times: u32, mut operation: impl FnMut(u32)) {
    let best = (0..ROUNDS)
        .map(|_| {
            let start = now();
            (0..times).for_each(&mut operation);
            start.elapsed()
        })
        .min()
        .unwrap_or_default();
    println!("{what:<44} {:>9.1} ns", best.as_nanos() as f64 / f64::from(times));
}

fn main() {
    breaker();
    bulkhead();
    latency();
    for endpoints in [3, 1_000] {
        for weights in ["even", "uneven"] {
            balance(endpoints, weights);
        }
    }
}

/// A closed breaker under 10,000 attempts a second, so that buckets turn as they would.
fn breaker() {
    let start = now();
    let mut breaker = Breaker::new(breaker::Settings::default(), start);
    let mut clock = start;
    measure("breaker: admit and record", 1_000_000, |_| {
        clock += Duration::from_micros(100);
        if let breaker::Verdict::Admit(ticket) = breaker.admit(clock).verdict {
            black_box(breaker.record(clock, ticket, Duration::from_millis(1), Judgement::Success));
        }
    });
}

fn bulkhead() {
    let mut free = Bulkhead::new(bulkhead::Settings::default());
    measure("bulkhead: admit and release", 1_000_000, |_| {
        black_box(free.admit() == bulkhead::Verdict::Admit);
        black_box(free.release());
    });

    let settings = bulkhead::Settings { max: 1, queue: 1_000, ..bulkhead::Settings::default() };
    let mut full = Bulkhead::new(settings);
    (0..501).for_each(|_| assert!(black_box(full.admit()) != bulkhead::Verdict::Refuse));
    measure("bulkhead: queue and pass on, 500 waiting", 1_000_000, |_| {
        black_box(full.admit() == bulkhead::Verdict::Admit);
        black_box(full.release());
    });
}

fn latency() {
    let base = now();
    let mut clock = base;
    let mut packed = PeakEwma::new(base).pack();
    measure("latency: unpack, observe, pack", 1_000_000, |n| {
        clock += Duration::from_micros(700);
        let mut ewma = PeakEwma::unpack(base, packed);
        ewma.observe(clock, Duration::from_micros(500 + u64::from(n % 64)));
        packed = black_box(ewma.pack());
    });
}

fn balance(count: u32, weights: &str) {
    let base = now();
    let clock = base + Duration::from_millis(40);
    let mut random = Random::seeded(1);
    let endpoints: Vec<_> = (0..count)
        .map(|n| {
            let mut latency = PeakEwma::new(base);
            latency.observe(base, Duration::from_micros(u64::from(1_000 + random.below(2_000))));
            let weight = if weights == "even" { 1 } else { 1 + n % 5 };
            Endpoint { weight, outstanding: random.below(3), latency, id: hash_key(&n.to_be_bytes()) }
        })
        .collect();
    let times = if count > 100 { 20_000 } else { 500_000 };
    for (name, settings) in [
        ("p2c", Settings::P2c),
        ("random", Settings::Random),
        ("round_robin", Settings::RoundRobin),
        ("least_request", Settings::LeastRequest),
        ("hash", Settings::Hash(HashKey::Path)),
    ] {
        let mut balancer = Balancer::new(&settings);
        measure(&format!("{name}: pick of {count}, {weights} weights"), times, |n| {
            let key = Some(u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            black_box(balancer.pick(1, &endpoints, |_| true, key, clock, &mut random));
        });
    }
}
