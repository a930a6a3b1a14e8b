//! CONNECT, and the header that names a service: the ways of a forward proxy's client and of a test.

use tokio::io::AsyncReadExt;

use crate::support::{Origin, Sidecar, free, origin::ok};

async fn with(origin: &Origin, rest: &str) -> Sidecar {
    Sidecar::start(&format!("services: {{orders: {{static: ['{}']{rest}}}}}", origin.addr())).await
}

#[tokio::test]
async fn calls_inside_have_all_policies() {
    let (origin, mut asked) = Origin::recording(ok("hi")).await;
    let sidecar = with(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("CONNECT Orders:443 HTTP/1.1\r\nHost: orders:443\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.to_lowercase().contains("content-length"), "{head}");
    for path in ["/a", "/b"] {
        let reply = client.get("orders", path, "").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "hi"));
        assert!(asked.recv().await.unwrap().starts_with(&format!("GET {path} HTTP/1.1")));
    }
    drop(client);
    sidecar.settles("orders", &[("ok", 2)]).await;
    sidecar.drained().await;
}

#[tokio::test]
async fn what_is_sent_behind_the_head_is_not_lost() {
    let origin = Origin::answering(ok("hi")).await;
    let sidecar = with(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("CONNECT orders:80 HTTP/1.1\r\nHost: orders\r\n\r\nGET /x HTTP/1.1\r\nHost: orders\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.reply().await.text(), "hi");
}

#[tokio::test]
async fn what_is_sent_behind_a_refused_head_is_no_request() {
    let (origin, mut asked) = Origin::recording(ok("hi")).await;
    let yaml = format!(
        "services: {{orders: {{static: ['{}']}}, db: {{static: ['{}'], protocol: tcp, listen: 0, retry: off}}}}",
        origin.addr(),
        free()
    );
    let sidecar = Sidecar::start(&yaml).await;
    let behind = "GET /meant-for-the-tunnel HTTP/1.1\r\nHost: orders\r\n\r\n";
    for (head, body, status) in [
        ("CONNECT nobody:443 HTTP/1.1\r\nHost: x\r\n", "", 404),
        ("CONNECT nobody:443 HTTP/1.0\r\nConnection: keep-alive\r\n", "", 404),
        ("CONNECT db:443 HTTP/1.1\r\nHost: x\r\n", "", 502),
        ("CONNECT orders HTTP/1.1\r\nHost: x\r\n", "", 400),
        // Bodies, which could be read in two ways.
        ("CONNECT orders:1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n", "hello", 400),
        ("CONNECT orders:1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", 400),
        ("CONNECT nobody:1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", 400),
    ] {
        let mut client = sidecar.client().await;
        client.send(format!("{head}\r\n{body}{behind}")).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{head}");
        assert!(reply.header("connection").is_some_and(|said| said.starts_with("close")), "{head}");
        assert_eq!(client.closed().await, b"", "{head}");
    }
    sidecar.get("orders", "/first").await;
    assert!(asked.recv().await.unwrap().starts_with("GET /first "));
}

#[tokio::test]
async fn tls_inside_is_between_the_app_and_the_endpoint() {
    let origin = Origin::scripted(|mut exchange| async move {
        let mut bytes = [0; 5];
        exchange.stream.read_exact(&mut bytes).await.unwrap();
        exchange.send(&bytes).await;
    })
    .await;
    let sidecar = with(&origin, ", tls: on").await;
    let mut client = sidecar.client().await;
    client.send("CONNECT orders:443 HTTP/1.1\r\nHost: orders:443\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    client.send(b"\x16\x03\x01\x00\x05").await;
    assert_eq!(client.exactly(5).await, b"\x16\x03\x01\x00\x05", "byte by byte, without TLS of ours");
    assert_eq!(client.closed().await, b"");
    drop(client);
    sidecar.settles("orders", &[("ok", 1)]).await;
}

#[tokio::test]
async fn bytes_of_a_tcp_service_have_an_endpoint_before_the_answer() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.send(b"220 hello\r\n").await;
        let mut bytes = [0; 4];
        exchange.stream.read_exact(&mut bytes).await.unwrap();
        exchange.send(&bytes).await;
    })
    .await;
    let sidecar = with(&origin, ", protocol: tcp, listen: 0").await;
    let mut client = sidecar.client().await;
    client.send("CONNECT orders:25 HTTP/1.1\r\nHost: orders:25\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.exactly(11).await, b"220 hello\r\n");
    client.send("QUIT").await;
    assert_eq!(client.exactly(4).await, b"QUIT");
    assert_eq!(client.closed().await, b"");
    drop(client);
    sidecar.settles("orders", &[("ok", 1)]).await;
}

#[tokio::test]
async fn a_refusal_is_told_in_words() {
    let dead = free();
    let yaml = format!(
        "services: {{db: {{static: ['{dead}'], protocol: tcp, listen: 0, retry: off}}, web: {{static: ['{dead}'], retry: off}}}}"
    );
    let sidecar = Sidecar::start(&yaml).await;
    for (request, status, reason) in [
        ("CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\n", 502, "connect_refused"),
        ("CONNECT nobody:443 HTTP/1.1\r\nHost: nobody:443\r\n\r\n", 404, "unknown_service"),
        ("CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: 10.0.0.1:443\r\n\r\n", 404, "unknown_service"),
        ("CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n", 404, "unknown_service"),
    ] {
        let mut client = sidecar.client().await;
        client.send(request).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.reason().as_str()), (status, reason), "{request}");
    }
    let mut client = sidecar.client().await;
    client.send("CONNECT web:1 HTTP/1.1\r\nHost: web:1\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.get("web", "/", "").await.reason(), "connect_refused");
    sidecar.settles("db", &[("connect_refused", 1)]).await;
}

