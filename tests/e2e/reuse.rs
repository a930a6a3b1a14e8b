//! Connections that are used again, and what may happen to them in between.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{Exchange, Origin, Sidecar, eventually, origin::ok};

/// An origin whose n-th connection (from 0) is served by `script`.
async fn numbered<F, Fut>(script: F) -> Origin
where
    F: Fn(usize, Exchange) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    Origin::scripted(move |exchange| script(next.fetch_add(1, Ordering::SeqCst), exchange)).await
}

async fn retries(sidecar: &Sidecar) -> u64 {
    let name = "outrigger_retries_total{reason=\"reused_connection\",service=\"a\"}";
    sidecar.metrics().await.get(name).copied().unwrap_or(0.0) as u64
}

async fn steady(exchange: &mut Exchange) {
    while exchange.request().await.is_some() {
        exchange.send(ok("steady")).await;
    }
}

/// The first connection answers once and dies when the next request is there; the others work.
async fn dying() -> Origin {
    numbered(|n, mut exchange| async move {
        if n == 0 {
            exchange.request().await;
            exchange.send(ok("first")).await;
            exchange.head().await;
            return exchange.reset();
        }
        steady(&mut exchange).await;
    })
    .await
}

/// envoyproxy/envoy#1979, #14981: a kept connection that its server closes in that moment was a 503 to the caller.
#[tokio::test]
async fn a_get_that_meets_a_dying_connection_is_sent_again() {
    let origin = dying().await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    assert_eq!(client.get("a", "/", "").await.text(), "first");
    assert_eq!(client.get("a", "/", "").await.text(), "steady");
    assert_eq!((origin.connections(), retries(&sidecar).await), (2, 1));
    assert_eq!(sidecar.attempts("a", "ok").await, 2, "it is the same attempt");
    sidecar.settles("a", &[("ok", 2)]).await;
}

#[tokio::test]
async fn a_post_that_was_sent_is_not() {
    for body in ["", "body"] {
        let origin = dying().await;
        let sidecar = Sidecar::before(&origin, "").await;
        let mut client = sidecar.client().await;
        assert_eq!(client.get("a", "/", "").await.text(), "first");
        assert_eq!(client.post("a", "/", body).await.reason(), "upstream_reset");
        assert_eq!((origin.connections(), origin.requests(), retries(&sidecar).await), (1, 2, 0));
        assert_eq!(client.post("a", "/", body).await.text(), "steady");
        sidecar.settles("a", &[("ok", 2), ("upstream_reset", 1)]).await;
    }
}

#[tokio::test]
async fn it_is_sent_again_once() {
    // Every connection dies on its second request; the pool holds two such.
    let origin = numbered(|_, mut exchange| async move {
        exchange.request().await;
        exchange.send(ok("once")).await;
        exchange.head().await;
        exchange.reset();
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for n in 1..=4 {
        assert_eq!(client.get("a", "/", "").await.text(), "once", "a fresh connection serves call {n}");
    }
    sidecar.settles("a", &[("ok", 4)]).await;
}

#[tokio::test]
async fn connections_closed_while_idle_are_not_noticed_by_anybody() {
    let origin = numbered(|_, mut exchange| async move {
        exchange.request().await;
        exchange.send(ok("hi")).await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for n in 1..=50 {
        // POST too: a connection that is known to be closed is not used, and an unsent request is safe to move.
        assert_eq!(client.get("a", "/", "").await.text(), "hi", "call {n}");
    }
    for n in 1..=50 {
        eventually("the close to be seen", async || sidecar.open("a", "upstream").await == 0).await;
        assert_eq!(client.post("a", "/", "body").await.text(), "hi", "call {n}");
    }
    sidecar.settles("a", &[("ok", 100)]).await;
}

#[tokio::test]
async fn bytes_after_an_answer_answer_nothing() {
    let extra = ok("right") + &ok("wrong");
    for more in [extra, ok("right") + "garbage", ok("right") + "\r\n"] {
        let origin = Origin::answering(more.clone()).await;
        let sidecar = Sidecar::before(&origin, "").await;
        let mut client = sidecar.client().await;
        for n in 0..20 {
            let reply = client.get("a", "/", "").await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "right"), "call {n} with {more:?}");
        }
        sidecar.settles("a", &[("ok", 20)]).await;
    }
}

#[tokio::test]
async fn bytes_that_follow_later_answer_nothing_either() {
    let (go, wait) = tokio::sync::watch::channel(0);
    let origin = numbered(move |n, mut exchange| {
        let mut wait = wait.clone();
        async move {
            exchange.request().await;
            exchange.send(ok("right")).await;
            wait.wait_for(|go| *go > n).await.unwrap();
            exchange.send(ok("wrong")).await;
            exchange.closed().await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for n in 1..=5 {
        assert_eq!(client.get("a", "/", "").await.text(), "right");
        go.send(n).unwrap();
        eventually("the connection to be given up", async || sidecar.open("a", "upstream").await == 0).await;
    }
    assert_eq!(origin.connections(), 5);
    sidecar.settles("a", &[("ok", 5)]).await;
}

#[tokio::test]
async fn as_many_connections_as_calls_at_once_and_no_more() {
    let origin = Origin::ok("hi").await;
    let sidecar = Sidecar::start(&format!("workers: 1\nservices: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(sidecar.client().await);
    }
    for _ in 0..10 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        }
        for client in &mut clients {
            assert_eq!(client.reply().await.text(), "hi");
        }
    }
    assert!(origin.connections() <= 8, "{}", origin.connections());
    assert_eq!(sidecar.open("a", "upstream").await, origin.connections() as u64);
    assert_eq!(sidecar.open("", "downstream").await, 8);
    sidecar.settles("a", &[("ok", 80)]).await;
}
