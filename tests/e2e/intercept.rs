//! The listener for redirected connections, as far as it can be had without a redirect rule: those want rights, and are
//! tried in `tests/real/intercept`.

use crate::support::{Client, Origin, Sidecar, http2, origin::ok, within};

async fn intercepting() -> (Origin, Sidecar, std::net::SocketAddr) {
    let origin = Origin::answering(ok("hi")).await;
    let yaml = format!(
        "intercept: {{listen: 0, user: '1'}}\nservices: {{a: {{static: ['{}'], protocol: http1}}}}",
        origin.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    let at = sidecar.intercepted();
    (origin, sidecar, at)
}

#[tokio::test]
async fn who_was_not_redirected_finds_the_shared_port() {
    let (_origin, sidecar, at) = intercepting().await;
    let mut client = Client::connect(at).await;
    for (host, status) in [("a", 200), ("A.:80", 200), ("nobody", 404), ("a", 200)] {
        assert_eq!(client.get(host, "/", "").await.status, status, "{host}");
    }
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("it has no Host header"), "{}", reply.text());
    assert_eq!(http2::App::connect(at).await.get("a", "/").await.status, 200);
    let metrics = sidecar.metrics().await;
    for way in ["host", "address", "passed"] {
        assert_eq!(metrics[&format!("outrigger_intercepted_total{{way=\"{way}\"}}")], 0.0, "{way}");
    }
}

#[tokio::test]
async fn what_is_no_http_goes_nowhere_from_there() {
    let (origin, _sidecar, at) = intercepting().await;
    let mut client = Client::connect(at).await;
    client.send(format!("CONNECT {} HTTP/1.1\r\nHost: a\r\n\r\n", origin.addr())).await;
    assert_eq!(client.reply().await.status, 400);
    let mut client = Client::connect(at).await;
    client.send(b"\x16\x03\x01\x02\x00\x01\r\n\r\n").await;
    assert_eq!(within("an end", client.reply()).await.status, 400, "nobody said where to take it");
}
