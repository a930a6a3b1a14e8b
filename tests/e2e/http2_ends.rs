//! How HTTP/2 connections end, on either side: orderly stops, refusals, GOAWAY, and calls sent once more.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use h2::Reason;
use http::Response;
use tokio::{
    io::AsyncWriteExt,
    sync::{Semaphore, mpsc},
};

use crate::support::{
    Exchange, Origin, Sidecar, eventually,
    http2::{self, App, Stream, answer, echo, get, post, try_answer},
    within,
};

/// An upstream that says when a stream has come, and answers it with `late` when it is let.
async fn late() -> (Origin, mpsc::Receiver<()>, Arc<Semaphore>) {
    let (arrivals, arrived) = mpsc::channel(64);
    let places = Arc::new(Semaphore::new(0));
    let origin = http2::origin({
        let places = places.clone();
        move |mut stream: Stream| {
            let (arrivals, places) = (arrivals.clone(), places.clone());
            async move {
                let mut down = stream.head(Response::new(()));
                arrivals.send(()).await.unwrap();
                places.acquire().await.unwrap().forget();
                let _ = down.send_data(Bytes::from_static(b"late"), true);
            }
        }
    })
    .await;
    (origin, arrived, places)
}

async fn refused(sidecar: &Sidecar) -> u64 {
    let name = "outrigger_retries_total{reason=\"refused\",service=\"a\"}";
    sidecar.metrics().await.get(name).copied().unwrap_or(0.0) as u64
}

#[tokio::test]
async fn a_stop_lets_streams_end_and_takes_no_more() {
    let (origin, mut arrived, places) = late().await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    let (response, _) = app.open(get("a", "/"), true).await;
    arrived.recv().await.unwrap();
    let stopping = tokio::spawn(sidecar.stop());
    // Until the GOAWAY is here, a further stream may still be opened; each is an exchange, which paces the loop.
    let mut more = 0;
    within("GOAWAY", async {
        loop {
            match app.try_open(get("nobody", "/"), true).await {
                Err(error) => break assert!(error.is_go_away() || error.is_io(), "{error:?}"),
                Ok((response, _)) => match try_answer(response).await {
                    Ok(_) => more += 1,
                    Err(error) => break assert!(error.is_go_away() || error.is_reset(), "{error:?} after {more}"),
                },
            }
        }
    })
    .await;
    assert!(!stopping.is_finished(), "it waits for the stream");
    places.add_permits(1);
    assert_eq!(answer(response).await.text(), "late");
    within("the stop", stopping).await.unwrap();
    app.closed().await.unwrap();
}

#[tokio::test]
async fn a_stop_that_has_waited_long_enough_cuts_streams_off() {
    let (origin, mut arrived, _places) = late().await;
    let sidecar =
        Sidecar::start(&format!("drain: {{for: 50ms}}\nservices: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    let app = App::connect(sidecar.http()).await;
    let (response, _) = app.open(get("a", "/"), true).await;
    arrived.recv().await.unwrap();
    within("the stop", sidecar.stop()).await;
    try_answer(response).await.expect_err("an answer that is not whole must not look so");
}

#[tokio::test]
async fn a_stream_that_was_refused_is_sent_again_with_its_body() {
    let seen = Arc::new(AtomicUsize::new(0));
    let origin = http2::origin({
        let seen = seen.clone();
        move |mut stream: Stream| {
            let first = seen.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                match first {
                    true => stream.respond.send_reset(Reason::REFUSED_STREAM),
                    false => echo(stream).await,
                }
            }
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let reply = App::connect(sidecar.http()).await.call(post("a", "/"), "the body").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "the body"));
    assert_eq!((seen.load(Ordering::SeqCst), refused(&sidecar).await), (2, 1));
    assert_eq!(sidecar.attempts("a", "ok").await, 1, "it is the same attempt");
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn a_stream_that_is_always_refused_is_not_sent_for_ever() {
    let seen = Arc::new(AtomicUsize::new(0));
    let origin = http2::origin({
        let seen = seen.clone();
        move |mut stream: Stream| {
            seen.fetch_add(1, Ordering::SeqCst);
            async move { stream.respond.send_reset(Reason::REFUSED_STREAM) }
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let reply = App::connect(sidecar.http()).await.call(post("a", "/"), "the body").await;
    assert_eq!((reply.status, reply.reason().as_str()), (502, "upstream_reset"));
    assert!(seen.load(Ordering::SeqCst) <= 3, "{seen:?}");
    sidecar.settles("a", &[("upstream_reset", 1)]).await;
}

/// Reads the preface and frames until one of the type HEADERS has come (RFC 9113 §4.1).
async fn until_headers(exchange: &mut Exchange) {
    exchange.exactly(24).await.unwrap();
    loop {
        let header = exchange.exactly(9).await.unwrap();
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        exchange.exactly(length).await.unwrap();
        if header[3] == 1 {
            return;
        }
    }
}

#[tokio::test]
async fn a_stream_that_a_goaway_leaves_out_is_sent_again_elsewhere() {
    let connections = Arc::new(AtomicUsize::new(0));
    let origin = Origin::scripted(move |mut exchange| {
        let first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if !first {
                return http2::serve(exchange.stream, Arc::new(echo)).await;
            }
            exchange.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
            until_headers(&mut exchange).await;
            // GOAWAY with last stream 0 and NO_ERROR (RFC 9113 §6.8).
            exchange.send([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await;
            exchange.stream.flush().await.unwrap();
            exchange.closed().await;
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    let reply = app.call(post("a", "/"), "the body").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "the body"));
    assert_eq!((origin.connections(), refused(&sidecar).await), (2, 1));
    sidecar.settles("a", &[("ok", 1)]).await;
    eventually("the first connection to go", async || sidecar.open("a", "upstream").await == 1).await;
}

#[tokio::test]
async fn an_app_that_is_gone_frees_what_its_streams_held() {
    let (origin, mut arrived, _places) = late().await;
    let sidecar = Sidecar::before(&origin, "").await;
    let app = App::connect(sidecar.http()).await;
    let (one, _up1) = app.open(get("a", "/"), true).await;
    let (two, _up2) = app.open(get("a", "/"), true).await;
    arrived.recv().await.unwrap();
    arrived.recv().await.unwrap();
    drop((one, two, _up1, _up2));
    app.closed().await.unwrap();
    sidecar.settles("a", &[("cancelled", 2)]).await;
    eventually("the app's connection to go", async || sidecar.open("", "downstream").await == 0).await;
}
