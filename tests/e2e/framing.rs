//! Where messages begin and end, and which headers pass.

use crate::support::{Client, Origin, Sidecar, origin::ok, within};

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;ext=\"a b\"\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            exchange.send(ok(&path)).await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    let mut all = String::new();
    for n in 0..50 {
        all += &match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
            _ => format!("GET /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        };
    }
    client.send(&all).await;
    for n in 0..50 {
        assert_eq!(client.reply().await.text(), format!("/{n}"));
    }
    assert_eq!(origin.connections(), 1);
    sidecar.settles("a", &[("ok", 50)]).await;
}

#[tokio::test]
async fn connection_close_is_for_one_side_alone() {
    let origin = Origin::ok("hi").await;
    let sidecar = Sidecar::before(&origin, "").await;
    for _ in 0..3 {
        let mut client = sidecar.client().await;
        let reply = client.get("a", "/", "Connection: close\r\n").await;
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        assert_eq!(client.closed().await, b"");
    }
    assert!(origin.connections() <= sidecar.view("a").await.endpoints.len() + 1, "one a worker at most");

    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi").await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for n in 1..=3 {
        let reply = client.get("a", "/", "").await;
        assert_eq!((reply.status, reply.text().as_str(), reply.header("connection")), (200, "hi", None));
        assert_eq!(origin.connections(), n);
    }
    sidecar.settles("a", &[("ok", 3)]).await;
}

#[tokio::test]
async fn http_1_0_apps() {
    let origin = Origin::ok("hi").await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    let reply = client.reply().await;
    assert!(reply.head.starts_with("HTTP/1.0 200 OK\r\n"), "{}", reply.head);
    assert_eq!((reply.text().as_str(), reply.header("connection")), ("hi", Some("keep-alive")));
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "hi");
    assert_eq!(client.closed().await, b"");

    let origin = Origin::answering(CHUNKED).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.text().as_str(), reply.header("transfer-encoding")), ("hello world", None), "{}", reply.head);
    assert_ne!(reply.header("connection"), Some("keep-alive"), "only the end of the connection ends this body");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn http_1_0_endpoints() {
    // It keeps the connection, and knows no chunks: a body of unknown length needs HTTP/1.1 and so a fresh one.
    let (origin, mut requests) =
        Origin::recording("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi").await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for _ in 0..2 {
        let reply = client.get("a", "/", "").await;
        assert!(reply.head.starts_with("HTTP/1.1 200"), "{}", reply.head);
        assert_eq!(reply.text(), "hi");
        assert!(requests.recv().await.unwrap().starts_with("GET / HTTP/1.1\r\n"));
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    let request = requests.recv().await.unwrap();
    assert!(request.contains("transfer-encoding: chunked"), "the body must not be lost: {request}");

    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for _ in 0..2 {
        let reply = client.get("a", "/", "").await;
        assert_eq!((reply.text().as_str(), reply.complete), ("until the end", true));
        assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    }
    sidecar.settles("a", &[("ok", 2)]).await;
}

#[tokio::test]
async fn answers_without_a_body() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            let answer = match request.split(' ').nth(1).unwrap() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\netag: \"x\"\r\n\r\n",
                "/304te" => "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n",
                "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n",
                "/headte" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                "/empty" => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            };
            exchange.send(answer).await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for _ in 0..2 {
        let reply = client.get("a", "/204", "").await;
        assert_eq!((reply.status, reply.header("content-length")), (204, None), "RFC 9110 §8.6");
        let reply = client.get("a", "/304", "").await;
        // hyper leaves out the Content-Length here, which RFC 9110 §15.4.5 makes optional.
        assert_eq!((reply.status, reply.header("etag")), (304, Some("\"x\"")));
        assert_eq!(client.get("a", "/304te", "").await.status, 304);
        client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let reply = client.reply_to_head().await;
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("1234")));
        client.send("HEAD /headte HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let reply = client.reply_to_head().await;
        assert_eq!((reply.status, reply.header("content-length")), (200, None));
        let reply = client.get("a", "/empty", "").await;
        assert_eq!((reply.text().as_str(), reply.header("content-length")), ("", Some("0")));
        let reply = client.get("a", "/emptyte", "").await;
        assert_eq!((reply.text().as_str(), reply.complete), ("", true));
    }
    assert_eq!(origin.connections(), 1);
    sidecar.settles("a", &[("ok", 14)]).await;
}

#[tokio::test]
async fn interim_answers_are_not_the_answer() {
    let answer =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".to_owned() + &ok("final");
    let origin = Origin::answering(answer).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for _ in 0..2 {
        assert_eq!(client.get("a", "/", "").await.text(), "final");
    }
    assert_eq!(origin.connections(), 1);
    sidecar.settles("a", &[("ok", 2)]).await;
}

/// Answers with the body that it got, however it was framed.
async fn echo() -> Origin {
    Origin::scripted(|mut exchange| async move {
        while let Some(head) = exchange.head().await {
            let head = head.to_ascii_lowercase();
            let body = if head.contains("transfer-encoding: chunked") {
                exchange.until(b"0\r\n\r\n").await.unwrap()
            } else {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                exchange.exactly(length.unwrap_or(0)).await.unwrap()
            };
            exchange.send(ok(&String::from_utf8(body).unwrap())).await;
        }
    })
    .await
}

#[tokio::test]
async fn chunked_requests() {
    let origin = echo().await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    for method in ["POST", "PUT", "GET", "DELETE", "OPTIONS", "PROPFIND"] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n");
        client.send(format!("{head}3;a=b;c=\"d\"\r\nabc\r\n0\r\n\r\n")).await;
        assert_eq!(client.reply().await.text(), "3\r\nabc\r\n0\r\n\r\n", "{method}");
        client.send(format!("{head}0\r\n\r\n")).await;
        assert_eq!(client.reply().await.text(), "0\r\n\r\n", "{method}, an empty body");
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")).await;
        assert_eq!(client.reply().await.text(), "abc", "{method}, of known length");
    }
    sidecar.settles("a", &[("ok", 18)]).await;
}

