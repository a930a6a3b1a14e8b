//! Every row of the failure table, provoked.

use crate::support::{Origin, Sidecar, admin, eventually};

/// An address where nothing listens: it was free a moment ago.
fn nowhere() -> std::net::SocketAddr {
    crate::support::free()
}

#[tokio::test]
async fn unknown_service() {
    let sidecar = Sidecar::start("services: {}").await;
    let reply = sidecar.get("nobody", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (404, "unknown_service"));
    assert_eq!(sidecar.calls("", "unknown_service").await, 1);
}

#[tokio::test]
async fn connect_refused() {
    let sidecar = Sidecar::start(&format!("services: {{a: {{static: ['{}']}}}}", nowhere())).await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (502, "connect_refused"));
    assert_eq!(sidecar.attempts("a", "connect_refused").await, 1);
    assert!(sidecar.is_quiet("a").await);
}

#[tokio::test]
async fn request_timeout() {
    let origin = Origin::scripted(|mut exchange| async move { exchange.closed().await }).await;
    let yaml = format!("services: {{a: {{static: ['{}'], timeout: 50ms}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (504, "request_timeout"));
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
}

#[tokio::test]
async fn a_call_that_works() {
    let origin = Origin::ok("hello").await;
    let sidecar = Sidecar::start(&format!("services: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    let mut client = sidecar.client().await;
    for _ in 0..3 {
        let reply = client.get("a", "/", "").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    }
    assert_eq!((origin.connections(), origin.requests()), (1, 3), "connections are reused");
    assert_eq!(sidecar.calls("a", "ok").await, 3);
    assert!(sidecar.is_quiet("a").await);
}

#[tokio::test]
async fn no_endpoints() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("endpoints.yaml");
    let yaml = format!("services: {{a: {{file: '{}', timeout: 1h}}}}", missing.display());
    let sidecar = Sidecar::start_unready(&yaml);
    eventually("the source to be looked at", async || sidecar.view("a").await.source.problem.is_some()).await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (503, "no_endpoints"));
    assert!(reply.text().contains("endpoints.yaml") || reply.text().contains("No such file"), "{}", reply.text());
    assert_eq!((sidecar.calls("a", "no_endpoints").await, sidecar.attempts("a", "no_endpoints").await), (1, 0));
    assert!(sidecar.is_quiet("a").await);
}

#[tokio::test]
async fn breaker_open() {
    let origin = Origin::ok("x").await;
    let sidecar = Sidecar::start(&format!("services: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    admin(sidecar.admin(), "/breaker/a/open").await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (503, "breaker_open"));
    assert_eq!((sidecar.calls("a", "breaker_open").await, origin.requests()), (1, 0));
    assert!(sidecar.is_quiet("a").await);
}

#[tokio::test]
async fn bulkhead_full() {
    let origin = Origin::scripted(|mut exchange| async move { exchange.closed().await }).await;
    let yaml = format!("services: {{a: {{static: ['{}'], bulkhead: 1}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let mut first = sidecar.client().await;
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the place to be taken", async || !sidecar.is_quiet("a").await).await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (503, "bulkhead_full"));
    drop(first);
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
}

/// A listener whose queue is full: the kernel lets further connections wait in silence.
struct Full {
    listener: socket2::Socket,
    _waiting: Vec<std::net::TcpStream>,
}

impl Full {
    fn start() -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let limit = std::time::Duration::from_millis(200);
        let waiting = std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&addr, limit).ok());
        Self { listener, _waiting: waiting.take(64).collect() }
    }

    fn addr(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}

#[tokio::test]
async fn connect_timeout() {
    let full = Full::start();
    let yaml = format!("services: {{a: {{static: ['{}'], timeout: {{connect: 50ms}}}}}}", full.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (504, "connect_timeout"));
    assert_eq!(sidecar.attempts("a", "connect_timeout").await, 1);
    assert_eq!(sidecar.view("a").await.breaker.unwrap().failures, 1);
    assert!(sidecar.is_quiet("a").await);
}

#[tokio::test]
async fn upstream_reset() {
    for how in ["reset", "close"] {
        let origin = Origin::scripted(move |mut exchange| async move {
            exchange.request().await;
            if how == "reset" {
                exchange.reset();
            }
        })
        .await;
        let sidecar = Sidecar::start(&format!("services: {{a: {{static: ['{}']}}}}", origin.addr())).await;
        let reply = sidecar.get("a", "/").await;
        assert_eq!((reply.status, reply.reason().as_str()), (502, "upstream_reset"), "{how}");
        assert_eq!(sidecar.attempts("a", "upstream_reset").await, 1, "{how}");
        assert_eq!(origin.requests(), 1, "{how}: a fresh connection is no reason to try again");
    }
}

#[tokio::test]
async fn bad_response() {
    for answer in ["garbage\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "HTTP/1.1 99 no\r\n\r\n"] {
        let origin = Origin::answering(answer).await;
        let sidecar = Sidecar::start(&format!("services: {{a: {{static: ['{}']}}}}", origin.addr())).await;
        let reply = sidecar.get("a", "/").await;
        assert_eq!((reply.status, reply.reason().as_str()), (502, "bad_response"), "{answer:?}");
        assert_eq!(sidecar.attempts("a", "bad_response").await, 1);
    }
}

#[tokio::test]
async fn a_loop() {
    // A service whose endpoint is the sidecar itself, by a port that is known only once it runs.
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.yaml");
    let sidecar = Sidecar::start_unready(&format!("services: {{a: {{file: '{}'}}}}", list.display()));
    std::fs::write(&list, format!("[{{address: '{}'}}]", sidecar.http())).unwrap();
    eventually("the endpoint", async || !sidecar.view("a").await.endpoints.is_empty()).await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (508, "loop"));
    assert_eq!(sidecar.calls("", "loop").await, 1, "once round is enough");
    assert!(sidecar.is_quiet("a").await);
}

#[tokio::test]
async fn bad_request() {
    let origin = Origin::ok("x").await;
    let sidecar = Sidecar::start(&format!("services: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: three\r\n\r\n",
        "HELLO\r\n\r\n",
    ] {
        let mut client = sidecar.client().await;
        client.send(request).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.reason().as_str()), (400, "bad_request"), "{request:?}");
        client.closed().await;
    }
    assert_eq!(sidecar.calls("", "bad_request").await, 5);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn shutting_down() {
    let origin = Origin::scripted(|mut exchange| async move { exchange.closed().await }).await;
    let yaml = format!("drain: {{for: 50ms}}\nservices: {{a: {{static: ['{}'], timeout: 1h}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let mut call = sidecar.client().await;
    call.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the call to be under way", async || !sidecar.is_quiet("a").await).await;
    let (reply, ()) = tokio::join!(call.reply(), sidecar.stop());
    assert_eq!((reply.status, reply.reason().as_str()), (503, "shutting_down"));
}
