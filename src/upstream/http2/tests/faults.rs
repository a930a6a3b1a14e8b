//! What an endpoint does wrong, or will not do, and what is told of it.

use std::io::ErrorKind;

use super::{raw::*, *};
use crate::model::Reason;

async fn failed(call: Begun) -> ExchangeError<Upload> {
    call.await.expect("no panic").map(|_| ()).expect_err("no answer")
}

#[test]
fn a_refused_stream_gives_back_what_is_left_of_its_body() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let (feed, upload) = Upload::fed();
        let call = begin(&trunk, post("/", upload));
        peer.request(1).await;
        peer.reset(1, 7).await;
        let error = failed(call).await;
        assert_eq!((error.reason, error.refused), (Some(Reason::UpstreamReset), true));
        assert_eq!(error.code, Some(h2::Reason::REFUSED_STREAM));
        let again = begin(&trunk, post("/", error.body.expect("it is given back")));
        peer.request(3).await;
        feed.send(Ok(Frame::data("x".into()))).await.expect("it is read");
        assert_eq!(peer.next().await.payload, b"x");
        peer.send(HEADERS, END_HEADERS | END_STREAM, 3, OK).await;
        again.await.expect("no panic").expect("an answer");
    });
}

#[test]
fn a_goaway_refuses_what_is_above_it_and_lets_finish_what_is_below() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let below = begin(&trunk, get("/"));
        let above = begin(&trunk, get("/"));
        let unsent = lease(&trunk);
        peer.request(1).await;
        peer.request(3).await;
        peer.go_away(1, 0).await;
        let error = failed(above).await;
        assert_eq!((error.reason, error.refused, error.code), (Some(Reason::UpstreamReset), true, None));
        assert!(error.body.is_some());
        assert!(trunk.lease(crate::upstream::now()).is_none(), "no new streams");
        let mut unsent = Connection::Http2(unsent);
        let error = unsent.exchange(get("/later")).await.expect_err("no new streams");
        assert_eq!(error.unsent.expect("it is whole").uri().path(), "/later");
        peer.send(HEADERS, END_HEADERS | END_STREAM, 1, OK).await;
        below.await.expect("no panic").expect("an answer");
        drop(unsent);
        peer.closed().await;
    });
}

#[test]
fn a_goaway_in_two_steps_loses_nothing() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        peer.go_away(u32::MAX >> 1, 0).await;
        settle().await;
        assert!(trunk.lease(crate::upstream::now()).is_none());
        peer.go_away(1, 0).await;
        peer.send(HEADERS, END_HEADERS | END_STREAM, 1, OK).await;
        call.await.expect("no panic").expect("an answer");
        peer.closed().await;
    });
}

#[test]
fn codes_of_resets_are_told() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        for (n, code) in (0..14).filter(|code| *code != 7).enumerate() {
            let id = 1 + 2 * u32::try_from(n).expect("small");
            let call = begin(&trunk, get("/"));
            peer.request(id).await;
            peer.reset(id, code).await;
            let error = failed(call).await;
            assert_eq!((error.reason, error.refused), (Some(Reason::UpstreamReset), false));
            assert_eq!(error.code, Some(h2::Reason::from(code)));
            assert!(error.body.is_none());
        }
    });
}

#[test]
fn a_reset_breaks_off_an_answer() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        peer.send(HEADERS, END_HEADERS, 1, OK).await;
        peer.send(DATA, 0, 1, b"half").await;
        peer.reset(1, 11).await;
        let (mut connection, mut payload) = call.await.expect("no panic").expect("a head");
        let error = read(&mut connection, &mut payload).await.expect_err("it is cut");
        assert_eq!((error.malformed, error.code), (false, Some(h2::Reason::ENHANCE_YOUR_CALM)));
        assert!(next(&mut connection, &mut payload).await.is_none());
    });
}

