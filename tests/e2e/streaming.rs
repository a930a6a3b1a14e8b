//! Bodies: whole, in both directions at once, at the pace of the slower side, and in bounded memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Client, Exchange, Origin, Sidecar, eventually, origin::ok, within};

const MIB: usize = 1 << 20;

/// The resident memory of this process, in bytes: sidecar, origin and client together.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Writes zeroes until it has written `n`, or the peer is gone; counts them.
async fn pour(exchange: &mut Exchange, n: usize, poured: &AtomicUsize) {
    let block = vec![0; 64 * 1024];
    let mut left = n;
    while left > 0 {
        let Ok(written) = exchange.stream.write(&block[..left.min(block.len())]).await else { return };
        poured.fetch_add(written, Ordering::SeqCst);
        left -= written;
    }
}

/// An origin that answers everything with a body of `n` bytes, and how many it got rid of.
async fn pouring(n: usize) -> (Origin, Arc<AtomicUsize>) {
    let poured = Arc::new(AtomicUsize::new(0));
    let origin = Origin::scripted({
        let poured = poured.clone();
        move |mut exchange| {
            let poured = poured.clone();
            async move {
                while exchange.request().await.is_some() {
                    exchange.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {n}\r\n\r\n")).await;
                    pour(&mut exchange, n, &poured).await;
                }
            }
        }
    })
    .await;
    (origin, poured)
}

/// Waits until a count stands still: it has the same value over many exchanges with the sidecar.
async fn stands_still(sidecar: &Sidecar, count: &AtomicUsize) -> usize {
    let (mut last, mut same) = (0, 0);
    within("a count to stand still", async {
        while same < 50 {
            sidecar.view("a").await;
            let now = count.load(Ordering::SeqCst);
            same = if now == last && now > 0 { same + 1 } else { 0 };
            last = now;
        }
    })
    .await;
    last
}

#[tokio::test]
async fn a_large_answer_goes_at_the_readers_pace() {
    let (origin, poured) = pouring(256 * MIB).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    let before = resident();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    within("the head", client.head()).await.unwrap();
    let stalled = stands_still(&sidecar, &poured).await;
    assert!(stalled < 32 * MIB, "{stalled} bytes were taken from the origin while nobody read");
    assert!(!sidecar.is_quiet("a").await, "the call is still outstanding");
    let (mut seen, mut block, mut most) = (client.take_buffered().len(), vec![0; 256 * 1024], 0);
    while seen < 256 * MIB {
        let n = within("more of the body", client.stream.read(&mut block)).await.unwrap();
        assert!(n > 0, "the body ended at {seen}");
        seen += n;
        most = most.max(resident().saturating_sub(before));
    }
    assert_eq!(seen, 256 * MIB);
    assert!(most < 100 * MIB, "memory grew by {most}");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn a_large_upload_goes_at_the_endpoints_pace() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |mut exchange| {
        let mut wait = wait.clone();
        async move {
            exchange.head().await;
            wait.wait_for(|go| *go).await.unwrap();
            let (mut seen, mut block) = (exchange.take_buffered().len(), vec![0; 256 * 1024]);
            while seen < 128 * MIB {
                match exchange.stream.read(&mut block).await {
                    Ok(n @ 1..) => seen += n,
                    _ => return,
                }
            }
            exchange.send(ok(&seen.to_string())).await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, ", timeout: {request: 60s}").await;
    let client = sidecar.client().await;
    let (mut from, mut to) = client.stream.into_split();
    let poured = Arc::new(AtomicUsize::new(0));
    let pouring = tokio::spawn({
        let poured = poured.clone();
        async move {
            let head =
                format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", 128 * MIB);
            to.write_all(head.as_bytes()).await.unwrap();
            let block = vec![0; 64 * 1024];
            for _ in 0..128 * MIB / block.len() {
                to.write_all(&block).await.unwrap();
                poured.fetch_add(block.len(), Ordering::SeqCst);
            }
            to
        }
    });
    let stalled = stands_still(&sidecar, &poured).await;
    assert!(stalled < 32 * MIB, "{stalled} bytes were taken from the app while the endpoint read none");
    go.send(true).unwrap();
    let _to = within("the upload", pouring).await.unwrap();
    let mut answer = String::new();
    within("the answer", from.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with(&(128 * MIB).to_string()), "{answer}");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn both_directions_at_once() {
    // Each chunk that goes up comes down before the next is sent.
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.head().await;
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for _ in 0..100 {
            let Some(chunk) = exchange.exactly(8).await else { return };
            exchange.send(chunk).await;
        }
        exchange.until(b"0\r\n\r\n").await;
        exchange.send("0\r\n\r\n").await;
        exchange.closed().await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    within("the head", client.head()).await.unwrap();
    for n in 0..100 {
        let chunk = format!("3\r\n{n:03}\r\n");
        client.send(&chunk).await;
        assert_eq!(client.exactly(8).await, chunk.as_bytes());
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.exactly(5).await, b"0\r\n\r\n");
    sidecar.settles("a", &[("ok", 1)]).await;
}

const TOO_LARGE: &str = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nno!";

/// An origin that says 413 to every head, and then what `after` does.
async fn refusing<F, Fut>(after: F) -> Origin
where
    F: Fn(Exchange) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Origin::scripted(move |mut exchange| {
        let after = after.clone();
        async move {
            exchange.head().await;
            exchange.send(TOO_LARGE).await;
            after(exchange).await;
        }
    })
    .await
}

/// Sends 50 MB, all of it before reading anything, and reads the answer then.
async fn upload_then_read(sidecar: &Sidecar) {
    let mut client = sidecar.client().await;
    let length = 50_000_000;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")).await;
    let block = vec![0; 100_000];
    for _ in 0..length / block.len() {
        within("the upload to be taken", client.stream.write_all(&block)).await.unwrap();
    }
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (413, "no!"));
}

