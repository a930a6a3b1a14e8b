//! HTTP/2 on either side: the four bridges, and streams that live and die alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use tokio::sync::{Semaphore, mpsc};

use crate::support::{
    Origin, Sidecar, eventually,
    http2::{self, App, Stream, answer, get, post},
    origin::ok,
    within,
};

/// An upstream of HTTP/2 that hands on the heads that it sees, and answers with 200.
async fn recording() -> (Origin, mpsc::Receiver<http::request::Parts>) {
    let (heads, seen) = mpsc::channel(64);
    let origin = http2::origin(move |mut stream: Stream| {
        let heads = heads.clone();
        async move {
            stream.body().await;
            stream.ok("fine");
            heads.send(stream.request.into_parts().0).await.unwrap();
        }
    })
    .await;
    (origin, seen)
}

/// An upstream that answers each stream when it is let, and tells how many wait.
async fn held() -> (Origin, Arc<AtomicUsize>, Arc<Semaphore>) {
    let (waiting, places) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let origin = http2::origin({
        let (waiting, places) = (waiting.clone(), places.clone());
        move |mut stream: Stream| {
            let (waiting, places) = (waiting.clone(), places.clone());
            async move {
                waiting.fetch_add(1, Ordering::SeqCst);
                places.acquire().await.unwrap().forget();
                stream.ok(stream.request.uri().path().to_owned());
            }
        }
    })
    .await;
    (origin, waiting, places)
}

async fn arrived(waiting: &AtomicUsize, n: usize) {
    eventually("streams to arrive", async || waiting.load(Ordering::SeqCst) >= n).await;
}

#[tokio::test]
async fn from_1_to_2_a_head_loses_what_speaks_of_a_connection() {
    let (origin, mut seen) = recording().await;
    let sidecar = Sidecar::before(&origin, ", protocol: http2").await;
    let lines = "Connection: keep-alive, x-gone\r\nX-Gone: 1\r\nX-Kept: 2\r\nTE: trailers\r\nCookie: a=1; b=2\r\n";
    let reply = sidecar.client().await.get("a", "/x?y=z", lines).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "fine"), "{}", reply.head);
    assert!(reply.head.starts_with("HTTP/1.1 200"), "{}", reply.head);
    let head = seen.recv().await.unwrap();
    assert_eq!((head.version, head.uri.to_string().as_str()), (Version::HTTP_2, "http://a/x?y=z"));
    for gone in ["connection", "x-gone", "keep-alive", "host", "transfer-encoding"] {
        assert!(!head.headers.contains_key(gone), "{gone} in {:?}", head.headers);
    }
    assert_eq!((&head.headers["x-kept"], &head.headers["te"]), (&"2".parse().unwrap(), &"trailers".parse().unwrap()));
    assert!(head.headers["via"].to_str().unwrap().starts_with("1.1 "), "{:?}", head.headers);
    let crumbs: Vec<_> = head.headers.get_all("cookie").iter().map(|crumb| crumb.to_str().unwrap()).collect();
    assert_eq!(crumbs.join("; "), "a=1; b=2");
}

