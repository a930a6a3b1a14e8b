//! Peers that break the protocol, and peers that flood: bounded, and told.

use super::{raw::*, *};
use crate::model::Reason;

/// What a call is told whose peer says this instead of an answer.
async fn answered_with(bytes: Vec<u8>) -> ExchangeError<Upload> {
    let (trunk, mut peer) = Peer::plain().await;
    let call = begin(&trunk, get("/"));
    peer.request(1).await;
    peer.raw(&bytes).await;
    let reading = spawn_local(async move { peer.closed().await });
    let told = call.await.expect("no panic");
    reading.abort();
    match told {
        Err(error) => error,
        Ok((mut connection, mut payload)) => {
            let error = read(&mut connection, &mut payload).await.expect_err("that is no answer");
            let reason = if error.malformed { Reason::BadResponse } else { Reason::UpstreamReset };
            ExchangeError { reason: Some(reason), detail: error.detail, ..ExchangeError::default() }
        }
    }
}

#[test]
fn an_endpoint_that_breaks_the_protocol_is_told_from_one_that_resets() {
    let head = |flags, block: &[u8]| frame(HEADERS, flags, 1, block);
    let ok = head(END_HEADERS, OK);
    let with = |more: Vec<u8>| [ok.clone(), more].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no status", head(END_HEADERS | END_STREAM, b"\x00\x01a\x01b")),
        ("a name in upper case", head(END_HEADERS, b"\x88\x00\x01A\x01b")),
        ("a field of HTTP/1's connections", head(END_HEADERS, b"\x88\x00\x0aconnection\x05close")),
        ("no HPACK", head(END_HEADERS, &[0xff; 40])),
        ("an index out of the table", head(END_HEADERS, &[0xfe])),
        ("data before a head", frame(DATA, 0, 1, b"x")),
        ("data on a stream that was never opened", frame(DATA, 0, 9, b"x")),
        ("data on stream 0", frame(DATA, 0, 0, b"x")),
        (
            "less than was announced",
            [head(END_HEADERS, b"\x88\x0f\x0d\x019"), frame(DATA, END_STREAM, 1, b"x")].concat(),
        ),
        ("too much", [head(END_HEADERS, b"\x88\x0f\x0d\x011"), frame(DATA, END_STREAM, 1, b"xx")].concat()),
        ("a second head without an end", with(ok.clone())),
        ("a frame that is too long", frame(DATA, 0, 1, &[0; 16_385])),
        ("a PING of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("SETTINGS of five", frame(SETTINGS, 0, 0, &[0; 5])),
        ("an ACK of nothing", frame(SETTINGS, ACK, 0, &[])),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &(u32::MAX >> 1).to_be_bytes())),
        ("a window of nothing more", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a push", frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x82")),
        ("a CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, OK)),
        ("something between the parts of a head", [head(0, OK), frame(PING, 0, 0, &[0; 8])].concat()),
        ("padding longer than its frame", frame(DATA, 8, 1, b"\x09x")),
        ("a GOAWAY that takes back the last", [goaway(1), goaway(3)].concat()),
        ("an initial window that is too wide", frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW_SIZE, u32::MAX))),
        ("bytes of something else", vec![b'x'; 100]),
    ];
    for (name, bytes) in cases {
        run_paused(async move {
            let error = answered_with(bytes).await;
            assert_eq!((error.reason, error.refused), (Some(Reason::BadResponse), false), "{name}: {error:?}");
        });
    }
}

#[test]
fn a_window_that_overflows_ends_its_stream() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let (_feed, upload) = Upload::fed();
        let call = begin(&trunk, post("/", upload));
        peer.request(1).await;
        peer.send(WINDOW_UPDATE, 0, 1, &(u32::MAX >> 1).to_be_bytes()).await;
        let error = call.await.expect("no panic").map(|_| ()).expect_err("that is no answer");
        assert_eq!((error.reason, error.refused), (Some(Reason::BadResponse), false), "{error:?}");
        assert_eq!(peer.next().await.code(), 3, "FLOW_CONTROL_ERROR");
        drop(lease(&trunk));
    });
}

fn goaway(last: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

#[test]
fn a_head_that_never_ends_and_one_that_is_too_long_are_refused() {
    let filler = [b"\x00\x01a\x7f\x81\x7e".as_slice(), &[b'x'; 256]].concat();
    run_paused(async move {
        let part = frame(CONTINUATION, 0, 1, &[]);
        let endless = [frame(HEADERS, 0, 1, OK), part.repeat(1000)].concat();
        assert_eq!(answered_with(endless).await.reason, Some(Reason::BadResponse));
        let mut long = frame(HEADERS, 0, 1, OK);
        for _ in 0..300 {
            long.extend(frame(CONTINUATION, 0, 1, &filler));
        }
        assert_eq!(answered_with(long).await.reason, Some(Reason::BadResponse));
    });
}

#[test]
fn interim_answers_come_to_an_end() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        for _ in 0..200 {
            peer.send(HEADERS, END_HEADERS, 1, CONTINUE).await;
        }
        let error = call.await.expect("no panic").map(|_| ()).expect_err("that is no answer");
        assert_eq!(error.reason, Some(Reason::BadResponse));
        assert_eq!(peer.next().await.code(), 11, "ENHANCE_YOUR_CALM");
        // It is the stream that is over, not the connection.
        drop(lease(&trunk));
    });
}

/// A transport with no end of these bytes, and room for any number.
struct Endless {
    first: bool,
    bytes: Vec<u8>,
    at: usize,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if std::mem::take(&mut self.first) {
            buf.put_slice(&frame(SETTINGS, 0, 0, &[]));
            return std::task::Poll::Ready(Ok(()));
        }
        let len = (self.bytes.len() - self.at).min(buf.remaining());
        buf.put_slice(&self.bytes[self.at..self.at + len]);
        self.at = (self.at + len) % self.bytes.len();
        std::task::Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[test]
fn a_peer_that_floods_leaves_others_their_turn() {
    let floods = [
        frame(PING, 0, 0, &[0; 8]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &setting(MAX_CONCURRENT_STREAMS, 5)),
        frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
        frame(0xfa, 0, 0, b"of no known kind"),
    ];
    for flood in floods {
        run(async move {
            let endless = Endless { first: true, bytes: flood, at: 0 };
            let open = Open::new(nowhere(), Rc::default());
            let flooding = Trunk::open(endless, open, Rc::new(Notify::new())).await.expect("it speaks HTTP/2");
            let flooded = begin(&flooding, get("/"));
            let other = trunk(h2::server::Builder::new(), numbered()).await;
            for _ in 0..10 {
                assert_eq!(call(&other, get("/")).await.expect("an answer"), b"0");
            }
            flooded.abort();
        });
    }
}

#[test]
fn a_limit_of_streams_that_comes_later_is_kept_to() {
    run_paused(async {
        let (trunk, mut peer) = Peer::with(&setting(MAX_CONCURRENT_STREAMS, 3)).await;
        let places = [lease(&trunk), lease(&trunk)];
        peer.send(SETTINGS, 0, 0, &setting(MAX_CONCURRENT_STREAMS, 1)).await;
        assert_eq!(peer.next().await.flags, ACK);
        assert!(trunk.lease(crate::upstream::now()).is_none());
        drop(places);
        let _one = lease(&trunk);
        assert!(trunk.lease(crate::upstream::now()).is_none());
        peer.send(SETTINGS, 0, 0, &setting(MAX_CONCURRENT_STREAMS, 2)).await;
        assert_eq!(peer.next().await.flags, ACK);
        drop(lease(&trunk));
    });
}
