//! One request, one answer: heads, payloads and trailers, both ways.

use http::{HeaderMap, HeaderValue, StatusCode};

use super::*;
use crate::upstream::{OnContinue, Version};

/// Answers with what it was sent, piece by piece, and with the trailers of the request.
fn echo() -> Handler {
    handler(|mut asked| async move {
        let mut stream = asked.respond.send_response(Response::new(()), false).expect("it is open");
        let mut body = asked.request.into_body();
        while let Some(Ok(piece)) = body.data().await {
            let _ = body.flow_control().release_capacity(piece.len());
            stream.send_data(piece, false).expect("it is open");
        }
        let trailers = body.trailers().await.expect("whole").unwrap_or_default();
        stream.send_trailers(trailers).expect("it is open");
    })
}

#[test]
fn a_request_without_a_body_ends_with_its_head() {
    run(async {
        let target = endpoint(
            h2::server::Builder::new(),
            handler(|asked| async move {
                assert!(asked.request.body().is_end_stream());
                assert_eq!(asked.request.uri().path(), "/x");
                asked.answer("hello");
            }),
        )
        .await;
        let upstreams = Upstreams::<Upload>::new();
        let mut connection = connect(&upstreams, &target).await;
        assert_eq!(connection.version(), Version::Http2);
        let (head, mut payload) = connection.exchange(get("/x")).await.expect("an answer").into_parts();
        assert_eq!((head.status, head.version), (StatusCode::OK, http::Version::HTTP_2));
        assert_eq!(read(&mut connection, &mut payload).await.expect("whole").0, b"hello");
        assert!(payload.is_end_stream() && payload.size_hint().exact() == Some(0));
    });
}

#[test]
fn both_ways_flow_at_the_same_time_once_the_upload_is_detached() {
    run_paused(async {
        let trunk = trunk(h2::server::Builder::new(), echo()).await;
        let mut connection = Connection::Http2(lease(&trunk));
        let (feed, upload) = Upload::fed();
        let (_, mut payload) = connection.exchange(post("/", upload)).await.expect("a head").into_parts();
        connection.detach();
        for word in ["one", "two", "three"] {
            feed.send(Ok(Frame::data(word.into()))).await.expect("it is read");
            let frame = next(&mut connection, &mut payload).await.expect("more").expect("whole");
            assert_eq!(frame.into_data().expect("data"), word);
        }
        let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
        feed.send(Ok(Frame::trailers(trailers.clone()))).await.expect("it is read");
        assert_eq!(read(&mut connection, &mut payload).await.expect("whole"), (vec![], Some(trailers)));
    });
}

#[test]
fn an_upload_goes_out_while_its_answer_is_waited_for() {
    run_paused(async {
        let sum = handler(|mut asked| async move {
            let mut body = asked.request.into_body();
            let mut total = 0;
            while let Some(Ok(piece)) = body.data().await {
                total += piece.len();
                let _ = body.flow_control().release_capacity(piece.len());
            }
            let head = Response::builder().header("total", total).body(()).expect("good");
            asked.respond.send_response(head, true).expect("it is open");
        });
        let trunk = trunk(h2::server::Builder::new(), sum).await;
        let mut stream = lease(&trunk);
        let (feed, upload) = Upload::fed();
        spawn_local(async move {
            for _ in 0..64 {
                feed.send(Ok(Frame::data(Bytes::from(vec![7; 20_000])))).await.expect("it is read");
            }
        });
        let response = stream.exchange(post("/", upload)).await.expect("an answer");
        assert_eq!(response.headers()["total"], "1280000");
        assert!(response.body().is_end_stream());
    });
}

#[test]
fn how_much_is_to_come_is_known_from_the_head() {
    run_paused(async {
        let answer = handler(|mut asked| async move {
            let head = Response::builder().header("content-length", 9).body(()).expect("good");
            let mut stream = asked.respond.send_response(head, false).expect("it is open");
            stream.send_data("four".into(), false).expect("it is open");
            stream.send_data("more!".into(), true).expect("it is open");
        });
        let trunk = trunk(h2::server::Builder::new(), answer).await;
        let mut connection = Connection::Http2(lease(&trunk));
        let mut payload = connection.exchange(get("/")).await.expect("a head").into_body();
        assert_eq!(payload.size_hint().exact(), Some(9));
        next(&mut connection, &mut payload).await.expect("more").expect("whole");
        assert_eq!(payload.size_hint().exact(), Some(5));
    });
}

#[test]
fn an_interim_answer_opens_what_waits_for_it_and_others_pass() {
    run_paused(async {
        let answer = handler(|mut asked| async move {
            for status in [103, 100] {
                let interim = Response::builder().status(status).body(()).expect("good");
                asked.respond.send_informational(interim).expect("it is open");
            }
            let body = asked.request.body_mut();
            assert_eq!(body.data().await.expect("some").expect("whole"), "late");
            asked.answer("thanks");
        });
        let trunk = trunk(h2::server::Builder::new(), answer).await;
        let (feed, upload) = Upload::fed();
        let mut request = post("/", upload);
        let feed = std::sync::Mutex::new(Some(feed));
        request.extensions_mut().insert(OnContinue::new(move || {
            let feed = feed.lock().expect("nobody panicked").take().expect("it is said once");
            feed.try_send(Ok(Frame::data("late".into()))).expect("there is room");
        }));
        assert_eq!(call(&trunk, request).await.expect("an answer"), b"thanks");
    });
}

#[test]
fn an_upload_that_is_still_under_way_goes_on_when_its_connection_is_given_back() {
    run(async {
        let (told, mut hears) = mpsc::channel(1);
        let target = endpoint(
            h2::server::Builder::new(),
            handler(move |mut asked| {
                let told = told.clone();
                async move {
                    let mut body = asked.request.into_body();
                    asked.respond.send_response(Response::new(()), true).expect("it is open");
                    let piece = body.data().await.expect("some").expect("whole");
                    let rest = body.data().await;
                    let ended = rest.is_none_or(|rest| rest.is_ok_and(|rest| rest.is_empty()));
                    told.send((piece, ended)).await.expect("the test waits");
                }
            }),
        )
        .await;
        let upstreams = Upstreams::<Upload>::new();
        let mut connection = connect(&upstreams, &target).await;
        let (feed, upload) = Upload::fed();
        let response = connection.exchange(post("/", upload)).await.expect("an answer");
        assert!(response.body().is_end_stream());
        upstreams.give_back(connection, crate::upstream::now());
        feed.send(Ok(Frame::data("rest".into()))).await.expect("it is read");
        drop(feed);
        assert_eq!(hears.recv().await, Some(("rest".into(), true)));
    });
}

#[test]
fn a_head_that_cannot_be_sent_is_told_and_harms_nobody() {
    run_paused(async {
        let trunk = trunk(h2::server::Builder::new(), numbered()).await;
        let mut request = get("/");
        request.headers_mut().insert("connection", HeaderValue::from_static("close"));
        let error = call(&trunk, request).await.expect_err("it cannot be sent");
        assert_eq!((error.reason, error.refused), (None, false));
        assert!(error.detail.contains("cannot be sent over HTTP/2"), "{}", error.detail);
        assert_eq!(call(&trunk, get("/")).await.expect("an answer"), b"0");
    });
}
