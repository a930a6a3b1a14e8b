//! Every row of the failure table, provoked.

use crate::support::{Origin, Sidecar, eventually};

/// An address where nothing listens: it was free a moment ago.
fn nowhere() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
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
