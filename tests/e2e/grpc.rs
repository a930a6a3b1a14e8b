//! gRPC end to end: outcomes that stand in trailers, deadlines, and failures in gRPC's own words.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::sync::mpsc;

use crate::support::{
    Origin, Sidecar, free,
    http2::{self, Answer, App, Stream, answer},
    within,
};

/// A message of gRPC's: not compressed, three bytes long.
pub(crate) const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";

/// A call of gRPC's.
fn call(host: &str, path: &str) -> Request<()> {
    let request = Request::post(format!("http://{host}{path}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

fn timed(host: &str, path: &str, timeout: &'static str) -> Request<()> {
    let mut request = call(host, path);
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static(timeout));
    request
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

pub(crate) fn status(code: &str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_str(code).unwrap())])
}

/// An upstream that does what the path says: `/trailers/CODE`, `/only/CODE`, `/reset/CODE`, `/begin` (a message
/// and then nothing), `/cut` (a reset after the upload's end), anything else (nothing at all).
pub(crate) async fn serve(mut stream: Stream) {
    let path = stream.request.uri().path().to_owned();
    let (what, code) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    match what {
        "trailers" => {
            stream.body().await;
            let mut down = stream.head(head());
            down.send_data(Bytes::from_static(MESSAGE), false).unwrap();
            down.send_trailers(status(code)).unwrap();
        }
        "only" => {
            let mut response = head();
            response.headers_mut().extend(status(code));
            stream.respond.send_response(response, true).unwrap();
        }
        "reset" => stream.respond.send_reset(Reason::from(code.parse::<u32>().unwrap())),
        "begin" | "cut" => {
            let mut down = stream.head(head());
            down.send_data(Bytes::from_static(MESSAGE), false).unwrap();
            stream.body().await;
            match what {
                "cut" => down.send_reset(Reason::INTERNAL_ERROR),
                _ => drop(within("a reset", std::future::poll_fn(|cx| down.poll_reset(cx))).await),
            }
        }
        _ => drop(stream.reset().await),
    }
}

