//! A connection on which an app speaks HTTP/1, from its first byte to its last.

use std::{
    convert::Infallible,
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, StatusCode, header::CONNECTION};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    Failure, call,
    connection::{Control, Peer},
    local_reply,
    sniff::Rewound,
    wire::{Wire, WireState},
    worker::Worker,
};
use crate::{
    config::Limits,
    model::{Outcome, Reason},
    net::stream::Stream,
    telemetry::access_log::Record,
};

/// How long we listen to an app that still sends after its answer: to each of its pauses, and in all. These
/// are nginx's `lingering_timeout` and `lingering_time`. An app that writes all of a large upload before it
/// reads needs us to take it all.
const LINGER_PAUSE: Duration = Duration::from_secs(5);
const LINGER_LIMIT: Duration = Duration::from_secs(30);

/// Serves one connection until either side has had enough.
pub(super) async fn serve(worker: Rc<Worker>, control: Rc<Control>, stream: Rewound, peer: Peer, limits: Limits) {
    let state = WireState::new();
    let peer = Rc::new(Peer { wire: Some(state.clone()), ..peer });
    let open = peer.open.clone();
    let wire = Wire::new(stream, state.clone(), limits.header_bytes, limits.header_timeout);
    let service = service_fn({
        let (worker, control) = (worker.clone(), control.clone());
        move |request| {
            let (worker, control, peer) = (worker.clone(), control.clone(), peer.clone());
            async move {
                let _busy = control.busy();
                let mut answer = call::serve(&worker, &peer, request).await;
                if worker.is_stopping() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                    // The app learns in time to use another connection for its next call.
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(limits.header_bytes.max(8192)).header_read_timeout(None);
    if limits.headers != DEFAULT_MAX_HEADERS {
        builder.max_headers(limits.headers);
    }
    let ended = {
        let mut serving = pin!(builder.serve_connection(TokioIo::new(wire), service).with_upgrades());
        let mut graceful = false;
        poll_fn(|cx| {
            control.listen(cx);
            if control.is_finishing() && !std::mem::replace(&mut graceful, true) {
                serving.as_mut().graceful_shutdown();
            }
            serving.as_mut().poll(cx)
        })
        .await
    };
    drop(control);
    if let Some(stream) = state.take_stream() {
        // Counted as open until that is done.
        let _open = open;
        // Boxed, as its buffer would otherwise be carried along by every connection.
        Box::pin(close(&worker, stream, &state, ended.err())).await;
    }
}

/// hyper's own limit, for which it needs no allocation.
const DEFAULT_MAX_HEADERS: usize = 100;

/// Said of a head that is over one of its limits, whoever notices.
pub(super) const HEAD_TOO_LARGE: &str = "the request's head is over the limits of size or number";

/// Says what hyper could not say, and closes without losing it: a socket that is closed with bytes unread
/// is reset, and what was written before may never arrive.
async fn close(worker: &Worker, mut stream: Stream, state: &WireState, error: Option<hyper::Error>) {
    let failure = unreadable(state, error);
    if failure.is_none() && !state.upload_pending() {
        return;
    }
    if let Some(failure) = failure {
        worker.count_unattributed(Outcome::Failed(failure.reason));
        log(worker, &stream, &failure);
        if stream.write_all(&local_reply::raw(&failure)).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
    let _ = timeout(LINGER_LIMIT, async {
        let mut sink = [0; 8192];
        while let Ok(Ok(1..)) = timeout(LINGER_PAUSE, stream.read(&mut sink)).await {}
    })
    .await;
}

/// The access log's line about bytes that never became a call: nothing in them can be trusted to be a method, a
/// path or a host.
fn log(worker: &Worker, stream: &Stream, failure: &Failure) {
    let Some(log) = worker.table.current().traffic().access_log.clone() else { return };
    log.record(&Record {
        at: SystemTime::now(),
        service: None,
        method: &Method::from_bytes(b"-").expect("a hyphen is a token"),
        path: "",
        host: b"",
        status: Some(failure.reason.http_status().as_u16()),
        outcome: Outcome::Failed(failure.reason),
        details: Some(&failure.detail),
        duration: Duration::ZERO,
        attempts: 0,
        endpoint: None,
        bytes_in: 0,
        bytes_out: 0,
        peer: stream.tcp().peer_addr().ok(),
        request_id: None,
    });
}

/// What was wrong with bytes that never became a call.
fn unreadable(state: &WireState, error: Option<hyper::Error>) -> Option<Failure> {
    if state.head_timed_out() {
        return Some(Failure::new(Reason::BadRequest, "the request's head did not end within header_timeout"));
    }
    if error.as_ref().is_some_and(hyper::Error::is_parse_version_h2) {
        return Some(Failure::new(Reason::BadRequest, "the connection begins as HTTP/2 does, and goes on otherwise"));
    }
    if !state.kept_back() {
        return None;
    }
    let detail = match error {
        Some(error) if error.is_parse_too_large() => HEAD_TOO_LARGE.into(),
        Some(error) => format!("the request is not HTTP/1.1: {error}"),
        None => "the request is not HTTP/1.1".into(),
    };
    Some(Failure::new(Reason::BadRequest, detail))
}