#[tokio::test]
async fn from_2_to_1_authority_becomes_host_and_crumbs_one_cookie() {
    let (origin, mut seen) = Origin::recording(ok("fine")).await;
    let sidecar = Sidecar::before(&origin, ", protocol: http1").await;
    let app = App::connect(sidecar.http()).await;
    let mut request = get("a", "/x?y=z");
    request.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
    request.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
    let reply = app.call(request, "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "fine"));
    assert!(!reply.headers.contains_key("connection"), "{reply:?}");
    let head = seen.recv().await.unwrap();
    assert!(head.starts_with("GET /x?y=z HTTP/1.1\r\n"), "{head}");
    let lines: Vec<_> = head.lines().map(str::to_ascii_lowercase).collect();
    for line in ["host: a", "cookie: a=1; b=2"] {
        assert_eq!(lines.iter().filter(|found| *found == line).count(), 1, "{line} in {head}");
    }
    assert_eq!(lines.iter().filter(|line| line.starts_with("cookie:") || line.starts_with("host:")).count(), 2);
    assert!(lines.iter().any(|line| line.starts_with("via: 2 ")), "{head}");
    assert!(!lines.iter().any(|line| line.starts_with("transfer-encoding:")), "a GET has no body: {head}");
}

#[tokio::test]
async fn auto_speaks_as_the_app_does() {
    let (origin, mut seen) = recording().await;
    let sidecar = Sidecar::before(&origin, "").await;
    assert_eq!(App::connect(sidecar.http()).await.get("a", "/").await.text(), "fine");
    let head = seen.recv().await.unwrap();
    assert_eq!(head.uri.to_string(), "http://a/");
    assert!(head.headers["via"].to_str().unwrap().starts_with("2 "), "{:?}", head.headers);

    let (origin, mut seen) = Origin::recording(ok("fine")).await;
    let sidecar = Sidecar::before(&origin, "").await;
    assert_eq!(sidecar.get("a", "/").await.text(), "fine");
    assert!(seen.recv().await.unwrap().starts_with("GET / HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_mebibyte_goes_both_ways_over_each_bridge() {
    let body = "0123456789abcdef".repeat(65536);
    let echo1 = Origin::scripted(|mut exchange| async move {
        while let Some(request) = exchange.request().await {
            let (_, body) = request.split_once("\r\n\r\n").unwrap();
            exchange.send(ok(body)).await;
        }
    })
    .await;
    let echo2 = http2::origin(http2::echo).await;
    let yaml = format!(
        "services: {{one: {{static: ['{}'], protocol: http1}}, two: {{static: ['{}'], protocol: http2}}}}",
        echo1.addr(),
        echo2.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    for service in ["one", "two"] {
        let reply = sidecar.client().await.post(service, "/", &body).await;
        assert!(reply.complete && reply.text() == body, "1 to {service}: {} {}", reply.status, reply.body.len());
        let mut request = post(service, "/");
        request.headers_mut().insert("content-length", body.len().into());
        let reply = App::connect(sidecar.http()).await.call(request, body.clone()).await;
        assert!(reply.text() == body, "2 to {service}: {} {}", reply.status, reply.body.len());
        sidecar.settles(service, &[("ok", 2)]).await;
    }
}

#[tokio::test]
async fn a_body_without_a_length_crosses_from_1_to_2_and_back() {
    let origin = http2::origin(http2::echo).await;
    let sidecar = Sidecar::before(&origin, ", protocol: http2").await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    client.send("3\r\ndef\r\n0\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str(), reply.complete), (200, "abcdef", true));
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.get("a", "/", "").await.text(), "", "the connection goes on");
}

#[tokio::test]
async fn a_body_without_a_length_crosses_from_2_to_1_and_back() {
    let origin = Origin::scripted(|mut exchange| async move {
        let head = exchange.head().await.unwrap();
        assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
        exchange.until(b"0\r\n\r\n").await.unwrap();
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n").await;
        exchange.closed().await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, ", protocol: http1").await;
    let reply = App::connect(sidecar.http()).await.call(post("a", "/"), "abc").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "xyz"));
    assert!(!reply.headers.contains_key("transfer-encoding"), "{reply:?}");
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let origin = http2::origin(http2::echo).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    let mut request = post("a", "/");
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let (response, mut upload) = app.open(request, false).await;
    upload.send_data(Bytes::from_static(b"body"), false).unwrap();
    upload.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))])).unwrap();
    let reply = answer(response).await;
    assert_eq!((reply.text().as_str(), reply.trailer("x-sum")), ("body", Some("7")));
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let origin = http2::origin(|mut stream: Stream| async move {
        let status = if stream.request.method() == "HEAD" { 200 } else { 204 };
        let response = Response::builder().status(status);
        let response = if status == 200 { response.header("content-length", "7") } else { response };
        stream.respond.send_response(response.body(()).unwrap(), true).unwrap();
    })
    .await;
    let sidecar = Sidecar::before(&origin, ", protocol: http2").await;
    let app = App::connect(sidecar.http()).await;
    let reply = app.call(Request::head("http://a/").body(()).unwrap(), "").await;
    assert_eq!((reply.status, reply.header("content-length"), reply.head_only), (200, Some("7"), true));
    let reply = app.get("a", "/").await;
    assert_eq!((reply.status, reply.head_only), (204, true));
    let mut client = sidecar.client().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.reply_to_head().await.header("content-length"), Some("7"));
    assert_eq!(client.get("a", "/", "").await.status, 204, "the connection goes on");
    sidecar.settles("a", &[("ok", 4)]).await;
}