#[tokio::test]
async fn chunked_answers_arrive_piece_by_piece() {
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = std::sync::Arc::new(tokio::sync::Mutex::new(Some(wait)));
    let origin = Origin::scripted(move |mut exchange| {
        let wait = wait.clone();
        async move {
            exchange.request().await;
            exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;ext=\"a b\"\r\nhello\r\n").await;
            let wait = wait.lock().await.take().unwrap();
            wait.await.unwrap();
            exchange.send("6\r\n world\r\n0\r\n\r\n").await;
            exchange.closed().await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    within("the head", client.head()).await.unwrap();
    assert_eq!(client.exactly(10).await, b"5\r\nhello\r\n", "before the rest was written");
    go.send(()).unwrap();
    assert_eq!(client.exactly(16).await, b"6\r\n world\r\n0\r\n\r\n");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let origin = Origin::scripted(|mut exchange| async move {
        while let Some(head) = exchange.head().await {
            let body = exchange.until(b"\r\n\r\n").await.unwrap();
            let seen = head + &String::from_utf8(body).unwrap();
            let seen = seen.replace("\r\n", "|");
            let answer = format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-late\r\n\r\n{:x}\r\n{seen}\r\n0\r\nx-sum: 42\r\nX-Late: yes\r\n\r\n",
                seen.len()
            );
            exchange.send(answer).await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    let body = "Transfer-Encoding: chunked\r\nTrailer: x-up\r\n\r\n1\r\na\r\n0\r\nX-Up: done\r\n\r\n";
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n{body}")).await;
    let reply = client.reply().await;
    assert!(reply.text().contains("te: trailers|"), "{}", reply.text());
    assert!(reply.text().contains("connection: te|"), "{}", reply.text());
    assert!(reply.text().ends_with("1|a|0|x-up: done||"), "{}", reply.text());
    assert_eq!(reply.trailers, "x-sum: 42\r\nx-late: yes\r\n");
    // An app that did not say that it takes trailers gets the body, whole.
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}")).await;
    let reply = client.reply().await;
    assert_eq!((reply.complete, reply.trailers.as_str()), (true, ""));
    assert!(!reply.text().contains("te: trailers|"));
    sidecar.settles("a", &[("ok", 2)]).await;
}

#[tokio::test]
async fn headers_pass_but_those_of_the_hop() {
    let answer = "HTTP/1.1 200 Fine By Me\r\nSet-Cookie: a=1; Path=/\r\nX-One: 1\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\n\
                  Connection: keep-alive, X-Private\r\nX-Private: no\r\nX-Empty:\r\nX-Obs: \u{e9}\u{df}\r\nContent-Length: 2\r\n\r\nhi";
    let (origin, mut requests) = Origin::recording(answer).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    let lines = "X-Dup: 1\r\nAccept: */*\r\nX-Dup: 2\r\nConnection: close-not, X-Secret\r\nX-Secret: s\r\nKeep-Alive: 300\r\nProxy-Connection: x\r\n\
                 TE: gzip\r\nUpgrade: h2c\r\nX-Obs: \u{e9}\r\nX-Empty:\r\nX-Spaces: \t a  b \t\r\n";
    let reply = client.get("a", "/", lines).await;
    assert!(reply.head.starts_with("HTTP/1.1 200 Fine By Me\r\n"), "the reason phrase passes: {}", reply.head);
    let cookies: Vec<_> = reply.head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).collect();
    assert_eq!(cookies, ["a=1; Path=/", "b=2"]);
    for gone in ["keep-alive", "x-private", "connection"] {
        assert_eq!(reply.header(gone), None, "{}", reply.head);
    }
    assert_eq!((reply.header("x-obs"), reply.header("x-empty")), (Some("\u{e9}\u{df}"), Some("")));
    let request = requests.recv().await.unwrap();
    for there in [
        "x-dup: 1\r\nx-dup: 2\r\n",
        "accept: */*\r\n",
        "x-obs: \u{e9}\r\n",
        "x-empty: \r\n",
        "x-spaces: a  b\r\n",
        "via: 1.1 outrigger",
    ] {
        assert!(request.contains(there), "{there:?} in {request}");
    }
    for gone in ["x-secret", "keep-alive", "proxy-connection", "upgrade", "\r\nte:", "\r\nconnection:"] {
        assert!(!request.contains(gone), "{gone:?} in {request}");
    }
}

#[tokio::test]
async fn a_length_said_twice_is_passed_on_once() {
    let (origin, mut requests) =
        Origin::recording("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi").await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc").await;
    let reply = client.reply().await;
    if reply.status == 200 {
        let request = requests.recv().await.unwrap();
        assert_eq!(request.matches("content-length: 3\r\n").count(), 1, "RFC 9110 §8.6: {request}");
        assert_eq!(reply.head.matches("content-length: 2\r\n").count(), 1, "{}", reply.head);
    } else {
        assert_eq!(reply.reason(), "bad_request");
    }
}

#[tokio::test]
async fn the_services_port_frames_alike() {
    let origin = Origin::answering(CHUNKED).await;
    let sidecar = Sidecar::before(&origin, ", listen: '127.0.0.1:0'").await;
    let mut client = Client::connect(sidecar.port_of("a")).await;
    assert_eq!(client.get("anything", "/", "").await.text(), "hello world");
    assert_eq!(client.get("anything", "/", "").await.text(), "hello world");
    assert_eq!(origin.connections(), 1);
}
