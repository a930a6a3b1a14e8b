//! The breaker over real calls: what opens it, what does not, and how it recovers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::support::{Client, Held, Origin, Reply, Sidecar, admin, eventually, ok};

async fn sidecar(origin: std::net::SocketAddr, breaker: &str) -> Sidecar {
    let yaml = format!("services: {{a: {{static: ['{origin}'], breaker: {breaker}, timeout: {{idle: 100ms}}}}}}");
    Sidecar::start(&yaml).await
}

/// Opens after four calls, and stays so for as long as the test runs.
const QUICK: &str = "{min_calls: 4, window: 1h, open_for: 1h}";

/// Opens after four calls, and probes as soon as it is asked again.
const BRIEF: &str = "{min_calls: 4, window: 1h, open_for: 1ms}";

/// Answers each request with what its path names: a status, `/cut`, `/reset`, `/garbage`, `/close`, `/stream`.
async fn origin() -> Origin {
    Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
            match path.as_str() {
                "cut" => return exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await,
                "chunks" => {
                    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                    return exchange.send(format!("{head}4\r\nhalf\r\n")).await;
                }
                "reset" => return exchange.reset(),
                "close" => return,
                "garbage" => return exchange.send("HTTP/9.9 what\r\n\r\n").await,
                "events" => {
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n";
                    exchange.send(format!("{head}transfer-encoding: chunked\r\n\r\n3\r\n:\n\n\r\n")).await;
                    return exchange.closed().await;
                }
                "silence" => return exchange.closed().await,
                status => {
                    exchange.send(format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\nhi")).await;
                }
            }
        }
    })
    .await
}

async fn state(sidecar: &Sidecar) -> String {
    sidecar.view("a").await.breaker.unwrap().state
}

/// Waits until an open breaker with an `open_for` of a millisecond would probe.
async fn ripe(sidecar: &Sidecar) {
    let open = std::time::Duration::from_millis(2);
    let seen = tokio::time::Instant::now();
    eventually("open_for to pass", async || state(sidecar).await == "open" && seen.elapsed() > open).await;
}

/// Calls one after the other; the statuses.
async fn calls(sidecar: &Sidecar, paths: &[&str]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for path in paths {
        statuses.push(sidecar.get("a", &format!("/{path}")).await.status);
    }
    statuses
}

/// traefik/traefik#10963: a breaker without a least number of calls opened at the first failure.
/// Netflix/Hystrix#1729: one that waits for too many reacts too late; here the number is a setting, and each call is judged.
#[tokio::test]
async fn it_opens_at_min_calls_when_half_have_failed_and_then_leaves_the_service_alone() {
    let origin = origin().await;
    let sidecar = sidecar(origin.addr(), QUICK).await;
    assert_eq!(calls(&sidecar, &["500", "200", "500"]).await, [500, 200, 500]);
    assert_eq!(state(&sidecar).await, "closed", "three calls are not four");
    assert_eq!(calls(&sidecar, &["200"]).await, [200]);
    assert_eq!(state(&sidecar).await, "open", "two of four");
    let reply = sidecar.get("a", "/200").await;
    assert_eq!((reply.status, reply.reason().as_str()), (503, "breaker_open"));
    let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&after), "{after}");
    assert_eq!(origin.requests(), 4, "an open breaker tries nothing");
    assert_eq!((sidecar.calls("a", "breaker_open").await, sidecar.attempts("a", "breaker_open").await), (1, 0));
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics["outrigger_breaker_state{service=\"a\"}"], 2.0);
    assert_eq!(metrics["outrigger_breaker_transitions_total{service=\"a\",to=\"open\"}"], 1.0);
}

#[tokio::test]
async fn what_counts_as_a_failure_opens_it() {
    for failure in ["500", "502", "503", "504", "599", "cut", "chunks", "reset", "close", "garbage"] {
        let origin = origin().await;
        let sidecar = sidecar(origin.addr(), QUICK).await;
        calls(&sidecar, &[failure; 4]).await;
        eventually(failure, async || state(&sidecar).await == "open").await;
    }
}

#[tokio::test]
async fn what_does_not_count_as_a_failure_leaves_it_closed() {
    let origin = origin().await;
    let sidecar = sidecar(origin.addr(), QUICK).await;
    for status in ["400", "404", "429", "499", "501", "505", "304"] {
        calls(&sidecar, &[status; 4]).await;
        assert_eq!(state(&sidecar).await, "closed", "{status}");
    }
}

#[tokio::test]
async fn a_call_that_its_app_gives_up_counts_for_nothing() {
    let origin = Held::start().await;
    let sidecar = sidecar(origin.addr(), QUICK).await;
    for n in 1..=8 {
        let mut client = sidecar.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        origin.has_read(n).await;
    }
    eventually("the calls to be counted", async || sidecar.calls("a", "cancelled").await == 8).await;
    let breaker = sidecar.view("a").await.breaker.unwrap();
    assert_eq!((breaker.state.as_str(), breaker.calls), ("closed", 0));
}

