//! Identical calls at the same moment: one goes, all are answered.

use crate::support::{Client, Held, Origin, Sidecar, eventually, ok};

async fn asks(sidecar: &Sidecar, path: &str, lines: &str) -> Client {
    let mut client = sidecar.client().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
    client
}

async fn coalesced(sidecar: &Sidecar) -> u64 {
    sidecar.metrics().await["outrigger_coalesced_total{service=\"a\"}"] as u64
}

/// Waits until so many calls are under way, in whatever way.
async fn open(sidecar: &Sidecar, n: u64) {
    eventually("the calls to have come in", async || sidecar.open("", "downstream").await == n).await;
}

#[tokio::test]
async fn identical_calls_share_one() {
    let held = Held::start().await;
    let yaml = format!("workers: 2\nservices: {{a: {{static: ['{}'], coalesce: on, bulkhead: 1}}}}", held.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let mut clients = vec![asks(&sidecar, "/x?q=1", "").await];
    held.has_read(1).await;
    for n in 0..9 {
        clients.push(asks(&sidecar, "/x?q=1", &format!("x-request-id: {n}\r\n")).await);
    }
    open(&sidecar, 10).await;
    held.release(1);
    for client in &mut clients {
        let reply = client.reply().await;
        assert!(reply.status == 200 && reply.complete, "{reply:?}");
    }
    assert_eq!((held.requests(), coalesced(&sidecar).await), (1, 9), "and nobody needed a place in the bulkhead");
    sidecar.settles("a", &[("ok", 10)]).await;
}

#[tokio::test]
async fn what_differs_does_not_share() {
    let held = Held::start().await;
    let yaml = format!("services: {{a: {{static: ['{}'], coalesce: on}}, b: {{static: ['{0}']}}}}", held.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let differing = [
        ("/x", ""),
        ("/x?", ""),
        ("/y", ""),
        ("/x", "Authorization: a\r\n"),
        ("/x", "Authorization: b\r\n"),
        ("/x", "Cookie: a\r\n"),
        ("/x", "Accept: text/html\r\n"),
        ("/x", "Range: bytes=0-1\r\n"),
        ("/x", "Range: bytes=0-1\r\n"),
        ("/x", "Cache-Control: no-cache\r\n"),
        ("/x", "Cache-Control: no-cache\r\n"),
    ];
    let mut clients = Vec::new();
    for (n, (path, lines)) in differing.into_iter().enumerate() {
        clients.push(asks(&sidecar, path, lines).await);
        held.has_read(n + 1).await;
    }
    held.release(clients.len());
    for client in &mut clients {
        assert_eq!(client.reply().await.status, 200);
    }
    assert_eq!(coalesced(&sidecar).await, 0);
}

#[tokio::test]
async fn a_failure_is_shared_too() {
    let (origin, release) = refusing_late().await;
    let sidecar = Sidecar::before(&origin, ", coalesce: on, breaker: off").await;
    let mut clients = vec![asks(&sidecar, "/x", "").await];
    eventually("the first to arrive", async || origin.requests() == 1).await;
    for _ in 0..4 {
        clients.push(asks(&sidecar, "/x", "").await);
    }
    open(&sidecar, 5).await;
    release.notify_waiters();
    for client in &mut clients {
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.reason().as_str()), (502, "upstream_reset"));
    }
    assert_eq!(origin.requests(), 1);
    sidecar.settles("a", &[("upstream_reset", 5)]).await;
}

/// Resets each connection when it is told to.
async fn refusing_late() -> (Origin, std::sync::Arc<tokio::sync::Notify>) {
    let release = std::sync::Arc::new(tokio::sync::Notify::new());
    let told = release.clone();
    let origin = Origin::scripted(move |mut exchange| {
        let told = told.clone();
        async move {
            let told = told.notified();
            exchange.request().await;
            told.await;
            exchange.reset();
        }
    })
    .await;
    (origin, release)
}

#[tokio::test]
async fn when_the_leader_goes_away_another_leads() {
    let held = Held::start().await;
    let yaml = format!("services: {{a: {{static: ['{}'], coalesce: on}}}}", held.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let leader = asks(&sidecar, "/x", "").await;
    held.has_read(1).await;
    let mut followers = Vec::new();
    for _ in 0..3 {
        followers.push(asks(&sidecar, "/x", "").await);
    }
    open(&sidecar, 4).await;
    drop(leader);
    held.has_read(2).await;
    held.release(2);
    for follower in &mut followers {
        assert_eq!(follower.reply().await.status, 200);
    }
    assert!(held.requests() <= 2 + 2, "one of them leads, and not all of them at once: {}", held.requests());
}

#[tokio::test]
async fn what_is_one_caller_s_own_is_not_shared() {
    for line in ["set-cookie: sid=1", "cache-control: private", "cache-control: no-store, max-age=0", "x-long: 1"] {
        let length = if line == "x-long: 1" { 2 << 20 } else { 2 };
        let body = "x".repeat(length);
        let answer = format!("HTTP/1.1 200 OK\r\n{line}\r\ncontent-length: {length}\r\n\r\n{body}");
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        let waits = gate.clone();
        let origin = Origin::scripted(move |mut exchange| {
            let (waits, answer) = (waits.clone(), answer.clone());
            async move {
                while exchange.request().await.is_some() {
                    waits.acquire().await.unwrap().forget();
                    exchange.send(&answer).await;
                }
            }
        })
        .await;
        let sidecar = Sidecar::before(&origin, ", coalesce: on").await;
        let mut leader = asks(&sidecar, "/x", "").await;
        eventually("the first to arrive", async || origin.requests() == 1).await;
        let mut follower = asks(&sidecar, "/x", "").await;
        open(&sidecar, 2).await;
        gate.add_permits(2);
        assert_eq!((leader.reply().await.body.len(), follower.reply().await.body.len()), (length, length));
        assert_eq!((origin.requests(), coalesced(&sidecar).await), (2, 0), "{line}");
    }
}

#[tokio::test]
async fn off_is_off() {
    let origin = Origin::answering(ok("x")).await;
    let sidecar = Sidecar::before(&origin, "").await;
    for _ in 0..3 {
        assert_eq!(sidecar.get("a", "/x").await.status, 200);
    }
    assert_eq!((origin.requests(), coalesced(&sidecar).await), (3, 0));
}
