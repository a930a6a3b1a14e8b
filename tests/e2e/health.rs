//! Active health checks over real sockets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;

use crate::{
    grpc::status,
    support::{
        Origin, Process, Sidecar, eventually, free,
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

/// With one of three out, no second may go. Its verdict must not be forgotten over that.
#[tokio::test]
async fn one_that_had_to_stay_goes_when_another_is_back() {
    let (one, two, three) = (moody().await, moody().await, moody().await);
    let addrs = [one.0.addr(), two.0.addr(), three.0.addr()].map(|addr| format!("'{addr}'")).join(", ");
    let ejection = "{max_ejected: 50%, slow_start: off}";
    let yaml = format!(
        "services: {{a: {{static: [{addrs}], ejection: {ejection}, health_check: {{http: /health, {QUICK}}}}}}}"
    );
    let sidecar = Sidecar::start(&yaml).await;
    one.1.store(true, Ordering::SeqCst);
    becomes(&sidecar, one.0.addr(), "unhealthy").await;
    two.1.store(true, Ordering::SeqCst);
    let asked = two.0.requests();
    eventually("checks of the second that fail", async || {
        sidecar.metrics().await;
        two.0.requests() > asked + 4
    })
    .await;
    becomes(&sidecar, two.0.addr(), "ready").await;
    one.1.store(false, Ordering::SeqCst);
    becomes(&sidecar, two.0.addr(), "unhealthy").await;
    becomes(&sidecar, one.0.addr(), "ready").await;
}

/// Each of them takes a place for as long as a check may last, and is due again at once.
#[tokio::test]
async fn many_that_hang_keep_nobody_from_being_asked() {
    let hanging = Origin::scripted_at("0.0.0.0:0".parse().unwrap(), async |mut exchange| exchange.closed().await).await;
    // The last in order, whatever the order goes by.
    let well = Origin::scripted_at("127.0.2.1:0".parse().unwrap(), async |mut exchange| {
        while exchange.request().await.is_some() {
            exchange.send(ok("fine")).await;
        }
    })
    .await;
    let addrs: Vec<_> = (1..=250).map(|host| format!("'127.0.1.{host}:{}', ", hanging.addr().port())).collect();
    let yaml = format!(
        "services: {{a: {{static: [{}'{}'], health_check: {{http: /health, every: 1ms, timeout: 20ms}}}}}}",
        addrs.concat(),
        well.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    eventually("a third check of the one that is well", async || {
        sidecar.metrics().await;
        well.requests() >= 3
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_speaks_only_http2_is_asked_in_http2() {
    let origin = http2::origin(|mut stream: Stream| async move {
        assert_eq!((stream.request.method(), stream.request.uri().path()), (&http::Method::GET, "/health"));
        stream.ok("");
    })
    .await;
    let rest = format!(", protocol: http2, health_check: {{http: /health, {QUICK}}}");
    let sidecar = Sidecar::before(&origin, &rest).await;
    let good = "outrigger_health_checks_total{result=\"ok\",service=\"a\"}";
    eventually("good checks", async || sidecar.metrics().await.get(good).is_some_and(|n| *n > 2.0)).await;
    assert!(!sidecar.metrics().await.contains_key("outrigger_health_checks_total{result=\"failed\",service=\"a\"}"));
}

/// Whoever a reload leaves unchecked is in rotation again; what checks found before holds over a reload that keeps them.
#[tokio::test]
async fn a_reload_keeps_what_checks_found_or_lets_it_go_with_them() {
    let (one, two) = (moody().await, moody().await);
    one.1.store(true, Ordering::SeqCst);
    let yaml = |rest: &str| format!("services: {{a: {{static: ['{}', '{}']{rest}}}}}", one.0.addr(), two.0.addr());
    let checked = format!(", health_check: {{http: /health, {QUICK}}}");
    let process = Process::start(&yaml(&checked)).await;
    let state = async || process.view("a").await.endpoints.into_iter().find(|e| e.addr == one.0.addr()).unwrap().state;
    eventually("it to be found down", async || state().await == "unhealthy").await;
    assert_eq!(process.reload(&yaml(&format!("{checked}, timeout: 3s"))).await.status, 200);
    assert_eq!(state().await, "unhealthy");
    assert_eq!(process.reload(&yaml("")).await.status, 200);
    eventually("it to be in rotation", async || state().await == "ready").await;
    assert_eq!(process.reload(&yaml(&checked)).await.status, 200);
    eventually("it to be found down again", async || state().await == "unhealthy").await;
}
