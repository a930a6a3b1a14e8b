//! What an app may send that is no request: a clear refusal, a counted reason, and nothing upstream.

use crate::support::{Client, Origin, Reply, Sidecar, eventually, within};

/// Sends bytes on a connection of their own; what comes must be a 400, and then the end.
async fn refused(sidecar: &Sidecar, bytes: &[u8]) -> Reply {
    let mut client = sidecar.client().await;
    client.send(bytes).await;
    let reply = client.reply().await;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
    assert_eq!((reply.status, reply.reason().as_str()), (400, "bad_request"), "{shown}");
    assert_eq!(reply.header("connection"), Some("close"), "{shown}");
    assert_eq!(client.closed().await, b"", "{shown}");
    reply
}

/// The sidecar serves on, nothing is held, and so many requests were refused.
async fn unharmed(sidecar: &Sidecar, origin: &Origin, refusals: u64) {
    assert_eq!(origin.requests(), 0, "nothing malformed goes upstream");
    assert_eq!(sidecar.get("a", "/").await.status, 200);
    assert_eq!(sidecar.calls("", "bad_request").await, refusals);
    sidecar.settles("a", &[("ok", 1)]).await;
    eventually("the apps' connections to be gone", async || sidecar.open("", "downstream").await == 0).await;
}

#[tokio::test]
async fn bytes_that_are_no_request() {
    let origin = Origin::ok("hi").await;
    let sidecar = Sidecar::before(&origin, "").await;
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x8f\r\n\r\n";
    let all: &[&[u8]] = &[
        client_hello,
        b"PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n",
        b"\0\0\0\0\0\0\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: nameless\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: nul\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: bare\rcr\r\n\r\n",
        b"GET path HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for bytes in all {
        refused(&sidecar, bytes).await;
    }
    unharmed(&sidecar, &origin, all.len() as u64).await;
}

