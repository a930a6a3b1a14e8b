//! Ejection over real sockets: who is left out, for how long, and who never is.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::support::{Origin, Sidecar, eventually, ok};

/// An upstream that answers 503 while its switch says so.
async fn moody() -> (Origin, Arc<AtomicBool>) {
    let bad = Arc::new(AtomicBool::new(false));
    let switch = bad.clone();
    let origin = Origin::scripted(move |mut exchange| {
        let bad = switch.clone();
        async move {
            while exchange.request().await.is_some() {
                match bad.load(Ordering::SeqCst) {
                    true => exchange.send("HTTP/1.1 503 x\r\ncontent-length: 3\r\n\r\nbad").await,
                    false => exchange.send(ok("fine")).await,
                }
            }
        }
    })
    .await;
    (origin, bad)
}

async fn three() -> [(Origin, Arc<AtomicBool>); 3] {
    [moody().await, moody().await, moody().await]
}

async fn before(origins: &[(Origin, Arc<AtomicBool>)], rest: &str) -> Sidecar {
    let addrs: Vec<_> = origins.iter().map(|(origin, _)| format!("'{}'", origin.addr())).collect();
    let yaml = format!("services: {{a: {{static: [{}], balance: round_robin{rest}}}}}", addrs.join(", "));
    Sidecar::start(&yaml).await
}

async fn state(sidecar: &Sidecar, addr: SocketAddr) -> String {
    let view = sidecar.view("a").await;
    view.endpoints.into_iter().find(|endpoint| endpoint.addr == addr).unwrap().state
}

async fn calls(sidecar: &Sidecar, n: usize) -> Vec<u16> {
    let mut client = sidecar.client().await;
    let mut statuses = Vec::new();
    for _ in 0..n {
        statuses.push(client.get("a", "/x", "").await.status);
    }
    statuses
}

#[tokio::test]
async fn one_of_three_that_fails_is_left_out() {
    let origins = three().await;
    origins[1].1.store(true, Ordering::SeqCst);
    let sidecar = before(&origins, ", ejection: {for: 1h, max_for: 1h}, breaker: off").await;
    let statuses = calls(&sidecar, 60).await;
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 5, "as many as it takes");
    assert_eq!(origins[1].0.requests(), 5);
    assert_eq!(state(&sidecar, origins[1].0.addr()).await, "ejected");
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics["outrigger_endpoints{service=\"a\",state=\"ejected\"}"], 1.0);
    assert_eq!(metrics["outrigger_ejections_total{reason=\"consecutive\",service=\"a\"}"], 1.0);
}

/// envoyproxy/envoy#2671: all hosts were ejected, and then all requests went to them as before, in silence.
#[tokio::test]
async fn all_endpoints_bad_is_the_breaker_s_business_and_no_panic_mode() {
    let origins = three().await;
    origins.iter().for_each(|(_, bad)| bad.store(true, Ordering::SeqCst));
    let rest = ", ejection: {for: 1h, max_for: 1h}, breaker: {min_calls: 20, window: 1h, open_for: 1h}";
    let sidecar = before(&origins, rest).await;
    let statuses = calls(&sidecar, 60).await;
    assert!(statuses.iter().all(|status| *status == 503));
    let asked: usize = origins.iter().map(|(origin, _)| origin.requests()).sum();
    assert_eq!(asked, 20, "the breaker opened, and nobody was asked any more");
    let view = sidecar.view("a").await;
    assert_eq!(view.breaker.unwrap().state, "open");
    assert!(view.endpoints.iter().filter(|endpoint| endpoint.state == "ejected").count() <= 1);
}

/// envoyproxy/envoy#2463: one endpoint alone was ejected or not by a threshold that nobody understood.
#[tokio::test]
async fn a_single_endpoint_is_never_ejected() {
    let origins = [moody().await];
    origins[0].1.store(true, Ordering::SeqCst);
    let sidecar = before(&origins, ", ejection: on, breaker: off").await;
    calls(&sidecar, 30).await;
    assert_eq!((origins[0].0.requests(), state(&sidecar, origins[0].0.addr()).await.as_str()), (30, "ready"));
    origins[0].1.store(false, Ordering::SeqCst);
    assert_eq!(calls(&sidecar, 1).await, [200]);
}

#[tokio::test]
async fn no_more_are_out_than_may_be() {
    let origins = three().await;
    origins[0].1.store(true, Ordering::SeqCst);
    origins[1].1.store(true, Ordering::SeqCst);
    let sidecar = before(&origins, ", ejection: {for: 1h, max_for: 1h}, breaker: off").await;
    calls(&sidecar, 60).await;
    let view = sidecar.view("a").await;
    assert_eq!(view.endpoints.iter().filter(|endpoint| endpoint.state == "ejected").count(), 1);
    assert!(origins[2].0.requests() > 25, "the good one has its share and that of the one that is out");
}

