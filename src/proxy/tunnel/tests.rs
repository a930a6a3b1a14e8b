use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use tokio::task::yield_now;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A tunnel between two pipes of this many bytes: its app, its endpoint, and how it ends.
fn tunnel(pipe: usize, limits: Limits) -> (DuplexStream, DuplexStream, impl Future<Output = (End, Carried)>) {
    let ((app, mut inner_app), (endpoint, mut inner_endpoint)) = (duplex(pipe), duplex(pipe));
    let relay = async move {
        let buffers = Buffers::default();
        let ended = relay(&mut inner_app, &mut inner_endpoint, &buffers, limits, |_| None).await;
        assert!(buffers.0.borrow().len() <= 2, "one a direction");
        ended
    };
    (app, endpoint, relay)
}

fn limits(silence: u64, end: u64) -> Limits {
    let limit = |seconds| (seconds > 0).then(|| SECOND * seconds as u32);
    Limits { silence: limit(silence), end: limit(end).map(|end| now() + end) }
}

async fn said(peer: &mut DuplexStream) -> String {
    let mut text = [0; 100];
    let n = peer.read(&mut text).await.unwrap();
    String::from_utf8_lossy(&text[..n]).into_owned()
}

#[tokio::test(start_paused = true)]
async fn both_ends_are_passed_on_each_in_its_time() {
    for app_first in [true, false] {
        let (app, endpoint, relay) = tunnel(64, limits(60, 0));
        let peers = async {
            let (mut one, mut other) = if app_first { (app, endpoint) } else { (endpoint, app) };
            one.write_all(b"all I say").await.unwrap();
            one.shutdown().await.unwrap();
            assert_eq!(said(&mut other).await, "all I say");
            assert_eq!(said(&mut other).await, "", "the end");
            for _ in 0..10 {
                other.write_all(b"and yet").await.unwrap();
                assert_eq!(said(&mut one).await, "and yet");
            }
            other.shutdown().await.unwrap();
            assert_eq!(said(&mut one).await, "", "the end");
            (one, other)
        };
        let ((end, carried), _) = tokio::join!(relay, peers);
        let (few, many) = (9, 70);
        let expected = match app_first {
            true => Carried { to_endpoint: few, to_app: many },
            false => Carried { to_endpoint: many, to_app: few },
        };
        assert_eq!((end, carried), (End::Clean, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_counted_from_the_last_byte_of_either() {
    let (mut app, mut endpoint, relay) = tunnel(64, limits(10, 0));
    let start = now();
    let peers = async {
        for _ in 0..3 {
            tokio::time::sleep(8 * SECOND).await;
            app.write_all(b"x").await.unwrap();
            tokio::time::sleep(8 * SECOND).await;
            endpoint.write_all(b"y").await.unwrap();
        }
        (app, endpoint)
    };
    let ((end, carried), _) = tokio::join!(relay, peers);
    assert_eq!((end, carried), (End::Silence, Carried { to_endpoint: 3, to_app: 3 }));
    assert_eq!((now() - start).as_secs(), 6 * 8 + 10);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_takes_nothing_is_silent_too_and_costs_its_sender_no_more_than_a_buffer() {
    let (mut app, endpoint, relay) = tunnel(64, limits(10, 0));
    let mut written = 0;
    let sender = async {
        while app.write_all(&[0; 64]).await.is_ok() {
            written += 64;
        }
    };
    let ((end, carried), ()) = tokio::join!(relay, sender);
    assert_eq!((end, carried), (End::Silence, Carried { to_endpoint: 64, to_app: 0 }));
    // In the pipe to us, in our buffer (which a read of 64 bytes fills no further), and in the pipe to the endpoint.
    assert!(written <= 3 * 64, "{written}");
    drop(endpoint);
}

#[tokio::test(start_paused = true)]
async fn total_ends_even_who_never_pauses() {
    let (mut app, mut endpoint, relay) = tunnel(64, limits(10, 100));
    let start = now();
    let peers = async {
        while app.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SECOND).await;
            if said(&mut endpoint).await.is_empty() {
                break;
            }
        }
    };
    let ((end, _), ()) = tokio::join!(relay, peers);
    assert_eq!((end, (now() - start).as_secs()), (End::Overdue, 100));
}

#[tokio::test(start_paused = true)]
async fn without_limits_it_lasts() {
    let (mut app, endpoint, relay) = tunnel(64, limits(0, 0));
    let peers = async {
        tokio::time::sleep(1_000_000 * SECOND).await;
        app.shutdown().await.unwrap();
        drop(endpoint);
    };
    let ((end, _), ()) = tokio::join!(relay, peers);
    assert_eq!(end, End::Clean);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_a_side_took_no_more_arrives() {
    let (mut app, mut endpoint, relay) = tunnel(1024, limits(10, 0));
    let peers = async {
        endpoint.write_all(b"no more of this").await.unwrap();
        drop(endpoint);
        app.write_all(b"more").await.unwrap();
        assert_eq!(said(&mut app).await, "no more of this");
        assert_eq!(said(&mut app).await, "", "the end");
    };
    let ((end, carried), ()) = tokio::join!(relay, peers);
    assert_eq!((end, carried), (End::EndpointReset, Carried { to_endpoint: 0, to_app: 15 }));
}

#[tokio::test(start_paused = true)]
async fn an_interruption_ends_it_at_once() {
    let ((_app, mut inner_app), (_endpoint, mut inner_endpoint)) = (duplex(64), duplex(64));
    let (buffers, cut) = (Buffers::default(), std::cell::Cell::new(false));
    let waker = RefCell::new(None);
    let relay = relay(&mut inner_app, &mut inner_endpoint, &buffers, Limits::default(), |cx| {
        *waker.borrow_mut() = Some(cx.waker().clone());
        cut.get().then_some(End::CutOff)
    });
    let interrupt = async {
        tokio::time::sleep(SECOND).await;
        cut.set(true);
        waker.borrow_mut().take().unwrap().wake();
    };
    let ((end, _), ()) = tokio::join!(relay, interrupt);
    assert_eq!(end, End::CutOff);
}

/// A sender that never pauses, and a receiver that takes whatever comes.
struct Torrent;

impl AsyncRead for Torrent {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let n = buf.remaining();
        buf.initialize_unfilled();
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Torrent {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn who_never_pauses_lets_others_have_their_turn() {
    let (buffers, turns) = (Buffers::default(), std::cell::Cell::new(0));
    let (mut app, mut endpoint) = (Torrent, Torrent);
    let relay =
        relay(&mut app, &mut endpoint, &buffers, Limits::default(), |_| (turns.get() == 50).then_some(End::CutOff));
    let other = async {
        while turns.get() < 50 {
            turns.set(turns.get() + 1);
            yield_now().await;
        }
    };
    let ((end, carried), ()) = tokio::join!(relay, other);
    assert_eq!(end, End::CutOff);
    assert_eq!(carried.to_app, carried.to_endpoint);
    assert!(carried.to_app <= 60 * u64::from(TURN) * BUFFER as u64, "{carried:?}");
}