#[tokio::test]
async fn many_streams_share_a_connection_on_each_side() {
    let (origin, waiting, places) = held().await;
    let sidecar = Sidecar::start(&format!("workers: 1\nservices: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    let app = App::connect(sidecar.http()).await;
    let mut answers = Vec::new();
    for n in 0..64 {
        answers.push(app.open(get("a", &format!("/{n}")), true).await.0);
    }
    arrived(&waiting, 64).await;
    assert_eq!(origin.connections(), 1);
    places.add_permits(64);
    for (n, response) in answers.into_iter().enumerate() {
        assert_eq!(answer(response).await.text(), format!("/{n}"));
    }
    places.add_permits(5);
    for _ in 0..5 {
        assert_eq!(app.get("a", "/again").await.text(), "/again");
    }
    assert_eq!(origin.connections(), 1, "it is used again");
    sidecar.settles("a", &[("ok", 69)]).await;
}

#[tokio::test]
async fn what_is_refused_ends_its_own_stream_alone() {
    let origin = http2::origin(http2::echo).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    let reply = app.get("nobody", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (404, "unknown_service"));
    let mut crowded = get("a", "/");
    for n in 0..120 {
        let name = http::HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
        crowded.headers_mut().insert(name, HeaderValue::from_static("1"));
    }
    assert_eq!(app.call(crowded, "").await.reason(), "bad_request");
    let (response, _upload) = app.open(Request::connect("a:80").body(()).unwrap(), false).await;
    assert_eq!(answer(response).await.reason(), "bad_request");
    assert_eq!(app.get("a", "/").await.status, 200, "the connection goes on");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn extended_connect_is_not_offered() {
    let origin = http2::origin(http2::echo).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let (mut requests, connection) =
        h2::client::handshake(tokio::net::TcpStream::connect(sidecar.http()).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let (response, _) = requests.send_request(get("a", "/"), true).unwrap();
    assert_eq!(within("an answer", response).await.unwrap().status(), 200);
    assert!(!requests.is_extended_connect_protocol_enabled(), "RFC 8441 §3: nobody may ask for it then");
}

#[tokio::test]
async fn a_stream_that_the_app_resets_is_cancelled_upstream_at_once() {
    let (codes, mut code) = mpsc::channel(4);
    let (arrivals, mut arrival) = mpsc::channel(4);
    let origin = http2::origin(move |mut stream: Stream| {
        let (codes, arrivals) = (codes.clone(), arrivals.clone());
        async move {
            if stream.request.uri().path() == "/begun" {
                let mut down = stream.head(Response::new(()));
                down.send_data(Bytes::from_static(b"some"), false).unwrap();
                arrivals.send(()).await.unwrap();
                let reason = within("a reset", std::future::poll_fn(|cx| down.poll_reset(cx))).await;
                return codes.send(reason.unwrap()).await.unwrap();
            }
            arrivals.send(()).await.unwrap();
            codes.send(stream.reset().await).await.unwrap();
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    for path in ["/waiting", "/begun"] {
        let (response, mut upload) = app.open(post("a", path), false).await;
        arrival.recv().await.unwrap();
        let response = if path == "/begun" { Some(within("a head", response).await.unwrap()) } else { None };
        upload.send_reset(Reason::CANCEL);
        assert_eq!(within("a reset", code.recv()).await, Some(Reason::CANCEL), "{path}");
        drop(response);
    }
    sidecar.settles("a", &[("cancelled", 2)]).await;
    assert_eq!(sidecar.attempts("a", "cancelled").await, 2);
}

#[tokio::test]
async fn a_body_that_is_cut_ends_its_own_stream_alone() {
    let (origin, waiting, places) = held().await;
    let cut = Arc::new(Semaphore::new(0));
    let cutting = http2::origin({
        let cut = cut.clone();
        move |mut stream: Stream| {
            let cut = cut.clone();
            async move {
                let mut down = stream.head(Response::new(()));
                down.send_data(Bytes::from_static(b"some"), false).unwrap();
                // h2 forgets what it has not sent yet of a stream that it resets.
                cut.acquire().await.unwrap().forget();
                down.send_reset(Reason::INTERNAL_ERROR);
            }
        }
    })
    .await;
    let yaml = format!(
        "services: {{a: {{static: ['{}']}}, cut: {{static: ['{}'], protocol: http2}}}}",
        origin.addr(),
        cutting.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    let app = App::connect(sidecar.http()).await;
    let (other, _) = app.open(get("a", "/other"), true).await;
    arrived(&waiting, 1).await;
    let (response, _) = app.open(get("cut", "/"), true).await;
    let mut body = within("a head", response).await.unwrap().into_body();
    assert_eq!(&within("data", body.data()).await.unwrap().unwrap()[..], b"some");
    cut.add_permits(1);
    let error = within("the end", body.data()).await.unwrap().unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error:?}");
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: cut\r\n\r\n").await;
    client.head().await.unwrap();
    assert_eq!(client.exactly(9).await, b"4\r\nsome\r\n");
    cut.add_permits(1);
    assert_eq!(client.closed().await, b"", "a cut body does not look like a whole one");
    places.add_permits(1);
    assert_eq!(answer(other).await.text(), "/other");
    sidecar.settles("cut", &[("upstream_reset", 2)]).await;
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn bulkhead_and_deadline_hold_for_each_stream() {
    let (origin, waiting, places) = held().await;
    let yaml = format!(
        "services: {{full: {{static: ['{0}'], bulkhead: 1}}, late: {{static: ['{0}'], timeout: 1s}}}}",
        origin.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    let app = App::connect(sidecar.http()).await;
    let (first, _) = app.open(get("full", "/first"), true).await;
    arrived(&waiting, 1).await;
    let reply = app.get("full", "/second").await;
    assert_eq!((reply.status, reply.reason().as_str()), (503, "bulkhead_full"));
    let reply = app.get("late", "/").await;
    assert_eq!((reply.status, reply.reason().as_str()), (504, "request_timeout"));
    places.add_permits(2);
    assert_eq!(answer(first).await.text(), "/first", "the others go on");
    sidecar.settles("full", &[("ok", 1), ("bulkhead_full", 1)]).await;
    sidecar.settles("late", &[("request_timeout", 1)]).await;
}
