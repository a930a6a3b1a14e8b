//! Identical calls at the same moment: one goes, all are answered.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};

use crate::support::{Client, Held, Origin, Sidecar, eventually, ok};

async fn asks(sidecar: &Sidecar, path: &str, lines: &str) -> Client {
    let mut client = sidecar.client().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
    client
}

async fn coalesced(sidecar: &Sidecar) -> u64 {
    sidecar.metrics().await["outrigger_coalesced_total{service=\"a\"}"] as u64
}

/// Waits until so many calls wait for another's answer.
async fn waiting(sidecar: &Sidecar, n: u64) {
    eventually("calls to follow another", async || {
        sidecar.metrics().await["outrigger_coalesce_waiting{service=\"a\"}"] as u64 == n
    })
    .await;
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
    waiting(&sidecar, 9).await;
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
        ("/x", "x-outrigger-attempt: 2\r\n"),
        ("/x", "baggage: tenant=b\r\n"),
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
    waiting(&sidecar, 4).await;
    release.notify_waiters();
    for client in &mut clients {
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.reason().as_str()), (502, "upstream_reset"));
    }
    assert_eq!(origin.requests(), 1);
    sidecar.settles("a", &[("upstream_reset", 5)]).await;
}

/// Resets each connection when it is told to.
async fn refusing_late() -> (Origin, Arc<Notify>) {
    let release = Arc::new(Notify::new());
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
    waiting(&sidecar, 3).await;
    drop(leader);
    held.has_read(2).await;
    waiting(&sidecar, 2).await;
    held.release(2);
    for follower in &mut followers {
        assert_eq!(follower.reply().await.status, 200);
    }
    assert_eq!((held.requests(), coalesced(&sidecar).await), (2, 2), "one of them leads, and not all of them at once");
}

