//! The first phase of a stop of the real process: it goes on, for whatever `drain.until` says. The rest: `stop`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{io::AsyncReadExt as _, net::TcpListener, sync::Semaphore, time::Instant};

use crate::support::{Client, Held, Origin, Process, free, http2, ok, within};

/// An app behind the receiving side, which takes connections until it is dropped.
pub(crate) struct App {
    pub(crate) addr: SocketAddr,
    taking: tokio::task::JoinHandle<()>,
}

impl App {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let taking = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        Self { addr, taking }
    }

    /// A sidecar that receives for this app, drains until it is gone, and calls this endpoint as `a`.
    pub(crate) async fn sidecar_before(&self, endpoint: SocketAddr) -> Process {
        let yaml = format!(
            "drain: {{for: 1h, until: app}}\ninbound: {{listen: '{}', app: '{}'}}\nservices: {{a: {{static: ['{endpoint}']}}}}",
            free(),
            self.addr
        );
        Process::start(&yaml).await
    }

    pub(crate) async fn end(self) {
        self.taking.abort();
        let _ = self.taking.await;
    }
}

#[tokio::test]
async fn a_stop_goes_on_serving_until_the_last_call_has_ended() {
    let origin = Held::start().await;
    let fine = Origin::ok("fine").await;
    let yaml = format!(
        "drain: {{for: 1h}}\nservices: {{a: {{static: ['{}']}}, b: {{static: ['{}']}}}}",
        origin.addr(),
        fine.addr()
    );
    let mut process = Process::start(&yaml).await;
    let mut idle = process.client().await;
    assert_eq!(idle.get("b", "/", "").await.text(), "fine");
    let mut silent = process.client().await;
    let mut call = process.held_call(&origin).await;
    process.signal("TERM");
    process.is_draining().await;
    assert_eq!(process.command("health").await, (1, String::new(), "not ready: draining\n".into()));

    // Old connections and new ones, and no word of an end.
    let reply = idle.get("b", "/", "").await;
    assert_eq!((reply.text().as_str(), reply.header("connection")), ("fine", None));
    assert_eq!(process.get("b", "/").await.text(), "fine");
    let more = process.held_call(&origin).await;
    // As long as a call is in flight nothing else matters.
    process.stays(Duration::from_millis(600)).await;
    drop(more);
    origin.release(2);
    let reply = call.reply().await;
    assert_eq!((reply.status, reply.text().as_str(), reply.header("connection")), (200, "/held", None));

    assert!(idle.closed().await.is_empty(), "an idle connection is closed in peace");
    assert!(silent.closed().await.is_empty(), "also one that has never carried a call");
    assert_eq!(process.exit().await, Some(0));
    assert!(!process.file("admin.sock").exists(), "its socket is gone with it");
}

