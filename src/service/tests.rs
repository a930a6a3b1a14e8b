//! What a service keeps, and what it must not keep, when its configuration or its endpoints change.

use std::{collections::BTreeMap, net::SocketAddr};

use super::*;
use crate::{
    config::Config,
    model::{Endpoint, Origin, SourceKind},
};

/// The one service of a config, succeeding another.
fn service(rest: &str, old: Option<&Service>) -> Service {
    let text = format!("services: {{a: {{{rest}}}}}");
    let config = Config::parse("t.yaml", &text, &|_| None).unwrap().config;
    Service::new(
        config.services.values().next().unwrap().clone(),
        Making { label: "a", tls: None, vip: None, fallbacks: Fallbacks::default() },
        &Metrics::new(),
        1,
        old,
        now(),
    )
}

fn set(revision: u64, endpoints: &[(u8, u32)]) -> EndpointSet {
    let origin = Origin { kind: SourceKind::Static, detail: "config".into() };
    let endpoint = |&(host, weight): &(u8, u32)| Endpoint {
        addr: ([10, 0, 0, host], 80).into(),
        weight,
        priority: 0,
        authority: "a:80".into(),
        origin: origin.clone(),
    };
    EndpointSet::new(revision, endpoints.iter().map(endpoint).collect())
}

fn spread(service: &Service, picks: usize) -> Vec<usize> {
    let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for _ in 0..picks {
        let slot = service.pick(0, None, now(), &mut Random::seeded(7)).unwrap();
        *counts.entry(slot.live().endpoint().addr).or_default() += 1;
    }
    counts.into_values().collect()
}

#[tokio::test(start_paused = true)]
async fn two_sets_with_one_revision_are_still_two_to_the_balancer() {
    let old = service("static: ['10.0.0.1:80', '10.0.0.2:80'], balance: round_robin", None);
    old.discovered(&set(1, &[(1, 1), (2, 1)]), now());
    let new = service("file: /list, balance: round_robin", Some(&old));
    assert_eq!(spread(&new, 40), [20, 20], "the old endpoints serve until the new source has spoken");
    new.discovered(&EndpointSet::empty(), now());
    assert_eq!(spread(&new, 40), [20, 20]);
    new.discovered(&set(1, &[(1, 3), (2, 1)]), now());
    assert_eq!(spread(&new, 40), [30, 10]);
}

