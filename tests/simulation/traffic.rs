//! A p2c balancer under steady load: where do the calls go?

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use outrigger::{
    model::Random,
    policy::balance::{Balancer, Load, PeakEwma, Settings},
};

/// Calls arrive in steps of a millisecond, one in two of them, so about 500 a second.
const ARRIVAL: u32 = 2;

struct Endpoint {
    latency: PeakEwma,
    outstanding: u32,
}

impl Load for Endpoint {
    fn weight(&self) -> u32 {
        1
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
        0
    }
}

/// Four endpoints that answer in 5 to 15 ms; the last stalls (1 s an answer) from 20 to 40 s; at 120 s a fifth
/// comes.
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
pub(crate) fn steady_load(mut random: Random) {
    let start = Instant::now();
    let ms = |at: u32| start + Duration::from_millis(at.into());
    let new = || Endpoint { latency: PeakEwma::new(start), outstanding: 0 };
    let mut endpoints: Vec<_> = (0..4).map(|_| new()).collect();
    let mut balancer = Balancer::new(&Settings::P2c);
    let mut ends: BTreeMap<u32, Vec<(usize, u32)>> = BTreeMap::new();
    let mut picks: Vec<(u32, usize)> = Vec::new();
    for at in 0..140_000 {
        for (place, began) in ends.remove(&at).unwrap_or_default() {
            endpoints[place].outstanding -= 1;
            endpoints[place].latency.observe(ms(at), Duration::from_millis((at - began).into()));
        }
        if at == 120_000 {
            endpoints.push(new());
        }
        if random.below(ARRIVAL) > 0 {
            continue;
        }
        let revision = endpoints.len() as u64;
        let place = balancer.pick(revision, &endpoints, |_| true, None, ms(at), &mut random).expect("all are usable");
        let stalls = place == 3 && (20_000..40_000).contains(&at);
        let takes = if stalls { 1_000 } else { 5 + random.below(11) };
        endpoints[place].outstanding += 1;
        ends.entry(at + takes).or_default().push((place, at));
        picks.push((at, place));
    }
    let share = |place: usize, during: Range<u32>| {
        let all: Vec<_> = picks.iter().filter(|(at, _)| during.contains(at)).collect();
        all.iter().filter(|(_, picked)| *picked == place).count() as f64 / all.len() as f64
    };
    for place in 0..4 {
        let got = share(place, 0..20_000);
        assert!((0.20..0.30).contains(&got), "{got:.3} of the calls to {place}, all being well");
    }
    let stalled = share(3, 20_000..40_000);
    assert!(stalled < 0.01, "{stalled:.3} of the calls to the one that stalls");
    let recovered = share(3, 90_000..120_000);
    assert!(recovered > 0.20, "{recovered:.3} of the calls to it, long after");
    for during in [120_000..120_100, 120_000..121_000, 121_000..140_000] {
        let got = share(4, during.clone());
        assert!((0.10..0.35).contains(&got), "{got:.3} of the calls to the new one in {during:?}");
    }
}
