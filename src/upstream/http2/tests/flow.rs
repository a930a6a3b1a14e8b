//! Windows: what an answer may be ahead of its app.

use std::cell::Cell;

use super::{
    super::{CONNECTION_WINDOW, STREAM_WINDOW, STREAM_WINDOW_MAX},
    raw::*,
    *,
};

/// Sends as much as the windows let it, and counts.
fn pour(sent: &Rc<Cell<usize>>, total: usize) -> Handler {
    let sent = sent.clone();
    handler(move |mut asked| {
        let sent = sent.clone();
        async move {
            let mut stream = asked.respond.send_response(Response::new(()), false).expect("it is open");
            let mut left = total;
            while left > 0 {
                stream.reserve_capacity(left.min(1 << 14));
                let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
                let piece = room.min(left).min(1 << 14);
                left -= piece;
                sent.set(sent.get() + piece);
                stream.send_data(vec![0; piece].into(), left == 0).expect("it is open");
            }
        }
    })
}

#[test]
fn an_app_that_reads_nothing_holds_its_endpoint_back() {
    run_paused(async {
        let sent = Rc::new(Cell::new(0));
        let trunk = trunk(h2::server::Builder::new(), pour(&sent, 1 << 30)).await;
        let mut streams = Vec::new();
        for _ in 0..4 {
            let mut stream = lease(&trunk);
            streams.push((stream.exchange(get("/")).await.expect("a head"), stream));
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(sent.get(), 4 * STREAM_WINDOW as usize);
    });
}

#[test]
fn many_apps_that_read_nothing_are_bounded_together() {
    run_paused(async {
        let sent = Rc::new(Cell::new(0));
        let trunk = trunk(h2::server::Builder::new(), pour(&sent, 1 << 30)).await;
        let mut streams = Vec::new();
        for _ in 0..48 {
            let mut stream = lease(&trunk);
            streams.push((stream.exchange(get("/")).await.expect("a head"), stream));
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(sent.get(), CONNECTION_WINDOW as usize);
        // Whoever goes away leaves room.
        drop(streams);
        let mut connection = Connection::Http2(lease(&trunk));
        let mut payload = connection.exchange(get("/")).await.expect("a head").into_body();
        next(&mut connection, &mut payload).await.expect("some").expect("whole");
    });
}

#[test]
fn a_long_answer_through_a_slow_reader_stays_within_its_window() {
    const TOTAL: usize = 64 << 20;
    run_paused(async {
        let sent = Rc::new(Cell::new(0));
        let trunk = trunk(h2::server::Builder::new(), pour(&sent, TOTAL)).await;
        let mut connection = Connection::Http2(lease(&trunk));
        let mut payload = connection.exchange(get("/")).await.expect("a head").into_body();
        let (mut got, mut ahead) = (0, 0);
        while let Some(frame) = next(&mut connection, &mut payload).await {
            got += frame.expect("whole").into_data().expect("data").len();
            if got % (1 << 20) < 1 << 14 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            ahead = ahead.max(sent.get() - got);
        }
        assert_eq!(got, TOTAL);
        assert!(ahead <= STREAM_WINDOW_MAX as usize, "{ahead}");
    });
}

/// Sends an answer whose every round trip takes long, as wide as the window is. Gives back how far that went,
/// and the PINGs that came.
async fn far_away(peer: &mut Peer, rounds: usize) -> (usize, usize) {
    let (mut window, mut pings) = (STREAM_WINDOW as usize, 0);
    let mut connection_window = CONNECTION_WINDOW as usize;
    let mut widest = 0;
    for _ in 0..rounds {
        let burst = window.min(connection_window);
        widest = widest.max(burst);
        for _ in 0..burst / 16_384 {
            peer.send(DATA, 0, 1, &[0; 16_384]).await;
            window -= 16_384;
            connection_window -= 16_384;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        while let Ok(seen) = tokio::time::timeout(Duration::from_millis(1), peer.read()).await {
            match seen.kind {
                WINDOW_UPDATE => {
                    let more = u32::from_be_bytes(seen.payload.try_into().expect("four bytes")) as usize;
                    if seen.id == 0 { connection_window += more } else { window += more }
                }
                PING => {
                    pings += 1;
                    peer.pong(&seen).await;
                }
                SETTINGS if seen.flags & ACK == 0 => {
                    assert_eq!(seen.payload[..2], INITIAL_WINDOW_SIZE.to_be_bytes());
                    let size = u32::from_be_bytes(seen.payload[2..].try_into().expect("four bytes"));
                    window += size as usize - widest.max(STREAM_WINDOW as usize);
                    peer.send(SETTINGS, ACK, 0, &[]).await;
                }
                _ => {}
            }
        }
    }
    (widest, pings)
}

#[test]
fn a_window_widens_where_the_way_is_long_and_asks_rarely() {
    run_paused(async {
        let (trunk, mut peer) = Peer::across(8 << 20, &[]).await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        peer.send(HEADERS, END_HEADERS, 1, OK).await;
        let (mut connection, mut payload) = call.await.expect("no panic").expect("a head");
        let reader = spawn_local(async move { while let Some(Ok(_)) = next(&mut connection, &mut payload).await {} });
        let (widest, pings) = far_away(&mut peer, 40).await;
        assert!(widest > 4 * STREAM_WINDOW as usize && widest <= STREAM_WINDOW_MAX as usize, "{widest}");
        assert!((2..=10).contains(&pings), "{pings}");
        reader.abort();
    });
}

#[test]
fn small_messages_that_nobody_reads_do_not_end_the_connection() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        peer.send(HEADERS, END_HEADERS, 1, OK).await;
        let (mut connection, mut payload) = call.await.expect("no panic").expect("a head");
        // Messages of 8 bytes until the stream's window is full.
        for _ in 0..STREAM_WINDOW / 8 {
            peer.send(DATA, 0, 1, &[0; 8]).await;
        }
        peer.send(DATA, END_STREAM, 1, &[]).await;
        settle().await;
        let (data, _) = read(&mut connection, &mut payload).await.expect("it is whole");
        assert_eq!(data.len(), STREAM_WINDOW as usize);
    });
}