/// istio/istio#19052: consecutive errors miss an endpoint that fails every second time.
#[tokio::test]
async fn an_endpoint_that_fails_now_and_then_is_found_by_its_rate() {
    let n = Arc::new(AtomicU64::new(0));
    let flaky = Origin::scripted(move |mut exchange| {
        let n = n.clone();
        async move {
            while exchange.request().await.is_some() {
                match n.fetch_add(1, Ordering::SeqCst) % 2 {
                    0 => exchange.send("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n").await,
                    _ => exchange.send(ok("fine")).await,
                }
            }
        }
    })
    .await;
    let origins = [(flaky, Arc::default()), moody().await, moody().await];
    let sidecar = before(&origins, ", ejection: {for: 1h, max_for: 1h}, breaker: off").await;
    calls(&sidecar, 90).await;
    assert_eq!(state(&sidecar, origins[0].0.addr()).await, "ejected");
    assert_eq!(sidecar.metrics().await["outrigger_ejections_total{reason=\"error_rate\",service=\"a\"}"], 1.0);
    assert!((20..=21).contains(&origins[0].0.requests()), "{}", origins[0].0.requests());
}

#[tokio::test]
async fn one_probe_brings_it_back() {
    let origins = three().await;
    origins[2].1.store(true, Ordering::SeqCst);
    let sidecar = before(&origins, ", ejection: {for: 20ms, max_for: 20ms, slow_start: off}, breaker: off").await;
    calls(&sidecar, 15).await;
    assert_eq!(origins[2].0.requests(), 5);
    // While it is bad, a probe goes out now and then, and nothing else.
    eventually("a probe that fails", async || {
        calls(&sidecar, 3).await;
        sidecar
            .metrics()
            .await
            .get("outrigger_ejections_total{reason=\"probe\",service=\"a\"}")
            .is_some_and(|n| *n >= 2.0)
    })
    .await;
    let probes = sidecar.metrics().await["outrigger_ejections_total{reason=\"probe\",service=\"a\"}"] as usize;
    assert!(origins[2].0.requests() <= 5 + probes + 1, "{} with {probes} probes", origins[2].0.requests());
    origins[2].1.store(false, Ordering::SeqCst);
    eventually("its return", async || {
        calls(&sidecar, 3).await;
        state(&sidecar, origins[2].0.addr()).await == "ready"
    })
    .await;
    let back = origins[2].0.requests();
    calls(&sidecar, 30).await;
    assert_eq!(origins[2].0.requests() - back, 10, "its full share at once, without slow start");
}

#[tokio::test]
async fn an_endpoint_that_comes_back_starts_slowly() {
    let origins = three().await;
    origins[2].1.store(true, Ordering::SeqCst);
    let sidecar = before(&origins, ", ejection: {for: 1ms, max_for: 1ms, slow_start: 1h}, breaker: off").await;
    calls(&sidecar, 15).await;
    origins[2].1.store(false, Ordering::SeqCst);
    eventually("its return", async || {
        calls(&sidecar, 1).await;
        state(&sidecar, origins[2].0.addr()).await == "ready"
    })
    .await;
    let back = origins[2].0.requests();
    calls(&sidecar, 600).await;
    let share = origins[2].0.requests() - back;
    assert!((1..100).contains(&share), "{share} of 600 are a tenth of a third, or so");
}

/// Netflix/Hystrix#1620, #9: one bad host behind a command opened the circuit for all of them.
#[tokio::test]
async fn one_bad_endpoint_does_not_open_the_breaker() {
    let origins = three().await;
    origins[0].1.store(true, Ordering::SeqCst);
    let sidecar = before(&origins, ", ejection: {for: 1h, max_for: 1h}, retry: {backoff: 0ms}").await;
    assert!(calls(&sidecar, 100).await.iter().all(|status| *status == 200), "retries go elsewhere until it is out");
    assert_eq!(sidecar.view("a").await.breaker.unwrap().state, "closed");
    assert_eq!(origins[0].0.requests(), 5);
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_ejected_too() {
    let origins = [moody().await, moody().await];
    let gone = origins[0].0.addr();
    let sidecar = before(&origins, ", ejection: {for: 1h, max_for: 1h}, retry: {backoff: 0ms}, breaker: off").await;
    let [(first, _), _second] = origins;
    drop(first);
    eventually("its ejection", async || {
        assert_eq!(calls(&sidecar, 1).await, [200]);
        state(&sidecar, gone).await == "ejected"
    })
    .await;
}