#[tokio::test]
async fn a_connection_that_is_refused_counts() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sidecar = sidecar(gone, QUICK).await;
    assert_eq!(calls(&sidecar, &["x"; 5]).await, [502, 502, 502, 502, 503]);
}

/// linkerd/linkerd2#2846, #13406: a breaker should be driven by latency, and not by errors alone.
#[tokio::test]
async fn slow_calls_open_it() {
    let origin = Origin::scripted(|mut exchange| async move {
        while exchange.request().await.is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            exchange.send(ok("late")).await;
        }
    })
    .await;
    let sidecar = sidecar(origin.addr(), "{min_calls: 4, window: 1h, slow_call: 10ms, slow_rate: 50%}").await;
    assert_eq!(calls(&sidecar, &["x"; 5]).await, [200, 200, 200, 200, 503]);
    assert_eq!(sidecar.view("a").await.breaker.unwrap().slow, 4);
}

#[tokio::test]
async fn observing_it_refuses_nothing_and_reports_all() {
    let origin = origin().await;
    let sidecar = sidecar(origin.addr(), "{min_calls: 4, open_for: 1h, window: 1h, mode: observe}").await;
    assert_eq!(calls(&sidecar, &["500"; 8]).await, [500; 8]);
    assert_eq!(state(&sidecar).await, "open");
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics["outrigger_breaker_transitions_total{service=\"a\",to=\"open\"}"], 1.0);
    assert_eq!(sidecar.calls("a", "breaker_open").await, 0);
}

#[tokio::test]
async fn off_it_counts_nothing() {
    let origin = origin().await;
    let sidecar = sidecar(origin.addr(), "off").await;
    assert_eq!(calls(&sidecar, &["500"; 30]).await, [500; 30]);
    assert!(sidecar.view("a").await.breaker.is_none());
}

#[tokio::test]
async fn an_operator_has_the_last_word() {
    let origin = origin().await;
    let sidecar = sidecar(origin.addr(), QUICK).await;
    assert_eq!(admin(sidecar.admin(), "/breaker/a/open").await.status, 200);
    let refused = sidecar.get("a", "/200").await;
    assert_eq!(refused.reason(), "breaker_open");
    assert_eq!(refused.header("retry-after"), None, "nobody knows when");
    admin(sidecar.admin(), "/breaker/a/closed").await;
    assert_eq!(calls(&sidecar, &["500"; 8]).await, [500; 8], "forced closed, it judges nothing");
    admin(sidecar.admin(), "/breaker/a/auto").await;
    assert_eq!(calls(&sidecar, &["500"; 5]).await, [500, 500, 500, 500, 503]);
    assert_eq!(admin(sidecar.admin(), "/breaker/b/open").await.status, 404);
}

/// A service that is down until told otherwise; it holds every answer back until released.
struct Patient {
    origin: Origin,
    well: Arc<AtomicBool>,
    places: Arc<tokio::sync::Semaphore>,
}

impl Patient {
    async fn start() -> Self {
        let (well, places) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Semaphore::new(4)));
        let origin = Origin::scripted({
            let (well, places) = (well.clone(), places.clone());
            move |mut exchange| {
                let (well, places) = (well.clone(), places.clone());
                async move {
                    while exchange.request().await.is_some() {
                        places.acquire().await.unwrap().forget();
                        let status = if well.load(Ordering::SeqCst) { "200" } else { "500" };
                        exchange.send(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n")).await;
                    }
                }
            }
        })
        .await;
        Self { origin, well, places }
    }

    /// A sidecar whose breaker has just opened by four failures.
    async fn opened(&self, breaker: &str) -> Sidecar {
        let sidecar = sidecar(self.origin.addr(), breaker).await;
        assert_eq!(calls(&sidecar, &["x"; 4]).await, [500; 4]);
        ripe(&sidecar).await;
        sidecar
    }
}

async fn begin(sidecar: &Sidecar) -> Client {
    let mut client = sidecar.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client
}

async fn refused(sidecar: &Sidecar) -> Reply {
    let reply = sidecar.get("a", "/x").await;
    assert_eq!(reply.reason(), "breaker_open");
    reply
}

#[tokio::test]
async fn half_open_admits_as_many_probes_as_it_may_and_closes_when_they_pass() {
    let patient = Patient::start().await;
    let sidecar = patient.opened("{min_calls: 4, window: 1h, open_for: 1ms, probes: 3}").await;
    patient.well.store(true, Ordering::SeqCst);
    let mut probes = Vec::new();
    for n in 5..=7 {
        probes.push(begin(&sidecar).await);
        eventually("the probe to arrive", async || patient.origin.requests() == n).await;
    }
    assert_eq!(state(&sidecar).await, "half_open");
    for _ in 0..5 {
        assert_eq!(refused(&sidecar).await.header("retry-after"), None);
    }
    assert_eq!(patient.origin.requests(), 7);
    patient.places.add_permits(100);
    for probe in &mut probes {
        assert_eq!(probe.reply().await.status, 200);
    }
    assert_eq!(state(&sidecar).await, "closed");
    assert_eq!(calls(&sidecar, &["x"; 3]).await, [200; 3]);
}