#[tokio::test]
async fn a_reload_is_taken_while_calls_go_on() {
    let (origin, fine) = (Held::start().await, Origin::ok("fine").await);
    let yaml = format!("drain: {{for: 1h}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr());
    let mut process = Process::start(&yaml).await;
    let _call = process.held_call(&origin).await;
    process.signal("TERM");
    process.is_draining().await;
    let yaml = yaml.replace("}}", &format!("}}, b: {{static: ['{}']}}}}", fine.addr()));
    assert_eq!(process.reload(&yaml).await.status, 200);
    assert_eq!(process.get("b", "/").await.text(), "fine");
    process.signal("TERM");
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn bodies_tunnels_and_connections_are_calls_in_flight_too() {
    let echo = Origin::scripted(|mut exchange| async move {
        let mut bytes = [0; 64];
        while let Ok(n @ 1..) = exchange.stream.read(&mut bytes).await {
            exchange.send(&bytes[..n]).await;
        }
    })
    .await;
    let http = Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            if request.starts_with("GET /body") {
                exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
                let _ = exchange.stream.read(&mut [0]).await;
                return;
            }
            exchange.send("HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
            let mut bytes = [0; 64];
            while let Ok(n @ 1..) = exchange.stream.read(&mut bytes).await {
                exchange.send(&bytes[..n]).await;
            }
        }
    })
    .await;
    for kind in ["tcp", "upgrade", "body"] {
        let port = free();
        let yaml = format!(
            "drain: {{for: 1h}}\nservices:\n  t: {{static: ['{}'], protocol: tcp, listen: '{port}'}}\n  h: {{static: ['{}']}}",
            echo.addr(),
            http.addr()
        );
        let mut process = Process::start(&yaml).await;
        let mut call = Client::connect(if kind == "tcp" { port } else { process.http }).await;
        match kind {
            "tcp" => {
                call.send("ping").await;
                assert_eq!(call.exactly(4).await, b"ping");
            }
            "upgrade" => {
                call.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
                assert!(call.head().await.unwrap().contains(" 101 "));
            }
            _ => {
                call.send("GET /body HTTP/1.1\r\nHost: h\r\n\r\n").await;
                assert!(call.head().await.unwrap().contains(" 200 "));
                assert_eq!(call.exactly(4).await, b"half");
            }
        }
        process.signal("TERM");
        process.is_draining().await;
        // Quiet for longer than a stop waits for a next call: connections are still taken all the while.
        process.stays(Duration::from_millis(600)).await;
        if kind != "body" {
            call.send("pong").await;
            assert_eq!(call.exactly(4).await, b"pong", "{kind}");
        }
        drop(call);
        assert_eq!(process.exit().await, Some(0), "{kind}");
    }
}