#[tokio::test]
async fn an_app_that_goes_away_leaves_nothing() {
    let origin = Origin::answering(ok("hi")).await;
    let sidecar = with(&origin, "").await;
    for _ in 0..20 {
        let mut client = sidecar.client().await;
        client.send("CONNECT orders:443 HTTP/1.1\r\nHost: orders:443\r\n\r\n").await;
        assert!(client.head().await.is_some());
    }
    sidecar.drained().await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_header_names_the_service_where_that_is_allowed() {
    let (a, mut asked) = Origin::recording(ok("a")).await;
    let b = Origin::answering(ok("b")).await;
    let services = format!("services: {{a: {{static: ['{}']}}, b: {{static: ['{}'], listen: 0}}}}", a.addr(), b.addr());
    let sidecar = Sidecar::start(&services).await;
    assert_eq!(
        sidecar.client().await.get("b", "/", "x-outrigger-service: a\r\n").await.text(),
        "b",
        "off unless allowed"
    );

    let sidecar = Sidecar::start_listening("override: on", &services).await;
    let mut client = sidecar.client().await;
    for host in ["b", "nobody.example"] {
        let reply = client.get(host, "/", "X-Outrigger-Service: A\r\n").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "a"));
        let request = asked.recv().await.unwrap();
        assert!(!request.to_lowercase().contains("x-outrigger-service"), "it is for us alone: {request}");
        assert!(request.contains(&format!("host: {}\r\n", a.addr())), "the Host names another: {request}");
    }
    assert_eq!(client.get("b", "/", "").await.text(), "b");
    let reply = client.get("b", "/", "x-outrigger-service: c\r\n").await;
    assert_eq!((reply.status, reply.reason().as_str()), (404, "unknown_service"));
    let mut own = crate::support::Client::connect(sidecar.port_of("b")).await;
    assert_eq!(own.get("b", "/", "x-outrigger-service: a\r\n").await.text(), "a");
    let reply = client.get("b", "/", "x-outrigger-service: a\r\nx-outrigger-service: b\r\n").await;
    assert_eq!((reply.status, reply.reason().as_str()), (400, "bad_request"));
}
