//! Deadlines, from the outside: who waited, who is told, and who is blamed.

use crate::support::{Client, Held, Origin, Sidecar, eventually, ok};

async fn sidecar(origin: std::net::SocketAddr, rest: &str) -> Sidecar {
    Sidecar::start(&format!("services: {{a: {{static: ['{origin}'], {rest}}}}}")).await
}

/// Reads a request and says nothing.
async fn silent() -> Origin {
    Origin::scripted(|mut exchange| async move { exchange.closed().await }).await
}

/// Sends a head and the first half of a body, and then nothing.
async fn half_an_answer() -> Origin {
    Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
        exchange.closed().await;
    })
    .await
}

async fn judged(sidecar: &Sidecar) -> (u32, u32) {
    let breaker = sidecar.view("a").await.breaker.unwrap();
    (breaker.calls, breaker.failures)
}

#[tokio::test]
async fn an_attempt_has_a_limit_of_its_own() {
    let origin = silent().await;
    let sidecar = sidecar(origin.addr(), "timeout: {request: 1h, attempt: 50ms}").await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (504, "request_timeout"));
    assert_eq!(judged(&sidecar).await, (1, 1));
}

#[tokio::test]
async fn request_ends_with_the_head_of_the_answer() {
    let origin = Origin::scripted(|mut exchange| async move {
        while exchange.request().await.is_some() {
            exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n").await;
            for _ in 0..30 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                exchange.send("x").await;
            }
        }
    })
    .await;
    let sidecar = sidecar(origin.addr(), "timeout: {request: 100ms, idle: 10s}").await;
    let reply = sidecar.get("a", "/").await;
    assert!(reply.complete && reply.body.len() == 30, "{reply:?}");
}

#[tokio::test]
async fn an_answer_that_pauses_is_cut_and_the_app_can_tell() {
    let origin = half_an_answer().await;
    let sidecar = sidecar(origin.addr(), "timeout: {idle: 50ms}").await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.complete, reply.text().as_str()), (200, false, "hello"));
    eventually("the call to be counted", async || sidecar.calls("a", "request_timeout").await == 1).await;
    assert_eq!(judged(&sidecar).await, (1, 1), "a cut body is a failure");
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
}

#[tokio::test]
async fn total_bounds_an_answer_that_never_pauses() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let mut probe = [0];
        while exchange.stream.try_read(&mut probe).is_err() {
            exchange.send("1\r\nx\r\n").await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let sidecar = sidecar(origin.addr(), "timeout: {total: 200ms}").await;
    let reply = sidecar.get("a", "/").await;
    assert_eq!((reply.status, reply.complete), (200, false));
    eventually("the call to be counted", async || sidecar.calls("a", "request_timeout").await == 1).await;
}

#[tokio::test]
async fn total_bounds_the_head_too() {
    let origin = silent().await;
    let sidecar = sidecar(origin.addr(), "timeout: {request: off, total: 50ms}").await;
    assert_eq!(sidecar.get("a", "/").await.reason(), "request_timeout");
}

#[tokio::test]
async fn an_upload_that_pauses_is_the_apps_own_fault() {
    let origin = silent().await;
    let sidecar = sidecar(origin.addr(), "timeout: {idle: 50ms}").await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhel").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.reason().as_str()), (504, "request_timeout"));
    assert_eq!(judged(&sidecar).await, (0, 0), "the service is not judged by its callers");
    assert_eq!(sidecar.attempts("a", "cancelled").await, 1);
}

#[tokio::test]
async fn a_deadline_that_passes_while_the_app_still_sends_is_the_apps_own_fault() {
    let origin = silent().await;
    let sidecar = sidecar(origin.addr(), "timeout: {request: 100ms}").await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhel").await;
    assert_eq!(client.reply().await.reason(), "request_timeout");
    assert_eq!(judged(&sidecar).await, (0, 0));
}

#[tokio::test]
async fn a_deadline_that_passes_after_the_upload_is_the_services_fault() {
    let origin = silent().await;
    let sidecar = sidecar(origin.addr(), "timeout: {request: 100ms}").await;
    assert_eq!(sidecar.client().await.post("a", "/", "hello").await.reason(), "request_timeout");
    assert_eq!(judged(&sidecar).await, (1, 1));
}

#[tokio::test]
async fn time_in_the_queue_counts() {
    let origin = Held::start().await;
    let rest = "timeout: {request: 200ms}, bulkhead: {max: 1, queue: 5, wait: 1h}";
    let sidecar = sidecar(origin.addr(), rest).await;
    let mut first = sidecar.client().await;
    first.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.has_read(1).await;
    let mut second = sidecar.client().await;
    let (one, two) = tokio::join!(first.reply(), second.get("a", "/2", ""));
    assert_eq!(one.reason(), "request_timeout");
    // The place came free as the first call's time was over; what is left of the second's was less than a whole.
    assert_eq!((two.status, two.reason().as_str()), (504, "request_timeout"));
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
}

#[tokio::test]
async fn a_connection_that_was_cut_is_not_used_again() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            if request.starts_with("GET /slow") {
                return exchange.closed().await;
            }
            exchange.send(ok("fine")).await;
        }
    })
    .await;
    let sidecar = sidecar(origin.addr(), "timeout: 100ms").await;
    let mut client = Client::connect(sidecar.http()).await;
    assert_eq!(client.get("a", "/", "").await.text(), "fine");
    assert_eq!(client.get("a", "/slow", "").await.reason(), "request_timeout");
    assert_eq!(client.get("a", "/", "").await.text(), "fine");
    assert_eq!(origin.connections(), 2);
}
