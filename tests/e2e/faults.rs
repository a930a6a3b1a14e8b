//! What an endpoint may do wrong, and what the app is told then.

use crate::support::{Exchange, Origin, Reply, Sidecar, eventually, origin::ok};

/// One GET to an origin that answers with these bytes and closes.
async fn answered_with(bytes: impl AsRef<[u8]> + Clone + Send + Sync + 'static) -> (Reply, Sidecar) {
    let origin = Origin::scripted(move |mut exchange| {
        let bytes = bytes.clone();
        async move {
            exchange.request().await;
            exchange.send(bytes).await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let reply = sidecar.get("a", "/").await;
    eventually("the endpoint's connection to be gone", async || sidecar.open("a", "upstream").await == 0).await;
    (reply, sidecar)
}

#[tokio::test]
async fn answers_that_are_no_http() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101));
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(2 << 20));
    for bytes in [
        "garbage\r\n\r\n",
        "\0\x01\x02\x03\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        &many,
        &huge,
    ] {
        let (reply, sidecar) = answered_with(bytes.to_owned()).await;
        let shown = &bytes[..bytes.len().min(80)];
        assert_eq!((reply.status, reply.reason().as_str()), (502, "bad_response"), "{shown:?}");
        assert_eq!(sidecar.attempts("a", "bad_response").await, 1, "{shown:?}");
        sidecar.settles("a", &[("bad_response", 1)]).await;
    }
}

#[tokio::test]
async fn connections_that_end_before_the_head_does() {
    for bytes in
        ["", "H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", "HTTP/1.1 100 Continue\r\n\r\n"]
    {
        let (reply, sidecar) = answered_with(bytes).await;
        assert_eq!((reply.status, reply.reason().as_str()), (502, "upstream_reset"), "{bytes:?}");
        assert_eq!(sidecar.attempts("a", "upstream_reset").await, 1, "a fresh connection is not tried twice");
        sidecar.settles("a", &[("upstream_reset", 1)]).await;
    }
    for half in ["", "HTTP/1.1 200 OK\r\nx: "] {
        let origin = Origin::scripted(move |mut exchange: Exchange| async move {
            exchange.request().await;
            exchange.send(half).await;
            exchange.reset();
        })
        .await;
        let sidecar = Sidecar::before(&origin, "").await;
        assert_eq!(sidecar.get("a", "/").await.reason(), "upstream_reset");
        sidecar.settles("a", &[("upstream_reset", 1)]).await;
    }
}

#[tokio::test]
async fn a_connection_closed_without_a_look_at_the_request() {
    let origin = Origin::scripted(|_| async {}).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for n in 1..=5 {
        let reply = client.post("a", "/", "body").await;
        assert_eq!((reply.status, reply.reason().as_str()), (502, "upstream_reset"));
        sidecar.settles("a", &[("upstream_reset", n)]).await;
    }
}

#[tokio::test]
async fn bodies_cut_short_are_seen_as_such() {
    for (bytes, outcome) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "upstream_reset"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", "upstream_reset"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "upstream_reset"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc", "upstream_reset"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", "upstream_reset"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", "bad_response"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcX\r\n", "bad_response"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffffff\r\n", "bad_response"),
    ] {
        let (reply, sidecar) = answered_with(bytes).await;
        assert_eq!((reply.status, reply.complete), (200, false), "{bytes:?}");
        assert_eq!(sidecar.attempts("a", outcome).await, 1, "{bytes:?}");
        sidecar.settles("a", &[(outcome, 1)]).await;
    }
}

#[tokio::test]
async fn a_body_reset_in_its_middle() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |mut exchange| {
        let mut wait = wait.clone();
        async move {
            exchange.request().await;
            exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc").await;
            wait.wait_for(|go| *go).await.unwrap();
            exchange.reset();
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await.unwrap();
    assert_eq!(client.exactly(3).await, b"abc");
    go.send(true).unwrap();
    assert_eq!(client.closed().await, b"", "the app sees the cut");
    sidecar.settles("a", &[("upstream_reset", 1)]).await;
}

#[tokio::test]
async fn an_answer_before_the_request_was_read() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.send(ok("eager")).await;
        while exchange.request().await.is_some() {
            exchange.send(ok("eager")).await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    for _ in 0..20 {
        let reply = sidecar.get("a", "/").await;
        // Whether it comes before or after our request is a race: then it answers nothing, or it answers it.
        match reply.status {
            200 => assert_eq!(reply.text(), "eager"),
            502 => assert!(["bad_response", "upstream_reset"].contains(&reply.reason().as_str())),
            _ => panic!("{}{}", reply.head, reply.text()),
        }
    }
    eventually("everything to be given back", async || sidecar.is_quiet("a").await).await;
}

#[tokio::test]
async fn an_endpoint_that_never_answers_costs_a_time_out() {
    let origin = Origin::scripted(|mut exchange| async move { exchange.closed().await }).await;
    let sidecar = Sidecar::before(&origin, ", timeout: 50ms").await;
    let reply = sidecar.client().await.post("a", "/", "body").await;
    assert_eq!((reply.status, reply.reason().as_str()), (504, "request_timeout"));
    sidecar.settles("a", &[("request_timeout", 1)]).await;
    eventually("the endpoint's connection to be gone", async || sidecar.open("a", "upstream").await == 0).await;
}

#[tokio::test]
async fn an_endless_interim_answer_is_bounded_too() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        let many = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
        while tokio::io::AsyncWriteExt::write_all(&mut exchange.stream, many.as_bytes()).await.is_ok() {}
    })
    .await;
    let sidecar = Sidecar::before(&origin, ", timeout: 200ms").await;
    assert_eq!(sidecar.get("a", "/").await.reason(), "request_timeout");
    sidecar.settles("a", &[("request_timeout", 1)]).await;
}

#[tokio::test]
async fn an_upstreams_own_error_passes_unchanged() {
    let (reply, sidecar) =
        answered_with("HTTP/1.1 503 Busy\r\nretry-after: 3\r\nx-own: 1\r\ncontent-length: 4\r\n\r\nbusy").await;
    assert_eq!((reply.status, reply.text().as_str(), reply.header("proxy-status")), (503, "busy", None));
    assert_eq!((reply.header("retry-after"), reply.header("x-own")), (Some("3"), Some("1")));
    sidecar.settles("a", &[("upstream_error", 1)]).await;
}
