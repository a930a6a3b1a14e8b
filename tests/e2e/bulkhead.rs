//! The bulkhead, from the outside.

use std::{net::SocketAddr, sync::Arc};

use crate::support::{Client, Held, Origin, Reply, Sidecar, eventually};

async fn sidecar(origin: SocketAddr, rest: &str) -> Sidecar {
    Sidecar::start(&format!("workers: 2\nservices: {{a: {{static: ['{origin}'], {rest}}}}}")).await
}

/// Begins a call on a connection of its own.
async fn begin(sidecar: &Sidecar, path: &str) -> Client {
    let mut client = sidecar.client().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    client
}

async fn queued(sidecar: &Sidecar, n: u32) {
    eventually("calls to queue", async || sidecar.view("a").await.bulkhead.unwrap().queued == n).await;
}

#[tokio::test]
async fn the_limit_is_exact_whoever_asks() {
    let origin = Held::start().await;
    let sidecar = sidecar(origin.addr(), "bulkhead: 7").await;
    let mut clients = Vec::new();
    for n in 0..40 {
        clients.push(begin(&sidecar, &format!("/{n}")).await);
    }
    // Refusals come while nobody has been answered: exactly seven calls are left.
    eventually("the refusals", async || sidecar.calls("a", "bulkhead_full").await == 33).await;
    origin.has_read(7).await;
    assert_eq!(origin.requests(), 7);
    assert_eq!(sidecar.view("a").await.bulkhead.unwrap().in_flight, 7);
    origin.release(7);
    let mut replies: Vec<Reply> = Vec::new();
    for client in &mut clients {
        replies.push(client.reply().await);
    }
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert_eq!(refused.len(), 33);
    assert!(refused.iter().all(|reply| reply.reason() == "bulkhead_full"));
    assert_eq!(sidecar.view("a").await.breaker.unwrap().failures, 0, "our own refusals say nothing");
    origin.release(1);
    assert_eq!(sidecar.get("a", "/again").await.status, 200, "places are free again");
}

#[tokio::test]
async fn who_waits_is_served_first_come_first_served() {
    let origin = Held::start().await;
    let sidecar = sidecar(origin.addr(), "bulkhead: {max: 1, queue: 3, wait: 1h}, timeout: 1h").await;
    let mut clients = vec![begin(&sidecar, "/0").await];
    origin.has_read(1).await;
    for n in 1..=3 {
        clients.push(begin(&sidecar, &format!("/{n}")).await);
        queued(&sidecar, n).await;
    }
    let refused = sidecar.get("a", "/4").await;
    assert_eq!((refused.status, refused.reason().as_str()), (503, "bulkhead_full"));
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(origin.requests(), n + 1, "one at a time");
        origin.release(1);
        assert_eq!(client.reply().await.text(), format!("/{n}"));
        origin.has_read((n + 2).min(4)).await;
    }
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
}