#[tokio::test]
async fn a_failed_probe_opens_it_again() {
    let origin = origin().await;
    let sidecar = sidecar(origin.addr(), BRIEF).await;
    calls(&sidecar, &["500"; 4]).await;
    eventually("a probe", async || sidecar.get("a", "/503").await.header("proxy-status").is_none()).await;
    assert_eq!(state(&sidecar).await, "open");
    eventually("recovery", async || sidecar.get("a", "/200").await.status == 200).await;
    assert_eq!(state(&sidecar).await, "closed");
    let metrics = sidecar.metrics().await;
    for (to, n) in [("open", 2.0), ("half_open", 2.0), ("closed", 1.0)] {
        assert_eq!(metrics[&format!("outrigger_breaker_transitions_total{{service=\"a\",to=\"{to}\"}}")], n, "{to}");
    }
}

/// resilience4j/resilience4j#935, #903, #1389: a permit was lost with its call, and the breaker stayed half-open for good.
#[tokio::test]
async fn a_probe_whose_app_goes_away_gives_its_place_back() {
    let patient = Patient::start().await;
    let sidecar = patient.opened(BRIEF).await;
    patient.well.store(true, Ordering::SeqCst);
    let probe = begin(&sidecar).await;
    eventually("the probe to arrive", async || patient.origin.requests() == 5).await;
    refused(&sidecar).await;
    drop(probe);
    patient.places.add_permits(100);
    eventually("another probe", async || sidecar.get("a", "/x").await.status == 200).await;
    assert_eq!(state(&sidecar).await, "closed");
}

#[tokio::test]
async fn a_probe_that_becomes_a_stream_of_events_closes_it_by_its_head() {
    let origin = origin().await;
    let sidecar = sidecar(origin.addr(), BRIEF).await;
    calls(&sidecar, &["500"; 4]).await;
    ripe(&sidecar).await;
    let mut stream = sidecar.client().await;
    stream.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(stream.head().await.unwrap().contains("event-stream"));
    assert_eq!(state(&sidecar).await, "closed");
    drop(stream);
}

#[tokio::test]
async fn a_probe_with_a_long_answer_does_not_keep_the_others_waiting() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            if request.starts_with("GET /long") {
                exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nso it begins").await;
                return exchange.closed().await;
            }
            exchange.send("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let yaml = format!("services: {{a: {{static: ['{}'], breaker: {BRIEF}, timeout: {{idle: 1h}}}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    calls(&sidecar, &["x"; 4]).await;
    ripe(&sidecar).await;
    let mut client = sidecar.client().await;
    client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.unwrap().contains("200 OK"));
    assert_eq!(state(&sidecar).await, "half_open");
    eventually("the breaker to close", async || state(&sidecar).await == "closed").await;
    assert_eq!(sidecar.view("a").await.endpoints[0].in_flight, 1, "the answer still runs");
}

#[tokio::test]
async fn a_probe_that_becomes_a_tunnel_closes_it() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            if request.to_ascii_lowercase().contains("upgrade: echo") {
                exchange.send("HTTP/1.1 101 x\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n").await;
                return exchange.closed().await;
            }
            exchange.send("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let sidecar = sidecar(origin.addr(), BRIEF).await;
    calls(&sidecar, &["x"; 4]).await;
    ripe(&sidecar).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101"));
    eventually("the breaker to close", async || state(&sidecar).await == "closed").await;
}

/// Netflix/Hystrix#674: a probe that met an ignored error left the circuit open for ever.
#[tokio::test]
async fn a_probe_that_is_no_failure_closes_it() {
    for status in ["404", "429", "501"] {
        let origin = origin().await;
        let sidecar = sidecar(origin.addr(), BRIEF).await;
        assert_eq!(calls(&sidecar, &["500", "500", "500", "500"]).await, [500; 4]);
        ripe(&sidecar).await;
        assert_eq!(calls(&sidecar, &[status]).await[0].to_string(), status);
        assert_eq!(state(&sidecar).await, "closed", "{status}");
    }
}

#[tokio::test]
async fn a_probe_whose_answer_is_cut_opens_it_again() {
    let origin = origin().await;
    let sidecar = sidecar(origin.addr(), "{min_calls: 4, window: 1h, open_for: 1ms}").await;
    calls(&sidecar, &["500"; 4]).await;
    eventually("a probe", async || sidecar.get("a", "/chunks").await.status == 200).await;
    eventually("it to open", async || state(&sidecar).await == "open").await;
}