#[tokio::test]
async fn streams_are_taken_on_as_well() {
    let (arrived, held) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let origin = http2::origin({
        let (arrived, held) = (arrived.clone(), held.clone());
        move |mut stream: http2::Stream| {
            let (arrived, held) = (arrived.clone(), held.clone());
            async move {
                // The head has come: what is in flight is the rest.
                let mut body = stream.head(http::Response::new(()));
                arrived.add_permits(1);
                held.acquire().await.unwrap().forget();
                let _ = body.send_data(Bytes::from_static(b"late"), true);
            }
        }
    })
    .await;
    let yaml = format!("drain: {{for: 1h}}\nservices: {{a: {{static: ['{}'], protocol: http2}}}}", origin.addr());
    let mut process = Process::start(&yaml).await;
    let app = http2::App::connect(process.http).await;
    let (first, _) = app.open(http2::get("a", "/"), true).await;
    arrived.acquire().await.unwrap().forget();
    process.signal("TERM");
    process.is_draining().await;
    process.stays(Duration::from_millis(600)).await;
    let (second, _) = app.open(http2::get("a", "/"), true).await;
    arrived.acquire().await.unwrap().forget();
    held.add_permits(2);
    assert_eq!(
        (http2::answer(first).await.text().as_str(), http2::answer(second).await.text().as_str()),
        ("late", "late")
    );
    app.closed().await.unwrap();
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn callers_of_our_app_are_served_on_too() {
    let (app, inbound) = (Held::start().await, free());
    let yaml = format!("drain: {{for: 1h}}\ninbound: {{listen: '{inbound}', app: '{}'}}\nservices: {{}}", app.addr());
    let mut process = Process::start(&yaml).await;
    let mut calls = Vec::new();
    for n in 1..=2 {
        let mut call = Client::connect(inbound).await;
        call.send("GET /in HTTP/1.1\r\nHost: us\r\n\r\n").await;
        app.has_read(n).await;
        calls.push(call);
        if n == 1 {
            process.signal("TERM");
            process.is_draining().await;
        }
    }
    app.release(2);
    for call in &mut calls {
        assert_eq!(call.reply().await.text(), "/in");
    }
    assert_eq!(process.exit().await, Some(0));
}

/// A call that is lost count of would keep every stop waiting for the whole of its limit.
#[tokio::test]
async fn whatever_became_of_calls_none_is_in_flight_for_good() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            match request.split(' ').nth(1).unwrap_or_default() {
                "/cut" => return exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await,
                "/reset" => return exchange.reset(),
                "/silent" => return exchange.closed().await,
                "/garbage" => return exchange.send("220 no HTTP at all\r\n\r\n").await,
                "/error" => exchange.send("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n").await,
                "/upgrade" => {
                    exchange.send("HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
                    return exchange.closed().await;
                }
                _ => exchange.send(ok("fine")).await,
            }
        }
    })
    .await;
    let yaml = format!(
        "drain: {{for: 1h}}\ndefaults: {{breaker: off, ejection: off, timeout: {{request: 300ms, idle: 300ms}}}}\n\
         services:\n  a: {{static: ['{0}'], hedge: 20ms, retry: {{attempts: 3, budget: 100%}}}}\n  \
         b: {{static: ['{0}'], coalesce: on, bulkhead: {{max: 2, queue: 2, wait: 50ms}}}}\n  \
         c: {{static: ['{0}'], fallback: [last_good: {{for: 1m}}, respond: {{status: 200, body: instead}}]}}",
        origin.addr()
    );
    let mut process = Process::start(&yaml).await;
    let mut open = Vec::new();
    for round in 0..4 {
        for service in ["a", "b", "c", "nobody"] {
            for path in ["/ok", "/cut", "/reset", "/silent", "/garbage", "/error", "/upgrade"] {
                for connection in ["keep-alive", "upgrade\r\nUpgrade: echo"] {
                    let mut client = process.client().await;
                    client
                        .send(format!("GET {path} HTTP/1.1\r\nHost: {service}\r\nConnection: {connection}\r\n\r\n"))
                        .await;
                    match round {
                        0 => drop(client),
                        1 => drop(client.head().await),
                        _ => open.push(client),
                    }
                }
            }
            let mut upload = process.client().await;
            upload.send(format!("POST /ok HTTP/1.1\r\nHost: {service}\r\nContent-Length: 9\r\n\r\nhalf")).await;
        }
        let app = http2::App::connect(process.http).await;
        for path in ["/ok", "/silent", "/cut"] {
            drop(app.open(http2::get("a", path), true).await);
        }
    }
    // An answer has come to each that waits for one; then they leave, too.
    for client in &mut open {
        within("a head", client.head()).await;
    }
    drop(open);
    process.signal("TERM");
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn an_app_that_makes_one_call_after_the_other_is_not_cut_in_between() {
    let origin = Origin::ok("fine").await;
    let yaml = format!("drain: {{for: 1h}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr());
    let mut process = Process::start(&yaml).await;
    assert_eq!(process.get("a", "/").await.text(), "fine");
    process.signal("TERM");
    process.is_draining().await;
    let until = Instant::now() + Duration::from_millis(700);
    while Instant::now() < until {
        // Each on a connection of its own, so that there is none between two.
        assert_eq!(process.get("a", "/").await.text(), "fine");
    }
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn by_time_it_lasts_as_long_as_it_says() {
    let origin = Origin::ok("fine").await;
    let yaml = format!("drain: {{for: 3s, until: time}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr());
    let mut process = Process::start(&yaml).await;
    let began = Instant::now();
    process.signal("TERM");
    let mut quiet = process.client().await;
    process.is_draining().await;
    // Nobody calls for far longer than `calls` would wait, and then somebody does.
    process.stays(Duration::from_millis(600)).await;
    assert_eq!(quiet.get("a", "/", "").await.text(), "fine");
    assert_eq!(process.exit().await, Some(0));
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn by_the_app_it_lasts_until_that_takes_no_connections_any_more() {
    let (app, origin) = (App::start().await, Origin::ok("fine").await);
    let mut process = app.sidecar_before(origin.addr()).await;
    process.signal("TERM");
    process.is_draining().await;
    process.stays(Duration::from_millis(800)).await;
    assert_eq!(process.get("a", "/").await.text(), "fine", "quiet is no reason to go");
    app.end().await;
    assert_eq!(process.exit().await, Some(0));
    assert!(process.log().contains("the app is gone"), "{}", process.log());
}

#[tokio::test]
async fn without_an_app_it_goes_by_calls_and_says_so() {
    let mut process = Process::start("drain: {for: 1h, until: app}\nservices: {}").await;
    process.signal("TERM");
    assert_eq!(process.exit().await, Some(0));
    assert!(process.log().contains("drain.until is `app`"), "{}", process.log());
}