/// The code of a local reply: trailers-only, which is one frame (`doc/PROTOCOL-HTTP2.md`).
fn trailers_only(answer: &Answer) -> &str {
    assert_eq!((answer.status, answer.head_only, &answer.trailers), (200, true, &None), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    assert!(answer.header("proxy-status").is_some_and(|status| status.starts_with("outrigger; error=")));
    assert!(answer.header("grpc-message").is_some_and(|message| !message.contains('%')), "{answer:?}");
    answer.header("grpc-status").unwrap()
}

/// `grpc-timeout` as a time.
fn duration(value: &str) -> Duration {
    let (digits, unit) = value.split_at(value.len() - 1);
    assert!((1..=8).contains(&digits.len()), "{value}");
    let n: u64 = digits.parse().unwrap();
    match unit {
        "n" => Duration::from_nanos(n),
        "u" => Duration::from_micros(n),
        "m" => Duration::from_millis(n),
        "S" => Duration::from_secs(n),
        "M" => Duration::from_secs(60 * n),
        "H" => Duration::from_secs(3600 * n),
        unit => panic!("{unit} is no unit"),
    }
}

#[tokio::test]
async fn the_status_is_the_outcome_wherever_it_stands() {
    let origin = http2::origin(serve).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    for code in ["0", "5", "14"] {
        let reply = app.call(call("a", &format!("/trailers/{code}")), MESSAGE).await;
        assert_eq!((reply.status, &reply.body[..], reply.trailer("grpc-status")), (200, MESSAGE, Some(code)));
        let reply = app.call(call("a", &format!("/only/{code}")), MESSAGE).await;
        assert_eq!((reply.status, reply.head_only, reply.header("grpc-status")), (200, true, Some(code)));
        assert!(!reply.headers.contains_key("proxy-status"), "an upstream's own word passes as it is");
    }
    sidecar.settles("a", &[("ok", 4), ("upstream_error", 2)]).await;
}

#[tokio::test]
async fn codes_in_trailers_open_the_breaker() {
    let origin = http2::origin(serve).await;
    let sidecar = Sidecar::before(&origin, ", breaker: {min_calls: 4, open_for: 1h}").await;
    let app = App::connect(sidecar.http()).await;
    for _ in 0..8 {
        // Codes that speak of the request leave it closed.
        assert_eq!(app.call(call("a", "/trailers/5"), MESSAGE).await.trailer("grpc-status"), Some("5"));
    }
    for _ in 0..8 {
        assert_eq!(app.call(call("a", "/trailers/14"), MESSAGE).await.trailer("grpc-status"), Some("14"));
    }
    let reply = app.call(call("a", "/trailers/0"), MESSAGE).await;
    assert_eq!(trailers_only(&reply), "14");
    assert!(reply.header("proxy-status").unwrap().contains("breaker_open"));
    assert!(reply.header("retry-after").is_some());
    sidecar.settles("a", &[("ok", 8), ("upstream_error", 8), ("breaker_open", 1)]).await;
}

#[tokio::test]
async fn what_remains_of_the_time_goes_upstream_and_none_is_made_up() {
    let (timeouts, mut seen) = mpsc::channel(16);
    let origin = http2::origin(move |mut stream: Stream| {
        let timeouts = timeouts.clone();
        async move {
            let value = stream.request.headers().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
            stream.respond.send_response(head(), false).unwrap().send_trailers(status("0")).unwrap();
            timeouts.send(value).await.unwrap();
        }
    })
    .await;
    let yaml =
        format!("services: {{a: {{static: ['{0}']}}, b: {{static: ['{0}'], timeout: {{total: 30s}}}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let app = App::connect(sidecar.http()).await;
    app.call(call("a", "/"), "").await;
    assert_eq!(seen.recv().await.unwrap(), None);
    for (service, written, most) in [("a", "20S", 20), ("a", "99999999H", u64::MAX), ("b", "20S", 20), ("b", "1H", 30)]
    {
        app.call(timed(service, "/", written), "").await;
        let value = duration(&seen.recv().await.unwrap().unwrap());
        assert!(value <= Duration::from_secs(most) && value > Duration::ZERO, "{service}: {written} became {value:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_a_deadline_exceeded() {
    let origin = http2::origin(serve).await;
    let yaml = format!("services: {{a: {{static: ['{0}']}}, b: {{static: ['{0}'], timeout: 1s}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let app = App::connect(sidecar.http()).await;
    assert_eq!(trailers_only(&app.call(timed("a", "/hang", "1000m"), MESSAGE).await), "4", "the caller's limit");
    assert_eq!(trailers_only(&app.call(call("b", "/hang"), MESSAGE).await), "4", "the service's own");
    sidecar.settles("a", &[("request_timeout", 1)]).await;
    sidecar.settles("b", &[("request_timeout", 1)]).await;
}

#[tokio::test]
async fn a_deadline_in_the_middle_ends_with_trailers() {
    let origin = http2::origin(serve).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    let reply = app.call(timed("a", "/begin", "1500m"), MESSAGE).await;
    assert_eq!((&reply.body[..], reply.trailer("grpc-status")), (MESSAGE, Some("4")), "{reply:?}");
    sidecar.settles("a", &[("request_timeout", 1)]).await;
}

#[tokio::test]
async fn a_reset_in_the_middle_passes_as_it_is() {
    let origin = http2::origin(serve).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    let (response, mut upload) = app.open(call("a", "/cut"), false).await;
    let mut body = within("a head", response).await.unwrap().into_body();
    assert_eq!(&within("a message", body.data()).await.unwrap().unwrap()[..], MESSAGE);
    upload.send_data(Bytes::new(), true).unwrap();
    let error = within("the end", body.data()).await.unwrap().unwrap_err();
    assert_eq!((error.is_reset(), error.reason()), (true, Some(Reason::INTERNAL_ERROR)), "{error:?}");
    sidecar.settles("a", &[("upstream_reset", 1)]).await;
}

#[tokio::test]
async fn an_endpoint_that_dies_in_the_middle_is_unavailable() {
    let (die, dying) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |exchange| {
        let mut dying = dying.clone();
        async move {
            tokio::select! {
                () = http2::serve(exchange.stream, std::sync::Arc::new(serve)) => {}
                _ = dying.wait_for(|die| *die) => {}
            }
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    let (response, _upload) = app.open(call("a", "/begin"), false).await;
    let mut body = within("a head", response).await.unwrap().into_body();
    assert_eq!(&within("a message", body.data()).await.unwrap().unwrap()[..], MESSAGE);
    die.send(true).unwrap();
    assert!(within("the end", body.data()).await.is_none());
    assert_eq!(body.trailers().await.unwrap().expect("trailers")["grpc-status"], "14");
    sidecar.settles("a", &[("upstream_reset", 1)]).await;
}

#[tokio::test]
async fn a_reset_before_the_head_is_told_by_its_code() {
    let origin = http2::origin(serve).await;
    let sidecar = Sidecar::before(&origin, ", breaker: off").await;
    let app = App::connect(sidecar.http()).await;
    for (reason, code) in [
        (Reason::REFUSED_STREAM, "14"),
        (Reason::CANCEL, "1"),
        (Reason::ENHANCE_YOUR_CALM, "8"),
        (Reason::INADEQUATE_SECURITY, "7"),
        (Reason::INTERNAL_ERROR, "13"),
    ] {
        let reply = app.call(call("a", &format!("/reset/{}", u32::from(reason))), MESSAGE).await;
        assert_eq!(trailers_only(&reply), code, "{reason:?}");
    }
    sidecar.settles("a", &[("upstream_reset", 5)]).await;
}

#[tokio::test]
async fn every_local_reply_is_trailers_only() {
    let origin = http2::origin(serve).await;
    let gone = free();
    let yaml =
        format!("services: {{full: {{static: ['{}'], bulkhead: 1}}, gone: {{static: ['{gone}']}}}}", origin.addr());
    let sidecar = Sidecar::start(&yaml).await;
    let app = App::connect(sidecar.http()).await;
    let (first, upload) = app.open(call("full", "/begin"), false).await;
    let first = within("a head", first).await.unwrap();
    assert_eq!(trailers_only(&app.call(call("full", "/only/0"), MESSAGE).await), "8");
    assert_eq!(trailers_only(&app.call(call("gone", "/"), MESSAGE).await), "14");
    assert_eq!(trailers_only(&app.call(call("nobody", "/"), MESSAGE).await), "12");
    drop((first, upload));
    sidecar.settles("full", &[("cancelled", 1), ("bulkhead_full", 1)]).await;
    sidecar.settles("gone", &[("connect_refused", 1)]).await;
}

#[tokio::test]
async fn messages_go_both_ways_by_turns() {
    let origin = http2::origin(|mut stream: Stream| async move {
        let mut down = stream.head(head());
        while let Some(Ok(data)) = stream.request.body_mut().data().await {
            let _ = stream.request.body_mut().flow_control().release_capacity(data.len());
            down.send_data(data, false).unwrap();
        }
        down.send_trailers(status("0")).unwrap();
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    let (response, mut upload) = app.open(call("a", "/chat"), false).await;
    let mut body = within("a head before any message", response).await.unwrap().into_body();
    for _ in 0..10 {
        upload.send_data(Bytes::from_static(MESSAGE), false).unwrap();
        assert_eq!(&within("an echo", body.data()).await.unwrap().unwrap()[..], MESSAGE);
    }
    upload.send_data(Bytes::new(), true).unwrap();
    assert!(within("the end", body.data()).await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn an_answer_of_plain_http_passes_and_counts_by_the_table() {
    let origin = http2::origin(|mut stream: Stream| async move {
        let response = Response::builder().status(503).header("content-type", "text/html").body(()).unwrap();
        stream.head(response).send_data(Bytes::from_static(b"busy"), true).unwrap();
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    let (response, _) = app.open(call("a", "/"), true).await;
    let reply = answer(response).await;
    assert_eq!((reply.status, reply.text().as_str()), (503, "busy"));
    sidecar.settles("a", &[("upstream_error", 1)]).await;
}
