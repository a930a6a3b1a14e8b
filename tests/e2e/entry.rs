//! How a call finds its service, and what becomes of one that names none.

use crate::support::{Client, Origin, Sidecar, origin::ok, within};

async fn with_names() -> (Origin, tokio::sync::mpsc::Receiver<String>, Sidecar) {
    let (origin, requests) = Origin::recording(ok("hi")).await;
    let yaml = format!(
        "services: {{orders: {{static: ['{}'], aliases: [orders.prod], listen: '127.0.0.1:0'}}}}",
        origin.addr()
    );
    (origin, requests, Sidecar::start(&yaml).await)
}

#[tokio::test]
async fn every_way_to_write_a_name() {
    let (_origin, mut requests, sidecar) = with_names().await;
    let mut client = sidecar.client().await;
    let names = [
        "orders",
        "ORDERS",
        "Orders:8470",
        "orders.",
        "orders.:80",
        "orders.prod",
        "Orders.Prod:1",
        "orders.vip.internal",
    ];
    for name in names {
        let reply = client.get(name, "/x?y=1", "").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "hi"), "{name}");
        let request = requests.recv().await.unwrap();
        assert!(request.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("host: {name}\r\n")), "the app's own Host stays: {request}");
    }
    sidecar.settles("orders", &[("ok", names.len() as u64)]).await;
}

#[tokio::test]
async fn absolute_uris_as_a_forward_proxy_gets_them() {
    let (_origin, mut requests, sidecar) = with_names().await;
    let mut client = sidecar.client().await;
    for (target, arrives) in [
        ("http://orders/x?y", "GET /x?y HTTP/1.1\r\n"),
        ("http://orders", "GET / HTTP/1.1\r\n"),
        ("HTTP://Orders:80/x", "GET /x HTTP/1.1\r\n"),
        ("http://user:secret@orders/x", "GET /x HTTP/1.1\r\n"),
        ("http://orders?q", "GET /?q HTTP/1.1\r\n"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: elsewhere\r\nProxy-Connection: keep-alive\r\n\r\n")).await;
        assert_eq!(client.reply().await.status, 200, "{target}");
        let request = requests.recv().await.unwrap();
        assert!(request.starts_with(arrives), "{request}");
        let lower = request.to_ascii_lowercase();
        assert!(lower.contains("host: orders"), "the URI's authority is the Host: {request}");
        assert!(
            !lower.contains("elsewhere") && !lower.contains("secret") && !lower.contains("proxy-connection"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn options_asterisk_passes() {
    let (_origin, mut requests, sidecar) = with_names().await;
    let mut client = sidecar.client().await;
    client.send("OPTIONS * HTTP/1.1\r\nHost: orders\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert!(requests.recv().await.unwrap().starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_port_of_its_own_needs_no_name() {
    let (origin, mut requests, sidecar) = with_names().await;
    let source = format!("host: {}\r\n", origin.addr());
    let mut client = Client::connect(sidecar.port_of("orders")).await;
    for (request, host) in [
        ("GET / HTTP/1.1\r\nHost: orders\r\n\r\n", "host: orders\r\n"),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:7001\r\n\r\n", &source),
        ("GET / HTTP/1.1\r\nHost: some.where.else\r\n\r\n", &source),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &source),
    ] {
        client.send(request).await;
        assert_eq!(client.reply().await.status, 200, "{request}");
        let seen = requests.recv().await.unwrap();
        assert!(seen.contains(host), "{request} arrived as {seen}");
        assert_eq!(seen.matches("host: ").count(), 1);
    }
    sidecar.settles("orders", &[("ok", 4)]).await;
}

#[tokio::test]
async fn what_names_no_service_is_told_so() {
    let (origin, _requests, sidecar) = with_names().await;
    let mut client = sidecar.client().await;
    let unknown = [
        "GET / HTTP/1.1\r\nHost: nobody\r\n\r\n",
        "GET http://nobody/ HTTP/1.1\r\nHost: orders\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: orders.vip.internal.evil\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: orders..\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    ];
    for request in unknown {
        client.send(request).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.reason().as_str()), (404, "unknown_service"), "{request}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(5000));
    client.send(long).await;
    assert_eq!(client.reply().await.status, 404);
    assert_eq!(sidecar.calls("", "unknown_service").await, unknown.len() as u64 + 1);
    assert_eq!(client.get("orders", "/", "").await.status, 200, "the connection lives on");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn what_cannot_be_routed_is_malformed() {
    let (origin, _requests, sidecar) = with_names().await;
    let malformed = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: orders\r\nHost: orders\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: orders\r\nHost: payments\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: or ders\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: orders, payments\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@orders\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: orders:port\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: orders/../x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "CONNECT orders HTTP/1.1\r\nHost: orders\r\n\r\n",
        "GET https://orders/ HTTP/1.1\r\nHost: orders\r\n\r\n",
        "GET ftp://orders/ HTTP/1.1\r\nHost: orders\r\n\r\n",
        "GET orders HTTP/1.1\r\nHost: orders\r\n\r\n",
        "GET orders:80 HTTP/1.1\r\nHost: orders\r\n\r\n",
        "GET http://orders/ HTTP/1.1\r\nHost: orders\r\nHost: orders\r\n\r\n",
    ];
    for request in malformed {
        let mut client = sidecar.client().await;
        client.send(request).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.reason().as_str()), (400, "bad_request"), "{request}");
        assert_eq!(client.closed().await, b"", "{request}");
    }
    assert_eq!(sidecar.calls("", "bad_request").await, malformed.len() as u64);
    assert_eq!(origin.connections(), 0, "nothing of it went upstream");
}

#[tokio::test]
async fn a_loop_is_cut_at_its_second_turn() {
    // The sidecar's endpoint is its own port, which is known once it runs: an origin in between leads back.
    let back = Origin::scripted(|mut exchange| async move {
        let Some(request) = exchange.request().await else { return };
        let to = request.lines().find_map(|line| line.strip_prefix("x-back: ")).unwrap().parse().unwrap();
        let mut again = Client::connect(to).await;
        again.send(&request).await;
        let reply = again.reply().await;
        exchange.send(reply.head).await;
        exchange.send(reply.body).await;
    })
    .await;
    let sidecar = Sidecar::before(&back, "").await;
    let reply = sidecar.client().await.get("a", "/", &format!("x-back: {}\r\n", sidecar.http())).await;
    assert_eq!((reply.status, reply.reason().as_str()), (508, "loop"));
    assert_eq!((back.requests(), sidecar.calls("", "loop").await), (1, 1));
    sidecar.settles("a", &[("upstream_error", 1)]).await;
}

#[tokio::test]
async fn two_sidecars_in_a_row_are_no_loop() {
    let (origin, mut requests) = Origin::recording(ok("far")).await;
    let second = Sidecar::before(&origin, "").await;
    let first = Sidecar::start(&format!("services: {{a: {{static: ['{}']}}}}", second.http())).await;
    let reply = within("an answer through both", first.get("a", "/")).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "far"));
    let request = requests.recv().await.unwrap();
    assert_eq!(request.matches("via: ").count(), 2, "{request}");
}
