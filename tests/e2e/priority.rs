//! A bulkhead that tells calls apart, and one that follows latency.

use crate::support::{Client, Held, Origin, Sidecar, eventually, ok, within};

async fn asks(sidecar: &Sidecar, path: &str, priority: &str) -> Client {
    let mut client = sidecar.client().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nx-request-priority: {priority}\r\n\r\n")).await;
    client
}

async fn before(held: &Held, bulkhead: &str) -> Sidecar {
    Sidecar::start(&format!("services: {{a: {{static: ['{}'], bulkhead: {bulkhead}}}}}", held.addr())).await
}

async fn queued(sidecar: &Sidecar, n: u32) {
    eventually("the queue", async || sidecar.view("a").await.bulkhead.unwrap().queued == n).await;
}

#[tokio::test]
async fn the_least_important_are_shed_first() {
    let held = Held::start().await;
    let sidecar = before(&held, "10").await;
    let mut running = Vec::new();
    for n in 0..8 {
        running.push(asks(&sidecar, "/x", "low").await);
        held.has_read(n + 1).await;
    }
    let refused = asks(&sidecar, "/x", "low").await.reply().await;
    assert_eq!((refused.status, refused.reason().as_str()), (503, "bulkhead_full"));
    running.push(asks(&sidecar, "/x", "normal").await);
    held.has_read(9).await;
    assert_eq!(asks(&sidecar, "/x", "what").await.reply().await.status, 503, "an unknown word is normal");
    running.push(asks(&sidecar, "/x", "critical").await);
    held.has_read(10).await;
    assert_eq!(asks(&sidecar, "/x", "critical").await.reply().await.status, 503);
    let metrics = sidecar.metrics().await;
    let shed =
        |priority: &str| metrics[&format!("outrigger_bulkhead_shed_total{{priority=\"{priority}\",service=\"a\"}}")];
    assert_eq!((shed("low"), shed("normal"), shed("critical")), (1.0, 1.0, 1.0));
    held.release(10);
    for client in &mut running {
        assert_eq!(client.reply().await.status, 200);
    }
}

#[tokio::test]
async fn without_priorities_every_place_is_anybody_s() {
    let held = Held::start().await;
    let sidecar = before(&held, "10").await;
    let mut running = Vec::new();
    for n in 0..10 {
        let mut client = sidecar.client().await;
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        running.push(client);
        held.has_read(n + 1).await;
    }
    held.release(10);
    for client in &mut running {
        assert_eq!(client.reply().await.status, 200);
    }
}

#[tokio::test]
async fn who_matters_more_takes_the_place_in_the_queue_and_is_served_first() {
    let held = Held::start().await;
    let sidecar = before(&held, "{max: 1, queue: 2, wait: 20s}").await;
    let mut first = asks(&sidecar, "/x", "critical").await;
    held.has_read(1).await;
    let mut normal = asks(&sidecar, "/x", "normal").await;
    queued(&sidecar, 1).await;
    let mut low = asks(&sidecar, "/x", "low").await;
    queued(&sidecar, 2).await;
    let mut high = asks(&sidecar, "/x", "high").await;
    assert_eq!(low.reply().await.reason(), "bulkhead_full", "the least important gives up its place");
    queued(&sidecar, 2).await;
    held.release(1);
    assert_eq!(first.reply().await.status, 200);
    held.has_read(2).await;
    held.release(1);
    assert_eq!(high.reply().await.status, 200, "served before the one that has waited longer");
    held.has_read(3).await;
    held.release(1);
    assert_eq!(normal.reply().await.status, 200);
    sidecar.settles("a", &[("ok", 3), ("bulkhead_full", 1)]).await;
}

#[tokio::test]
async fn a_rule_of_the_operator_s_wins() {
    let held = Held::start().await;
    let sidecar = before(&held, "{max: 5, priorities: [{path: /batch, priority: low}]}").await;
    let mut running = Vec::new();
    for n in 0..4 {
        running.push(asks(&sidecar, "/batch/x", "critical").await);
        held.has_read(n + 1).await;
    }
    assert_eq!(asks(&sidecar, "/batch/x", "critical").await.reply().await.status, 503, "whatever it says of itself");
    running.push(asks(&sidecar, "/batches", "normal").await);
    held.has_read(5).await;
    held.release(5);
    for client in &mut running {
        assert_eq!(client.reply().await.status, 200);
    }
}

#[tokio::test]
async fn an_adaptive_limit_tells_how_it_stands() {
    let origin = Origin::answering(ok("x")).await;
    let sidecar = Sidecar::before(&origin, ", bulkhead: {max: 50, adaptive: {floor: 3}}").await;
    let mut client = sidecar.client().await;
    within("a first window", async {
        while sidecar.view("a").await.bulkhead.unwrap().adaptive.unwrap().latency_ms == 0.0 {
            assert_eq!(client.get("a", "/x", "").await.status, 200);
        }
    })
    .await;
    let view = sidecar.view("a").await.bulkhead.unwrap();
    let adaptive = view.adaptive.unwrap();
    assert_eq!((adaptive.floor, adaptive.ceiling), (3, 50));
    assert!(view.limit >= 3 && view.limit <= 50 && adaptive.long_term_ms > 0.0);
}
