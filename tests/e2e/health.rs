//! Active health checks over real sockets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;

use crate::{
    grpc::status,
    support::{
        Origin, Sidecar, eventually, free,
        http2::{self, Stream},
        ok,
    },
};

/// An upstream whose `/health` fails while its switch says so, and that answers everything else.
async fn moody() -> (Origin, Arc<AtomicBool>) {
    let sick = Arc::new(AtomicBool::new(false));
    let switch = sick.clone();
    let origin = Origin::scripted(move |mut exchange| {
        let sick = switch.clone();
        async move {
            while let Some(request) = exchange.request().await {
                match request.starts_with("GET /health ") && sick.load(Ordering::SeqCst) {
                    true => exchange.send("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n").await,
                    false => exchange.send(ok("fine")).await,
                }
            }
        }
    })
    .await;
    (origin, sick)
}

const QUICK: &str = "every: 5ms, healthy: 2, unhealthy: 2";

async fn becomes(sidecar: &Sidecar, addr: std::net::SocketAddr, state: &str) {
    eventually(&format!("{addr} to be {state}"), async || {
        sidecar.view("a").await.endpoints.iter().any(|endpoint| endpoint.addr == addr && endpoint.state == state)
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_says_it_is_sick_gets_no_calls_until_it_is_well() {
    let (one, two) = (moody().await, moody().await);
    let yaml = format!(
        "services: {{a: {{static: ['{}', '{}'], balance: round_robin, health_check: {{http: /health, {QUICK}}}}}}}",
        one.0.addr(),
        two.0.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    one.1.store(true, Ordering::SeqCst);
    becomes(&sidecar, one.0.addr(), "unhealthy").await;
    let mut client = sidecar.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("a", "/x", "").await.status, 200);
    }
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics["outrigger_endpoints{service=\"a\",state=\"unhealthy\"}"], 1.0);
    assert!(metrics["outrigger_health_checks_total{result=\"failed\",service=\"a\"}"] >= 2.0);
    assert!(metrics["outrigger_health_checks_total{result=\"ok\",service=\"a\"}"] >= 1.0);
    assert_eq!(metrics["outrigger_attempts_total{outcome=\"ok\",service=\"a\"}"], 10.0, "checks are no attempts");
    one.1.store(false, Ordering::SeqCst);
    becomes(&sidecar, one.0.addr(), "ready").await;
}

#[tokio::test]
async fn the_last_one_stays_whatever_checks_say() {
    let (one, sick) = moody().await;
    sick.store(true, Ordering::SeqCst);
    let sidecar = Sidecar::before(&one, &format!(", health_check: {{http: /health, {QUICK}}}")).await;
    let failed = "outrigger_health_checks_total{result=\"failed\",service=\"a\"}";
    eventually("some checks", async || sidecar.metrics().await.get(failed).is_some_and(|n| *n > 4.0)).await;
    assert_eq!(sidecar.get("a", "/x").await.status, 200);
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_fails_a_tcp_check() {
    let (gone, (one, _)) = (free(), moody().await);
    let yaml = format!("services: {{a: {{static: ['{gone}', '{}'], health_check: {{tcp: on, {QUICK}}}}}}}", one.addr());
    let sidecar = Sidecar::start(&yaml).await;
    becomes(&sidecar, gone, "unhealthy").await;
    becomes(&sidecar, one.addr(), "ready").await;
}

#[tokio::test]
async fn a_grpc_health_service_is_asked_in_its_own_words() {
    let serving = Arc::new(AtomicBool::new(true));
    let asked = serving.clone();
    let origin = http2::origin(move |mut stream: Stream| {
        let serving = asked.clone();
        async move {
            assert_eq!(stream.request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(&stream.body().await[..], b"\0\0\0\0\x03\x0a\x01a");
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut down = stream.head(head);
            let said = if serving.load(Ordering::SeqCst) { 1 } else { 2 };
            down.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, said]), false).unwrap();
            down.send_trailers(status("0")).unwrap();
        }
    })
    .await;
    let other = moody().await.0;
    let yaml = format!(
        "services: {{a: {{static: ['{}', '{}'], ejection: {{max_ejected: 50%}}, health_check: {{grpc: a, {QUICK}}}}}}}",
        origin.addr(),
        other.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    // The other one speaks no gRPC, and is the first to go; one of the two stays.
    becomes(&sidecar, other.addr(), "unhealthy").await;
    becomes(&sidecar, origin.addr(), "ready").await;
    serving.store(false, Ordering::SeqCst);
    let failed = "outrigger_health_checks_total{result=\"failed\",service=\"a\"}";
    let before = sidecar.metrics().await[failed];
    eventually("more failed checks", async || sidecar.metrics().await[failed] > before + 8.0).await;
    becomes(&sidecar, origin.addr(), "ready").await;
}