#[tokio::test(start_paused = true)]
async fn another_description_is_still_the_same_instance() {
    let service = service("static: ['10.0.0.1:80'], bulkhead: {max: 9, per_endpoint: 1}", None);
    service.discovered(&set(1, &[(1, 1)]), now());
    let slot = service.pick(0, None, now(), &mut Random::seeded(7)).unwrap();
    slot.observe(now(), Duration::from_millis(80));
    slot.live().drain();
    service.discovered(&set(2, &[(1, 5)]), now());
    let live = service.endpoints().live()[0].clone();
    assert_eq!((live.outstanding(), live.is_draining(), live.endpoint().weight), (1, true, 5));
    assert!(live.latency(now()) > Duration::from_millis(70));
    drop(slot);
    assert_eq!(live.outstanding(), 0);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_a_new_source_denies_are_given_up_when_told_so() {
    let old = service("static: ['10.0.0.1:80']", None);
    old.discovered(&set(1, &[(1, 1)]), now());
    let new = service("file: /list", Some(&old));
    let inherited = new.endpoints().live()[0].clone();
    new.none_discovered(now());
    assert_eq!(new.pick(0, None, now(), &mut Random::seeded(7)).unwrap_err(), NoPick::NoEndpoints);
    assert!(inherited.target().retired().is_some());
    new.discovered(&set(1, &[(1, 1)]), now());
    assert!(!Arc::ptr_eq(new.endpoints().live()[0].target(), inherited.target()), "one that comes back is another");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_keeps_its_state_under_other_settings() {
    let old = service("static: ['10.0.0.1:80'], breaker: {min_calls: 1, open_for: 5s}", None);
    let breaker = old.breaker().unwrap();
    breaker.admit(now()).unwrap().report(now(), crate::model::Judgement::Failure);
    let new = service("static: ['10.0.0.1:80'], breaker: {min_calls: 9, open_for: 20s}", Some(&old));
    let refused = new.breaker().unwrap().admit(now()).unwrap_err();
    assert_eq!(refused.retry_after, Some(Duration::from_secs(20)));
}

/// One of three is back, another fails its checks and may not leave since the third is out: however often that is said,
/// it takes nothing from the slow start of either, and it goes when there is room.
#[tokio::test(start_paused = true)]
async fn what_checks_say_again_changes_nothing_until_it_can() {
    let service =
        service("static: ['10.0.0.1:80'], balance: random, ejection: {max_ejected: 34%, slow_start: 2s}", None);
    service.discovered(&set(1, &[(1, 1), (2, 1), (3, 1)]), now());
    let addr = |host| SocketAddr::from(([10, 0, 0, host], 80));
    let is_out = || service.endpoints().live().iter().map(|live| live.record().is_out()).collect::<Vec<_>>();
    let seconds = |n| now() + Duration::from_secs(n);
    service.checked(addr(1), false, now());
    service.checked(addr(1), true, seconds(1));
    service.checked(addr(3), false, seconds(1));
    for second in 2..=9 {
        service.checked(addr(1), false, seconds(second));
        service.checked(addr(3), false, seconds(second));
    }
    assert_eq!(is_out(), [false, false, true]);
    let mut random = Random::seeded(7);
    let picks = (0..400).map(|_| service.pick(0, None, seconds(9), &mut random).unwrap().live().endpoint().addr);
    let of_first = picks.filter(|picked| *picked == addr(1)).count();
    assert!((160..240).contains(&of_first), "{of_first} of 400: its slow start was over long ago");
    service.checked(addr(3), true, seconds(10));
    service.checked(addr(1), false, seconds(10));
    assert_eq!(is_out(), [true, false, false]);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn an_ejected_endpoint_is_better_than_none() {
    let now = Instant::now();
    let service = service("static: ['10.0.0.1:80'], ejection: {for: 1h, max_for: 1h}", None);
    service.discovered(&set(1, &[(1, 1), (2, 1)]), now);
    let mut random = Random::seeded(1);
    while !service.endpoints().live()[0].record().is_out() {
        let mut slot = service.pick(0, None, now, &mut random).unwrap();
        let is_first = slot.live().endpoint().addr == service.endpoints().live()[0].endpoint().addr;
        let judgement = if is_first { crate::model::Judgement::Failure } else { crate::model::Judgement::Success };
        service.report(&mut slot, now, judgement);
    }
    let second = service.endpoints().live()[1].endpoint().addr;
    assert!((0..50).all(|_| service.pick(0, None, now, &mut random).unwrap().live().endpoint().addr == second));
    service.endpoints().live()[1].drain();
    assert!(service.pick(0, None, now, &mut random).is_ok(), "the operator has drained the other one");
}

/// Endpoints that fail in phases, attempts that end in any way and order, endpoints that come and go: whatever
/// happens, enough stay in rotation, nobody is forgotten, and nothing leaks.
#[test]
#[allow(clippy::disallowed_methods, reason = "a simulation needs some instant to count from")]
fn ejection_keeps_its_promises_in_any_weather() {
    use crate::policy::ejection::State;
    let (mut ejected, mut probed) = (0, 0);
    for seed in 0..60 {
        let mut random = Random::seeded(seed);
        let start = Instant::now();
        let mut now = start;
        let n = 1 + random.below(6) as u8;
        let service = service("static: ['10.0.0.1:80'], ejection: {for: 1s, max_for: 8s, slow_start: 2s}", None);
        service.discovered(&set(1, &(1..=n).map(|host| (host, 1)).collect::<Vec<_>>()), now);
        let mut failing: Vec<f64> = (0..n).map(|_| 0.0).collect();
        let (mut under_way, mut revision): (Vec<Slot>, u64) = (Vec::new(), 1);
        // When each was last in rotation, or was offered a probe.
        let mut offered: BTreeMap<SocketAddr, Instant> = BTreeMap::new();
        for step in 0..8_000 {
            now += Duration::from_micros(u64::from(random.below(8_000)));
            if step % 500 == 0 {
                failing.iter_mut().for_each(|share| *share = [0.0, 0.0, 0.1, 0.5, 1.0][random.below(5) as usize]);
            }
            if random.below(2_000) == 0 {
                revision += 1;
                let stays = (1..=n).filter(|_| n == 1 || random.below(8) > 0).map(|host| (host, 1)).collect::<Vec<_>>();
                if !stays.is_empty() {
                    service.discovered(&set(revision, &stays), now);
                }
            }
            if under_way.len() < 8 && random.below(3) > 0 {
                let slot =
                    service.pick(0, None, now, &mut random).unwrap_or_else(|none| panic!("seed {seed}: {none:?}"));
                offered.insert(slot.live().endpoint().addr, now);
                under_way.push(slot);
            } else if !under_way.is_empty() {
                let mut slot = under_way.swap_remove(random.below(under_way.len() as u32) as usize);
                let SocketAddr::V4(addr) = slot.live().endpoint().addr else { unreachable!() };
                let judgement = match random.share() {
                    share if share < 0.05 => crate::model::Judgement::Nothing,
                    _ if random.share() < failing[usize::from(addr.ip().octets()[3] - 1)] => {
                        crate::model::Judgement::Failure
                    }
                    _ => crate::model::Judgement::Success,
                };
                service.report(&mut slot, now, judgement);
            }
            let live = service.endpoints();
            let states: Vec<_> =
                live.live().iter().map(|live| (live.endpoint().addr, live.record().state().0)).collect();
            let out = states.iter().filter(|(_, state)| !matches!(state, State::In { .. })).count();
            let most = crate::policy::ejection::Settings::default().most_out(states.len());
            // Endpoints that leave may make those that are out a greater share; nobody new joins them then.
            assert!(out < states.len().max(2) || revision > 1, "seed {seed}, step {step}: {states:?}");
            assert!(out <= most || revision > 1, "seed {seed}, step {step}: {states:?}");
            for (addr, state) in &states {
                match state {
                    State::In { .. } => drop(offered.insert(*addr, now)),
                    State::Out { until, .. } => {
                        ejected += 1;
                        assert!(*until <= now + Duration::from_millis(9_600), "seed {seed}: longest, and a fifth");
                        let waits = now.saturating_duration_since((*offered.get(addr).unwrap_or(&now)).max(*until));
                        assert!(waits < Duration::from_secs(1), "seed {seed}, step {step}: {addr} is never probed");
                    }
                    State::Probing { .. } => {
                        probed += 1;
                        let probes = under_way.iter().filter(|slot| slot.live().endpoint().addr == *addr).count();
                        assert!(probes > 0, "seed {seed}, step {step}: a probe was lost");
                    }
                }
            }
        }
        under_way.clear();
        assert!(service.endpoints().live().iter().all(|live| live.outstanding() == 0), "seed {seed}: slots come back");
    }
    assert!(ejected > 10_000 && probed > 500, "{ejected} steps with somebody out, {probed} with a probe");
}