#[test]
fn a_reset_without_an_error_after_a_whole_answer_stops_the_upload_and_is_no_failure() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        for (id, apart) in [(1, false), (3, true)] {
            let (feed, upload) = Upload::fed();
            let call = begin(&trunk, post("/", upload));
            peer.request(id).await;
            peer.send(HEADERS, END_HEADERS, id, OK).await;
            peer.send(DATA, 0, id, b"no ").await;
            let (mut connection, mut payload) = call.await.expect("no panic").expect("a head");
            if apart {
                connection.detach();
                settle().await;
            }
            peer.send(DATA, END_STREAM, id, b"more").await;
            peer.reset(id, 0).await;
            assert_eq!(read(&mut connection, &mut payload).await.expect("it is whole").0, b"no more");
            settle().await;
            drop(connection);
            feed.closed().await;
        }
    });
}

#[test]
fn a_connection_that_ends_fails_its_calls_and_may_have_been_read() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        drop(peer);
        let error = failed(call).await;
        assert_eq!((error.reason, error.refused), (Some(Reason::UpstreamReset), false));
        assert!(!trunk.is_usable());
    });
}

#[test]
fn a_request_that_was_not_written_before_the_end_may_be_repeated() {
    run_paused(async {
        // The way is full with what the first call sends, and the peer reads nothing.
        let (trunk, mut peer) = Peer::across(256, &[]).await;
        let (feed, upload) = Upload::fed();
        feed.try_send(Ok(Frame::data(vec![0; 4096].into()))).expect("there is room");
        let first = begin(&trunk, post("/", upload));
        peer.request(1).await;
        settle().await;
        let second = begin(&trunk, get("/"));
        settle().await;
        drop(peer);
        assert!(!failed(first).await.refused, "some of it was read");
        let error = failed(second).await;
        assert_eq!((error.reason, error.refused), (Some(Reason::UpstreamReset), true));
        assert!(error.body.is_some());
    });
}

#[test]
fn a_body_that_fails_resets_the_stream_with_its_own_code() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        for (id, cause, code) in [(1, None, 8), (3, Some(h2::Error::from(h2::Reason::INTERNAL_ERROR)), 2)] {
            let (feed, upload) = Upload::fed();
            let call = begin(&trunk, post("/", upload));
            peer.request(id).await;
            feed.send(Err(Broken(cause))).await.expect("it is read");
            let error = failed(call).await;
            assert_eq!((error.reason, error.refused, error.code), (None, false, None));
            assert!(error.detail.starts_with("the app broke off"), "{}", error.detail);
            assert_eq!(peer.next().await.code(), code);
        }
    });
}

#[test]
fn a_detached_body_that_fails_breaks_off_the_answer() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let (feed, upload) = Upload::fed();
        let call = begin(&trunk, post("/", upload));
        peer.request(1).await;
        peer.send(HEADERS, END_HEADERS, 1, OK).await;
        let (mut connection, mut payload) = call.await.expect("no panic").expect("a head");
        connection.detach();
        feed.send(Err(Broken(None))).await.expect("it is read");
        let error = read(&mut connection, &mut payload).await.expect_err("it is cut");
        assert_eq!((error.malformed, error.code), (false, None));
        assert_eq!(peer.next().await.code(), 8);
    });
}

/// What comes of a connection whose peer says this at once.
async fn greeted(words: &'static [u8]) -> crate::net::tcp::DialError {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut peer = theirs;
    tokio::io::AsyncWriteExt::write_all(&mut peer, words).await.expect("there is room");
    tokio::io::AsyncWriteExt::shutdown(&mut peer).await.expect("it is open");
    let open = Open::new(nowhere(), Rc::default());
    Trunk::open(ours, open, Rc::new(Notify::new())).await.expect_err("that is no HTTP/2")
}

#[test]
fn a_peer_that_speaks_something_else_is_told_from_one_that_is_not_there() {
    use crate::net::tcp::DialError;
    run_paused(async {
        for words in [&b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"[..], b"HTTP/1.0 5"] {
            let error = greeted(words).await;
            let DialError::Protocol(detail) = error else { panic!("{error:?}") };
            assert_eq!(detail, "the endpoint does not speak HTTP/2: set `protocol: http1`");
        }
        let error = greeted(b"SSH-2.0-OpenSSH_9.9\r\n").await;
        assert!(matches!(error, DialError::Protocol(_)), "{error:?}");
        let error = greeted(b"").await;
        let DialError::Refused(error) = error else { panic!("{error:?}") };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}
