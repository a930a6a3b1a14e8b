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
        None,
        Fallbacks::default(),
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