#[tokio::test]
async fn who_has_waited_long_enough_is_refused() {
    let origin = Held::start().await;
    let sidecar = sidecar(origin.addr(), "bulkhead: {max: 1, queue: 3, wait: 50ms}").await;
    let mut first = begin(&sidecar, "/0").await;
    origin.has_read(1).await;
    assert_eq!(sidecar.get("a", "/1").await.reason(), "bulkhead_full");
    origin.release(1);
    assert_eq!(first.reply().await.text(), "/0");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_waiter_that_goes_away_leaves_its_place_to_the_next() {
    let origin = Held::start().await;
    let sidecar = sidecar(origin.addr(), "bulkhead: {max: 1, queue: 2, wait: 1h}, timeout: 1h").await;
    let mut first = begin(&sidecar, "/0").await;
    origin.has_read(1).await;
    let impatient = begin(&sidecar, "/1").await;
    queued(&sidecar, 1).await;
    let mut third = begin(&sidecar, "/2").await;
    queued(&sidecar, 2).await;
    drop(impatient);
    queued(&sidecar, 1).await;
    origin.release(2);
    assert_eq!(first.reply().await.text(), "/0");
    assert_eq!(third.reply().await.text(), "/2");
    assert_eq!(origin.requests(), 2, "the call that was given up was never sent");
    assert_eq!(sidecar.calls("a", "cancelled").await, 1);
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
}

#[tokio::test]
async fn a_call_that_its_app_gives_up_gives_its_place_back() {
    let origin = Held::start().await;
    let sidecar = sidecar(origin.addr(), "bulkhead: 1").await;
    let call = begin(&sidecar, "/0").await;
    origin.has_read(1).await;
    drop(call);
    eventually("the place to be free", async || sidecar.is_quiet("a").await).await;
    assert_eq!(sidecar.calls("a", "cancelled").await, 1);
    assert_eq!(sidecar.view("a").await.breaker.unwrap().calls, 0, "a cancelled call counts for nothing");
}

#[tokio::test]
async fn each_endpoint_has_a_limit_of_its_own() {
    let (one, two) = (Held::start().await, Held::start().await);
    let yaml = format!(
        "services: {{a: {{static: ['{}', '{}'], bulkhead: {{max: 100, per_endpoint: 2}}}}}}",
        one.addr(),
        two.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(begin(&sidecar, "/x").await);
    }
    eventually("the refusals", async || sidecar.calls("a", "bulkhead_full").await == 6).await;
    one.has_read(2).await;
    two.has_read(2).await;
    assert_eq!((one.requests(), two.requests()), (2, 2));
    one.release(2);
    two.release(2);
    let mut answered = 0;
    for client in &mut clients {
        answered += usize::from(client.reply().await.status == 200);
    }
    assert_eq!(answered, 4);
}

#[tokio::test]
async fn a_body_under_way_holds_the_place() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
        exchange.closed().await;
    })
    .await;
    let sidecar = sidecar(origin.addr(), "bulkhead: 1").await;
    let mut call = begin(&sidecar, "/").await;
    assert!(call.head().await.unwrap().contains("200 OK"));
    assert_eq!(sidecar.get("a", "/").await.reason(), "bulkhead_full");
    drop(call);
    eventually("the place to be free", async || sidecar.is_quiet("a").await).await;
}

#[tokio::test]
async fn a_websocket_holds_its_place_and_its_endpoint_for_as_long_as_it_lives() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n").await;
        exchange.closed().await;
    })
    .await;
    let sidecar = sidecar(origin.addr(), "bulkhead: 1").await;
    let mut socket = sidecar.client().await;
    socket.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert!(socket.head().await.unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(sidecar.get("a", "/").await.reason(), "bulkhead_full");
    let view = sidecar.view("a").await;
    assert_eq!((view.bulkhead.unwrap().in_flight, view.endpoints[0].in_flight), (1, 1));
    assert_eq!(view.breaker.unwrap().calls, 1, "the breaker has heard of its success");
    drop(socket);
    eventually("the place to be free", async || sidecar.is_quiet("a").await).await;
}

#[tokio::test]
async fn nothing_leaks_in_a_crowd_that_comes_and_goes() {
    let origin = Arc::new(Origin::ok("x").await);
    let sidecar = Arc::new(sidecar(origin.addr(), "bulkhead: {max: 3, queue: 4, wait: 5ms}").await);
    let crowd = (0..16u32).map(|n| {
        let sidecar = sidecar.clone();
        tokio::spawn(async move {
            for round in 0..30 {
                let mut client = begin(&sidecar, "/").await;
                if (n + round) % 3 > 0 {
                    let status = client.reply().await.status;
                    assert!(matches!(status, 200 | 503), "{status}");
                }
            }
        })
    });
    for member in crowd.collect::<Vec<_>>() {
        member.await.unwrap();
    }
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
    assert_eq!(sidecar.get("a", "/").await.status, 200);
}