#[tokio::test]
async fn what_is_one_caller_s_own_is_not_shared() {
    for line in ["set-cookie: sid=1", "cache-control: private", "cache-control: no-store, max-age=0", "x-long: 1"] {
        let length = if line == "x-long: 1" { 2 << 20 } else { 2 };
        let body = "x".repeat(length);
        let answer = format!("HTTP/1.1 200 OK\r\n{line}\r\ncontent-length: {length}\r\n\r\n{body}");
        let gate = Arc::new(Semaphore::new(0));
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
        waiting(&sidecar, 1).await;
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

/// Answers each request with `first`, and with `then` once it is told to; when that is nothing it closes.
async fn in_two(first: &'static str, then: &'static str) -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let waits = gate.clone();
    let origin = Origin::scripted(move |mut exchange| {
        let waits = waits.clone();
        async move {
            while exchange.request().await.is_some() {
                exchange.send(first).await;
                waits.acquire().await.unwrap().forget();
                if then.is_empty() {
                    return;
                }
                exchange.send(then).await;
            }
        }
    })
    .await;
    (origin, gate)
}

/// One call goes, and so many others follow it.
async fn crowd(sidecar: &Sidecar, origin: &Origin, followers: u64) -> Vec<Client> {
    let mut clients = vec![asks(sidecar, "/x", "").await];
    eventually("the first to arrive", async || origin.requests() == 1).await;
    for _ in 0..followers {
        clients.push(asks(sidecar, "/x", "").await);
    }
    waiting(sidecar, followers).await;
    clients
}

#[tokio::test]
async fn a_flood_costs_the_endpoint_one_call() {
    let (origin, gate) = in_two("", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let rest = ", coalesce: on, bulkhead: 1";
    let yaml = format!("workers: 2\nservices: {{a: {{static: ['{}']{rest}}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let mut clients = crowd(&sidecar, &origin, 300).await;
    gate.add_permits(1);
    for client in &mut clients {
        assert_eq!(client.reply().await.text(), "hi");
    }
    assert_eq!((origin.requests(), coalesced(&sidecar).await), (1, 300));
    sidecar.settles("a", &[("ok", 301)]).await;
}

#[tokio::test]
async fn an_answer_without_a_body_stays_one() {
    for (status, length) in [("304 Not Modified", None), ("204 No Content", None), ("200 OK", Some("0"))] {
        let gate = Arc::new(Semaphore::new(0));
        let waits = gate.clone();
        let origin = Origin::scripted(move |mut exchange| {
            let waits = waits.clone();
            async move {
                while exchange.request().await.is_some() {
                    waits.acquire().await.unwrap().forget();
                    let length =
                        length.map_or_else(String::new, |length: &str| format!("content-length: {length}\r\n"));
                    exchange.send(format!("HTTP/1.1 {status}\r\netag: \"1\"\r\n{length}\r\n")).await;
                }
            }
        })
        .await;
        let sidecar = Sidecar::before(&origin, ", coalesce: on").await;
        let mut clients = crowd(&sidecar, &origin, 1).await;
        gate.add_permits(1);
        for client in &mut clients {
            let reply = client.reply().await;
            assert!(status.starts_with(&reply.status.to_string()), "{reply:?}");
            assert_eq!((reply.header("content-length"), reply.header("etag")), (length, Some("\"1\"")), "{status}");
        }
        assert_eq!(coalesced(&sidecar).await, 1);
    }
}

#[tokio::test]
async fn heads_share_among_themselves() {
    let (origin, gate) = in_two("", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n").await;
    let sidecar = Sidecar::before(&origin, ", coalesce: on").await;
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut client = sidecar.client().await;
        client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
        eventually("the first to arrive", async || origin.requests() == 1).await;
        waiting(&sidecar, n).await;
    }
    gate.add_permits(1);
    for client in &mut clients {
        assert_eq!(client.reply_to_head().await.header("content-length"), Some("7"));
    }
    assert_eq!((origin.requests(), coalesced(&sidecar).await), (1, 2));
}

/// An event stream has no end: whoever waited for that would wait for good.
#[tokio::test]
async fn event_streams_are_each_caller_s_own() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let gate = Arc::new(Semaphore::new(0));
    let waits = gate.clone();
    let origin = Origin::scripted(move |mut exchange| {
        let waits = waits.clone();
        async move {
            exchange.request().await;
            waits.acquire().await.unwrap().forget();
            exchange.send(format!("{HEAD}4\r\nx: 1\r\n")).await;
            exchange.closed().await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, ", coalesce: on").await;
    let mut clients = crowd(&sidecar, &origin, 2).await;
    gate.add_permits(3);
    for client in &mut clients {
        assert!(client.head().await.unwrap().contains("200"));
        assert_eq!(client.chunk().await.as_deref(), Some("x: 1"));
    }
    assert_eq!((origin.requests(), coalesced(&sidecar).await), (3, 0));
}

/// A leader whose answer does not come to its end, be it for its own app's sake, holds nobody up.
#[tokio::test]
async fn an_answer_that_takes_its_time_is_asked_for_anew_by_one() {
    let (origin, gate) =
        in_two("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n", "1\r\ny\r\n0\r\n\r\n").await;
    let sidecar = Sidecar::before(&origin, ", coalesce: on").await;
    let mut clients = crowd(&sidecar, &origin, 3).await;
    eventually("one of the followers to go", async || origin.requests() == 2).await;
    gate.add_permits(9);
    for client in &mut clients {
        let reply = client.reply().await;
        assert_eq!((reply.text().as_str(), reply.complete), ("xy", true));
    }
}

/// The leader's own caller had less time than the others.
#[tokio::test]
async fn a_hurried_leader_hurries_nobody_else() {
    let (origin, gate) = in_two("", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let sidecar = Sidecar::before(&origin, ", coalesce: on").await;
    let mut leader = asks(&sidecar, "/x", "x-request-timeout: 300ms\r\n").await;
    eventually("the first to arrive", async || origin.requests() == 1).await;
    let mut followers = Vec::new();
    for _ in 0..3 {
        followers.push(asks(&sidecar, "/x", "").await);
    }
    waiting(&sidecar, 3).await;
    assert_eq!(leader.reply().await.reason(), "request_timeout");
    eventually("another to lead", async || origin.requests() == 2).await;
    waiting(&sidecar, 2).await;
    gate.add_permits(2);
    for follower in &mut followers {
        assert_eq!(follower.reply().await.text(), "hi");
    }
    assert_eq!((origin.requests(), coalesced(&sidecar).await), (2, 2));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure_of_all() {
    let (origin, gate) = in_two("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "").await;
    let sidecar = Sidecar::before(&origin, ", coalesce: on").await;
    let mut clients = crowd(&sidecar, &origin, 3).await;
    gate.add_permits(9);
    let mut followers = clients.split_off(1);
    assert!(!clients[0].reply().await.complete, "the leader has had its beginning");
    for follower in &mut followers {
        assert_eq!(follower.reply().await.reason(), "upstream_reset");
    }
    assert_eq!((origin.requests(), coalesced(&sidecar).await), (1, 3));
    sidecar.settles("a", &[("upstream_reset", 4)]).await;
}

#[tokio::test]
async fn what_one_is_saved_from_all_are() {
    let (origin, gate) = in_two("", "HTTP/1.1 500 x\r\ncontent-length: 3\r\n\r\nbad").await;
    let fallback = "fallback: [{respond: {body: saved}, on: [upstream_error, upstream_reset]}]";
    let sidecar = Sidecar::before(&origin, &format!(", coalesce: on, {fallback}")).await;
    let mut clients = crowd(&sidecar, &origin, 3).await;
    gate.add_permits(9);
    for client in &mut clients {
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "saved"));
        assert!(reply.header("proxy-status").unwrap().contains("fallback=respond"), "{}", reply.head);
    }
    assert_eq!((origin.requests(), coalesced(&sidecar).await), (1, 3));
    sidecar.settles("a", &[("upstream_error", 4)]).await;
}
