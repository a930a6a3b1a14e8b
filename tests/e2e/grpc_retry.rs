//! Retries, fallbacks and hedges of gRPC calls, and hedges of others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};

use crate::{
    grpc::{MESSAGE, status},
    support::{
        Origin, Sidecar, eventually, free,
        http2::{self, App, Stream},
        ok,
    },
};

fn call(path: &str) -> Request<()> {
    let request = Request::post(format!("http://a{path}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

/// An upstream whose first answers end with these codes: in the head alone, in trailers without a message, or after a
/// message, as the path says; later ones are good. Also how many calls it has had.
async fn failing_at_first(codes: &'static [&'static str]) -> (Origin, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let origin = http2::origin(move |mut stream: Stream| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let how = stream.request.uri().path().to_owned();
            assert_eq!(&stream.body().await[..], MESSAGE, "the message is whole each time");
            let code = codes.get(n).copied().unwrap_or("0");
            let mut trailers = status(code);
            if how == "/pushback" && code != "0" {
                trailers.insert("grpc-retry-pushback-ms", HeaderValue::from_static("-1"));
            }
            if how == "/only" && code != "0" {
                let mut response = head();
                response.headers_mut().extend(trailers);
                stream.respond.send_response(response, true).unwrap();
                return;
            }
            let mut down = stream.head(head());
            if code == "0" || how == "/late" {
                down.send_data(Bytes::from_static(MESSAGE), false).unwrap();
            }
            down.send_trailers(trailers).unwrap();
        }
    })
    .await;
    (origin, calls)
}

/// envoyproxy/envoy#11049, #17629, linkerd/linkerd2#7701: a grpc-status in trailers was never looked at for a retry.
#[tokio::test]
async fn a_code_in_trailers_is_retried_like_one_in_the_head() {
    for how in ["/only", "/trailers"] {
        let (origin, calls) = failing_at_first(&["14", "14"]).await;
        let sidecar = Sidecar::before(&origin, ", retry: {on: [unavailable], backoff: 0ms}").await;
        let reply = App::connect(sidecar.http()).await.call(call(how), MESSAGE).await;
        assert_eq!((&reply.body[..], reply.trailer("grpc-status")), (MESSAGE, Some("0")), "{how}");
        assert_eq!(calls.load(Ordering::SeqCst), 3, "{how}");
        sidecar.settles("a", &[("ok", 1)]).await;
    }
}

#[tokio::test]
async fn codes_that_are_not_named_and_messages_that_have_gone_are_final() {
    for (how, code, rest) in [
        ("/trailers", "14", ", retry: {backoff: 0ms}"),
        ("/trailers", "13", ", retry: {on: [unavailable], backoff: 0ms}"),
        ("/late", "14", ", retry: {on: [unavailable], backoff: 0ms}"),
        ("/pushback", "14", ", retry: {on: [unavailable], backoff: 0ms}"),
    ] {
        let codes: &'static [&'static str] = if code == "14" { &["14"] } else { &["13"] };
        let (origin, calls) = failing_at_first(codes).await;
        let sidecar = Sidecar::before(&origin, rest).await;
        let reply = App::connect(sidecar.http()).await.call(call(how), MESSAGE).await;
        assert_eq!((reply.trailer("grpc-status"), calls.load(Ordering::SeqCst)), (Some(code), 1), "{how} {rest}");
    }
}

/// envoyproxy/envoy#10184, #14484: a deadline was told as UNAVAILABLE, and so it was tried again.
#[tokio::test]
async fn a_deadline_is_a_deadline_and_no_reason_to_try_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let origin = http2::origin(move |mut stream: Stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let _ = stream.reset().await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, ", retry: {on: [unavailable], backoff: 0ms}").await;
    let mut request = call("/hang");
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("200m"));
    let reply = App::connect(sidecar.http()).await.call(request, MESSAGE).await;
    assert_eq!((reply.header("grpc-status"), calls.load(Ordering::SeqCst)), (Some("4"), 1));
}

#[tokio::test]
async fn a_message_or_a_status_is_given_instead() {
    for (grpc, body, code) in [
        ("grpc_message: CgNhYmM=", &b"\0\0\0\0\x05\x0a\x03abc"[..], "0"),
        ("grpc_status: not_found, grpc_detail: later", &b""[..], "5"),
    ] {
        let yaml = format!("services: {{a: {{static: ['{}'], fallback: [{{respond: {{{grpc}}}}}]}}}}", free());
        let sidecar = Sidecar::start(&yaml).await;
        let reply = App::connect(sidecar.http()).await.call(call("/x"), MESSAGE).await;
        let said = reply.trailer("grpc-status").or(reply.header("grpc-status"));
        assert_eq!((reply.status, &reply.body[..], said), (200, body, Some(code)), "{reply:?}");
        assert_eq!(reply.header("proxy-status"), Some("outrigger; fallback=respond; details=\"connect_refused\""));
    }
}

#[tokio::test]
async fn the_last_good_message_is_given_to_the_same_question() {
    let (origin, _) = failing_at_first(&[]).await;
    let sidecar = Sidecar::before(&origin, ", fallback: [{last_good: on}], timeout: {connect: 1s}").await;
    let app = App::connect(sidecar.http()).await;
    assert_eq!(app.call(call("/x"), MESSAGE).await.trailer("grpc-status"), Some("0"));
    drop(origin);
    let mut last = None;
    eventually("the endpoint to be gone", async || {
        app.call(call("/other"), MESSAGE).await.header("grpc-status") == Some("14")
    })
    .await;
    last.replace(app.call(call("/x"), MESSAGE).await);
    let reply = last.unwrap();
    assert_eq!((&reply.body[..], reply.trailer("grpc-status")), (MESSAGE, Some("0")), "{reply:?}");
    assert!(reply.header("proxy-status").unwrap().contains("fallback=last_good") && reply.header("age").is_some());
    let other = app.call(call("/x"), &b"\0\0\0\0\x01z"[..]).await;
    assert_eq!(other.header("grpc-status"), Some("14"), "another message is another question");
}

/// Answers at once, or never.
async fn pair() -> (Origin, Origin) {
    let slow = Origin::scripted(|mut exchange| async move { exchange.closed().await }).await;
    (slow, Origin::answering(ok("fast")).await)
}

#[tokio::test]
async fn a_hedge_answers_where_the_first_attempt_hangs() {
    let (slow, fast) = pair().await;
    let yaml = format!(
        "services: {{a: {{static: ['{}', '{}'], balance: round_robin, retry: on, hedge: 5ms, breaker: {{min_calls: 1, window: 1h, open_for: 1h}}}}}}",
        slow.addr(),
        fast.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    for _ in 0..6 {
        assert_eq!(sidecar.get("a", "/x").await.text(), "fast");
    }
    let metrics = sidecar.metrics().await;
    assert!(metrics["outrigger_retries_total{reason=\"hedge\",service=\"a\"}"] >= 1.0);
    assert_eq!(sidecar.view("a").await.breaker.unwrap().failures, 0, "the loser counts for nothing");
    eventually("the losers to be cut", async || sidecar.view("a").await.endpoints.iter().all(|e| e.in_flight == 0))
        .await;
}

#[tokio::test]
async fn what_may_not_be_sent_twice_is_not_hedged() {
    let (slow, fast) = pair().await;
    let yaml = format!(
        "workers: 1\nservices: {{a: {{static: ['{}', '{}'], balance: round_robin, hedge: 5ms, timeout: 300ms}}}}",
        slow.addr(),
        fast.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(sidecar.client().await.post("a", "/x", "order").await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
}
