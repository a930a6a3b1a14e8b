use std::net::SocketAddr;

use serde_json::Value;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::*;
use crate::{
    admin::testing::{Stand, exchange},
    service::view::ServiceView,
};

async fn ask(addr: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let stream = TcpStream::connect(addr).await.unwrap();
    exchange(stream, &format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"))
}

#[tokio::test]
async fn metrics_are_brought_up_to_date_and_rendered() {
    let addr = Stand::default().observe().await;
    let (status, head, body) = ask(addr, "GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.contains("outrigger_bulkhead_limit{service=\"orders\"} 100\n"), "{body}");
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let addr = Stand::default().observe().await;
    for path in ["/", "/health/live", "/health/ready", "/metrics", "/api/services", "/api/services/orders"] {
        let (got, head, body) = ask(addr, "HEAD", path).await;
        assert_eq!((got, body.as_str()), (200, ""), "{path}");
        let (_, _, whole) = ask(addr, "GET", path).await;
        assert!(!whole.is_empty());
        assert!(head.contains(&format!("content-length: {}", whole.len())), "{path}: {head}");
    }
}

#[tokio::test]
async fn readiness_says_why_not() {
    let stand = Stand::default();
    let addr = stand.observe().await;
    let (status, _, body) = ask(addr, "GET", "/health/ready").await;
    assert_eq!((status, parsed(&body)), (200, json!({ "status": "ready" })));

    stand.why_not_ready.lock().unwrap().push("orders: no endpoints yet".into());
    let (status, _, body) = ask(addr, "GET", "/health/ready").await;
    assert_eq!((status, parsed(&body)), (503, json!({ "status": "not_ready", "why": ["orders: no endpoints yet"] })));
    let (status, ..) = ask(addr, "GET", "/health/live").await;
    assert_eq!(status, 200, "it lives, ready or not");
}

#[tokio::test]
async fn services_are_found_by_any_name_they_have() {
    let addr = Stand::default().observe().await;
    let (_, _, body) = ask(addr, "GET", "/api/services").await;
    let views: Vec<ServiceView> = serde_json::from_value(parsed(&body)["services"].take()).unwrap();
    assert_eq!(views, [crate::admin::testing::view("orders"), crate::admin::testing::view("plain")]);

    for name in ["orders", "ORDERS", "o", "orders?pretty"] {
        let (status, _, body) = ask(addr, "GET", &format!("/api/services/{name}")).await;
        assert_eq!((status, &parsed(&body)["name"]), (200, &json!("orders")), "{name}");
    }
    let (status, head, body) = ask(addr, "GET", "/api/services/nobody").await;
    assert_eq!(status, 404);
    assert!(head.contains("application/problem+json"), "{head}");
    assert_eq!(parsed(&body)["reason"], "unknown_service");
    assert_eq!(parsed(&body)["service"], "nobody");
}

#[tokio::test]
async fn nothing_can_be_changed_here() {
    let stand = Stand::default();
    let addr = stand.observe().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"] {
        let (status, head, _) = ask(addr, method, "/metrics").await;
        assert_eq!(status, 405, "{method}");
        assert!(head.contains("allow: get, head"), "{method}: {head}");
    }
    for path in
        ["/breaker/orders/open", "/drain", "/drain/10.0.0.1:80", "/reload", "/api/services/", "/api/services/a/b"]
    {
        let (status, _, body) = ask(addr, "POST", path).await;
        assert_eq!((status, &parsed(&body)["status"]), (404, &json!(404)), "{path}");
    }
    assert!(stand.done.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_http_ends_and_harms_nobody() {
    let addr = Stand::default().observe().await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(5_000));
    for garbage in ["\r\n\r\n", "\0\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", &long, &many] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let sent = tokio::io::AsyncWriteExt::write_all(&mut stream, garbage.as_bytes()).await;
        let _ = sent.and(tokio::io::AsyncWriteExt::shutdown(&mut stream).await);
        let mut answer = Vec::new();
        // A reset is a fair answer as well.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{garbage:.40?}");
    }
    assert_eq!(ask(addr, "GET", "/health/live").await.0, 200);
}

/// Connections that say nothing take every place; they are cut off, and whoever waited is served.
#[tokio::test(start_paused = true)]
async fn silent_connections_hold_their_places_for_a_while_only() {
    let addr = Stand::default().observe().await;
    let mut silent = Vec::new();
    for _ in 0..serve::CONNECTIONS {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let (status, ..) = ask(addr, "GET", "/health/live").await;
    assert_eq!(status, 200);
    for mut stream in silent {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}