#[tokio::test]
async fn framing_that_two_parsers_may_read_in_two_ways() {
    let origin = Origin::ok("hi").await;
    let sidecar = Sidecar::before(&origin, "").await;
    let all = [
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "content-length: 4\r\nX: y\r\ntransfer-encoding:chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 4 4\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length: 18446744073709551615\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
    ];
    for lines in all {
        refused(&sidecar, format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n4\r\nabcd\r\n0\r\n\r\n").as_bytes()).await;
    }
    refused(&sidecar, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    unharmed(&sidecar, &origin, all.len() as u64 + 1).await;
}

#[tokio::test]
async fn a_conflict_is_found_in_whatever_pieces_it_comes() {
    let origin = Origin::ok("hi").await;
    let sidecar = Sidecar::before(&origin, "").await;
    let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut refusals = 0;
    for cut in (1..text.len() - 5).step_by(3) {
        let mut client = sidecar.client().await;
        client.send(&text[..cut]).await;
        // An exchange in between gives the first piece the time to arrive on its own.
        sidecar.view("a").await;
        client.send(&text[cut..]).await;
        assert_eq!(client.reply().await.reason(), "bad_request", "cut at {cut}");
        client.closed().await;
        refusals += 1;
    }
    unharmed(&sidecar, &origin, refusals).await;
}

#[tokio::test]
async fn garbage_behind_a_good_call() {
    let origin = Origin::ok("hi").await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n\x01\x02garbage\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "hi");
    assert_eq!(client.reply().await.reason(), "bad_request");
    assert_eq!(client.closed().await, b"");
    assert_eq!(sidecar.calls("", "bad_request").await, 1);
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn heads_over_the_limits() {
    let origin = Origin::ok("hi").await;
    let sidecar = Sidecar::before(&origin, "").await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70 * 1024));
    assert!(refused(&sidecar, long.as_bytes()).await.text().contains("limits"));
    let wide = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70 * 1024));
    assert!(refused(&sidecar, wide.as_bytes()).await.text().contains("limits"));
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(1024 * 1024));
    refused(&sidecar, endless.as_bytes()).await;
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert!(refused(&sidecar, many.as_bytes()).await.text().contains("limits"));
    assert_eq!(sidecar.calls("", "bad_request").await, 4);
    let mut client = sidecar.client().await;
    let below = format!("X: {}\r\n{}", "x".repeat(60 * 1024), "X: y\r\n".repeat(98));
    assert_eq!(client.get("a", "/", &below).await.status, 200, "just under both");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn limits_can_be_set() {
    let origin = Origin::ok("hi").await;
    let yaml =
        format!("limits: {{headers: 3, header_bytes: 8KiB}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let mut client = sidecar.client().await;
    assert_eq!(client.get("a", "/", "X: 1\r\nY: 2\r\n").await.status, 200);
    assert_eq!(client.get("a", "/", "X: 1\r\nY: 2\r\nZ: 3\r\n").await.reason(), "bad_request");
    let mut client = sidecar.client().await;
    assert_eq!(client.get("a", "/", &format!("X: {}\r\n", "x".repeat(9000))).await.reason(), "bad_request");
}

#[tokio::test]
async fn a_head_that_does_not_end() {
    let origin = Origin::ok("hi").await;
    let yaml = format!("limits: {{header_timeout: 100ms}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    for bytes in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: y"] {
        refused(&sidecar, bytes.as_bytes()).await;
    }
    // The same as the second request of a connection.
    let mut client = sidecar.client().await;
    assert_eq!(client.get("a", "/", "").await.status, 200);
    client.send("GET / HT").await;
    assert_eq!(client.reply().await.reason(), "bad_request");
    client.closed().await;
    assert_eq!(sidecar.calls("", "bad_request").await, 4);
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_left_alone() {
    let origin = Origin::ok("hi").await;
    let yaml = format!("limits: {{header_timeout: 100ms}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let (mut silent, mut empty, mut slow) = (sidecar.client().await, sidecar.client().await, sidecar.client().await);
    empty.send("\r\n").await;
    slow.send("GET").await;
    // By the time that the slow one is refused, the others have been silent for longer.
    assert_eq!(slow.reply().await.reason(), "bad_request");
    assert_eq!(silent.get("a", "/", "").await.status, 200);
    assert_eq!(empty.get("a", "/", "").await.status, 200);
}

#[tokio::test]
async fn bodies_that_break_their_framing() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.head().await;
        exchange.closed().await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bodies =
        ["zz\r\n", "3\r\nabcX\r\n", "-1\r\n", "fffffffffffffffffffff\r\n", "3 \n\r\n", "\r\n", "0\r\nno colon\r\n\r\n"];
    for body in bodies {
        let mut client = sidecar.client().await;
        client.send(format!("{chunked}{body}")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.reason().as_str()), (400, "bad_request"), "{body:?}");
        client.closed().await;
    }
    sidecar.settles("a", &[("bad_request", bodies.len() as u64)]).await;
    assert_eq!(sidecar.attempts("a", "cancelled").await, bodies.len() as u64, "no fault of the endpoint's");
}

#[tokio::test]
async fn an_endless_trailer_section_is_bounded() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.head().await;
        exchange.closed().await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n").await;
    // It may be cut off in the middle of this.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, "X: y\r\n".repeat(100_000).as_bytes()).await;
    within("an end", client.closed()).await;
    sidecar.settles("a", &[("bad_request", 1)]).await;
}

#[tokio::test]
async fn a_malformed_call_disturbs_no_other() {
    let origin = Origin::ok("hi").await;
    let sidecar = Sidecar::start(&format!("workers: 1\nservices: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    let mut good = sidecar.client().await;
    for n in 0..50_u64 {
        let mut bad = Client::connect(sidecar.http()).await;
        bad.send(b"\x80\x80\r\n\r\n").await;
        assert_eq!(good.get("a", "/", "").await.text(), "hi", "call {n}");
        assert_eq!(bad.reply().await.reason(), "bad_request");
    }
    assert_eq!((origin.connections(), origin.requests()), (1, 50));
    sidecar.settles("a", &[("ok", 50)]).await;
}
