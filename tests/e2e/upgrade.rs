//! WebSocket and the like: what begins as HTTP and goes on as bytes.

use tokio::io::AsyncWriteExt;

use crate::support::{Client, Exchange, Origin, Sidecar, eventually, within};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

/// Changes protocols, and then does what `then` says.
async fn switching<F, Fut>(then: F) -> Origin
where
    F: Fn(Exchange) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Origin::scripted(move |mut exchange| {
        let then = then.clone();
        async move {
            let request = exchange.request().await.unwrap().to_ascii_lowercase();
            assert!(
                request.contains("connection: upgrade\r\n") && request.contains("upgrade: websocket\r\n"),
                "{request}"
            );
            exchange.send(SWITCH).await;
            then(exchange).await;
        }
    })
    .await
}

async fn echo(mut exchange: Exchange) {
    while let Some(bytes) = exchange.some().await {
        exchange.send(bytes).await;
    }
}

async fn tunnel(sidecar: &Sidecar) -> Client {
    let mut client = sidecar.client().await;
    client.send(ASK).await;
    let head = within("the head", client.head()).await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
    for line in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: x\r\n"] {
        assert!(head.contains(line), "{line} in {head}");
    }
    client
}

#[tokio::test]
async fn bytes_go_both_ways() {
    let origin = switching(echo).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = tunnel(&sidecar).await;
    for n in 0..100 {
        let text = format!("message {n:03}\r\n\r\n\0");
        client.send(&text).await;
        assert_eq!(client.exactly(text.len()).await, text.as_bytes());
    }
    assert!(!sidecar.is_quiet("a").await, "a tunnel stays in its bulkhead");
    assert_eq!(sidecar.attempts("a", "ok").await, 0, "its attempt keeps its place at the endpoint, too");
    assert_eq!((sidecar.open("", "downstream").await, sidecar.open("a", "upstream").await), (1, 1), "tunnels count");
    drop(client);
    eventually("the tunnel to end", async || sidecar.is_quiet("a").await).await;
    assert_eq!(sidecar.attempts("a", "ok").await, 1);
    eventually("every connection to go", async || sidecar.open("", "downstream").await == 0).await;
    eventually("every connection to go", async || sidecar.open("a", "upstream").await == 0).await;
}

#[tokio::test]
async fn bytes_that_come_with_the_heads_are_not_lost() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send(format!("{SWITCH}early")).await;
        echo(exchange).await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send(format!("{ASK}eager")).await;
    within("the head", client.head()).await.unwrap();
    assert_eq!(client.exactly(10).await, b"earlyeager");
}

#[tokio::test]
async fn a_half_closed_tunnel_carries_the_other_half() {
    let origin = switching(|mut exchange| async move {
        exchange.closed().await;
        exchange.send("the last word").await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = tunnel(&sidecar).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.closed().await, b"the last word");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn a_silent_tunnel_ends() {
    let origin = switching(echo).await;
    let sidecar = Sidecar::before(&origin, ", timeout: {tunnel: 500ms}").await;
    let mut client = tunnel(&sidecar).await;
    client.send("x").await;
    assert_eq!(client.closed().await, b"x");
    sidecar.settles("a", &[("request_timeout", 1)]).await;
    eventually("every connection to go", async || sidecar.open("", "downstream").await == 0).await;
}

#[tokio::test]
async fn a_tunnel_is_bound_by_no_deadline_of_calls() {
    let origin = switching(echo).await;
    let sidecar = Sidecar::before(&origin, ", timeout: {request: 300ms, idle: 300ms, total: 300ms}").await;
    let slow = Origin::scripted(|mut exchange| async move { exchange.closed().await }).await;
    let clock = Sidecar::before(&slow, ", timeout: 500ms").await;
    let mut client = tunnel(&sidecar).await;
    assert_eq!(clock.get("a", "/").await.status, 504, "so much time has passed");
    client.send("still here").await;
    assert_eq!(client.exactly(10).await, b"still here");
}

#[tokio::test]
async fn a_large_transfer_through_a_tunnel() {
    let origin = switching(echo).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let client = tunnel(&sidecar).await;
    let (mut from, mut to) = client.stream.into_split();
    let sent: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
            to
        }
    });
    let mut back = Vec::new();
    within("all of it", tokio::io::AsyncReadExt::read_to_end(&mut from, &mut back)).await.unwrap();
    assert!(back == sent, "{} bytes came back of {}", back.len(), sent.len());
    sending.await.unwrap();
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn an_endpoint_may_decline() {
    // As Apache does, which advertises h2c on every answer.
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2,h2c\r\nContent-Length: 5\r\n\r\nplain",
    )
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for _ in 0..3 {
        client.send(ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.text().as_str(), reply.header("upgrade")), (200, "plain", None));
    }
    assert_eq!(client.get("a", "/", "").await.text(), "plain");
    assert_eq!(origin.connections(), 1);
    sidecar.settles("a", &[("ok", 4)]).await;
}

#[tokio::test]
async fn what_an_endpoint_does_wrong_is_told() {
    for answer in
        ["HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n"]
    {
        let origin = Origin::answering(answer).await;
        let sidecar = Sidecar::before(&origin, "").await;
        let mut client = sidecar.client().await;
        client.send(ASK).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.reason().as_str()), (502, "bad_response"));
        sidecar.settles("a", &[("bad_response", 1)]).await;
    }
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send(ASK).await;
    assert_eq!(client.reply().await.reason(), "upstream_reset");
    assert_eq!(client.get("a", "/", "").await.reason(), "upstream_reset", "the connection lives on");
}

#[tokio::test]
async fn an_endpoint_that_breaks_the_tunnel_ends_it() {
    let origin = switching(|mut exchange| async move {
        exchange.some().await;
        exchange.reset();
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = tunnel(&sidecar).await;
    client.send("x").await;
    assert_eq!(client.closed().await, b"");
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
    eventually("every connection to go", async || sidecar.open("", "downstream").await == 0).await;
    eventually("every connection to go", async || sidecar.open("a", "upstream").await == 0).await;
}

#[tokio::test]
async fn an_app_that_leaves_with_its_101() {
    let origin = switching(echo).await;
    let sidecar = Sidecar::before(&origin, "").await;
    for n in 1..=10 {
        let mut client = sidecar.client().await;
        client.send(ASK).await;
        eventually("the request to be there", async || origin.requests() == n).await;
        drop(client);
    }
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
    eventually("every connection to go", async || sidecar.open("a", "upstream").await == 0).await;
}