#[tokio::test]
async fn an_early_answer_from_an_endpoint_that_closes() {
    let origin = refusing(|_| async {}).await;
    let sidecar = Sidecar::before(&origin, "").await;
    upload_then_read(&sidecar).await;
    eventually("every connection to go", async || sidecar.open("", "downstream").await == 0).await;
    eventually("every connection to go", async || sidecar.open("a", "upstream").await == 0).await;
    assert!(sidecar.is_quiet("a").await);
}

#[tokio::test]
async fn an_early_answer_from_an_endpoint_that_stops_reading() {
    let origin = refusing(|exchange| async move {
        std::future::pending::<()>().await;
        drop(exchange);
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    upload_then_read(&sidecar).await;
    eventually("every connection to go", async || sidecar.open("", "downstream").await == 0).await;
    eventually("every connection to go", async || sidecar.open("a", "upstream").await == 0).await;
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn an_early_answer_from_an_endpoint_that_reads_on() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(head) = exchange.head().await {
            exchange.send(TOO_LARGE).await;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap();
            if exchange.exactly(length).await.is_none() {
                return;
            }
        }
    })
    .await;
    let sidecar = Sidecar::start(&format!("workers: 1\nservices: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    let mut client = sidecar.client().await;
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n").await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 413, "before a byte of the body was sent: {}", reply.text());
        client.send(vec![0; 300_000]).await;
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 413, "both connections live on");
    sidecar.settles("a", &[("ok", 4)]).await;
}

#[tokio::test]
async fn an_app_that_goes_away_before_its_answer() {
    let (closed, mut seen) = tokio::sync::mpsc::channel(8);
    let origin = Origin::scripted(move |mut exchange| {
        let closed = closed.clone();
        async move {
            exchange.request().await;
            exchange.closed().await;
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let requests = ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"];
    for (n, request) in requests.iter().enumerate() {
        let mut client = sidecar.client().await;
        client.send(request).await;
        eventually("the request to be there", async || origin.requests() == n + 1).await;
        drop(client);
        within("the endpoint's connection to be closed", seen.recv()).await.unwrap();
    }
    eventually("both attempts to be counted", async || sidecar.attempts("a", "cancelled").await == 2).await;
    sidecar.settles("a", &[("cancelled", 2)]).await;
    eventually("every connection to go", async || sidecar.open("", "downstream").await == 0).await;
}

#[tokio::test]
async fn an_app_that_closes_its_sending_side_has_gone_away() {
    // As with Envoy and nginx: one that only closes half looks the same as one that has left.
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.closed().await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the request to be there", async || origin.requests() == 1).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.closed().await, b"");
    sidecar.settles("a", &[("cancelled", 1)]).await;

    // In the middle of its body it is told so.
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    eventually("the request to be there", async || origin.requests() == 2).await;
    client.stream.shutdown().await.unwrap();
    if let Some(reply) = within("an end", client.try_reply(false)).await {
        assert_eq!(reply.reason(), "bad_request");
    }
    sidecar.settles("a", &[("cancelled", 2)]).await;
}

#[tokio::test]
async fn an_app_that_goes_away_in_the_middle() {
    // In its own body.
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.head().await;
        exchange.closed().await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    for (n, framing) in
        ["Content-Length: 100\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"].iter().enumerate()
    {
        let mut client = sidecar.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        eventually("the request to be there", async || origin.requests() == n + 1).await;
        drop(client);
        eventually("the endpoint's connection to go", async || sidecar.open("a", "upstream").await == 0).await;
    }
    sidecar.settles("a", &[("cancelled", 2)]).await;

    // In its answer's.
    let (origin, _) = pouring(64 * MIB).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.exactly(100_000).await;
    drop(client);
    sidecar.settles("a", &[("cancelled", 1)]).await;
    eventually("every connection to go", async || sidecar.open("a", "upstream").await == 0).await;
    eventually("every connection to go", async || sidecar.open("", "downstream").await == 0).await;
}

#[tokio::test]
async fn an_app_that_breaks_its_body_while_the_answer_comes() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.head().await;
        exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc").await;
        exchange.closed().await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    within("the head", client.head()).await.unwrap();
    client.send("not hex\r\n").await;
    client.closed().await;
    assert_eq!(sidecar.attempts("a", "cancelled").await, 1, "no fault of the endpoint's");
    sidecar.settles("a", &[("bad_request", 1)]).await;
}

#[tokio::test]
async fn stalled_readers_do_not_hold_up_others() {
    let (origin, poured) = pouring(64 * MIB).await;
    let quick = Origin::ok("quick").await;
    let services = format!("{{a: {{static: ['{}']}}, b: {{static: ['{}']}}}}", origin.addr(), quick.addr());
    let sidecar = Sidecar::start(&format!("workers: 1\nservices: {services}")).await;
    let before = resident();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut client = sidecar.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        stalled.push(client);
    }
    stands_still(&sidecar, &poured).await;
    let mut client: Client = sidecar.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("b", "/", "").await.text(), "quick");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 20 * 5 * MIB, "{grown} bytes for 20 stalled calls");
    drop(stalled);
    sidecar.settles("a", &[("cancelled", 20)]).await;
}
