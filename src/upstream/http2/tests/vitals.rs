//! Who is alive, and how rarely that is asked.

use tokio::time::{Instant, advance, sleep};

use super::{
    super::vitals::{PATIENCE, REPEAT, SILENCE},
    raw::*,
    *,
};
use crate::{model::Reason, upstream::now};

#[test]
fn a_dead_peer_is_found_out_and_its_calls_fail_at_once() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let calls = [begin(&trunk, get("/")), begin(&trunk, get("/"))];
        peer.request(1).await;
        peer.request(3).await;
        let begun = Instant::now();
        assert_eq!(peer.next().await.kind, PING);
        assert_within(begun.elapsed(), SILENCE);
        for call in calls {
            let error = call.await.expect("no panic").map(|_| ()).expect_err("nobody answers");
            assert_eq!((error.reason, error.refused), (Some(Reason::UpstreamReset), false));
            assert!(error.detail.contains("does not answer a PING"), "{}", error.detail);
        }
        assert_within(begun.elapsed(), SILENCE + PATIENCE);
        assert!(!trunk.is_usable());
    });
}

/// Timers have a grain of a millisecond.
fn assert_within(elapsed: Duration, of: Duration) {
    assert!(elapsed >= of && elapsed < of + Duration::from_millis(10), "{elapsed:?}, not {of:?}");
}

#[test]
fn a_peer_that_is_heard_is_not_asked() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        for _ in 0..100 {
            sleep(SILENCE - Duration::from_millis(10)).await;
            peer.send(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).await;
            settle().await;
        }
        peer.send(HEADERS, END_HEADERS | END_STREAM, 1, OK).await;
        call.await.expect("no panic").expect("an answer");
        trunk.retire();
        assert_eq!(peer.next().await.kind, GOAWAY, "there was no PING before");
    });
}

#[test]
fn a_silent_peer_that_answers_is_asked_again_after_five_minutes() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        let begun = Instant::now();
        for n in 0..4 {
            let ping = peer.next().await;
            assert_within(begun.elapsed(), SILENCE + REPEAT * n);
            peer.pong(&ping).await;
        }
        // An answer ends the silence.
        peer.send(HEADERS, END_HEADERS, 1, OK).await;
        let answered = Instant::now();
        let ping = peer.next().await;
        assert_within(answered.elapsed(), SILENCE);
        peer.pong(&ping).await;
        call.await.expect("no panic").expect("a head");
    });
}

#[test]
fn nobody_is_asked_without_a_stream_and_silence_counts_from_the_first() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        sleep(Duration::from_secs(50)).await;
        let _call = begin(&trunk, get("/"));
        let begun = Instant::now();
        peer.request(1).await;
        assert_eq!(peer.next().await.kind, PING);
        assert_within(begun.elapsed(), SILENCE);
    });
}

#[test]
fn a_connection_on_which_a_call_was_lost_is_not_used_before_it_is_heard_again() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        sleep(Duration::from_secs(1)).await;
        call.abort();
        assert_eq!(peer.next().await.code(), 8);
        assert!(trunk.is_suspect() && trunk.lease(now()).is_none() && trunk.is_usable());
        let ping = peer.next().await;
        peer.pong(&ping).await;
        until(|| !trunk.is_suspect()).await;
        drop(lease(&trunk));

        // It is silent still, so it is not asked twice; and nobody waits for it.
        let call = begin(&trunk, get("/"));
        peer.request(3).await;
        sleep(Duration::from_secs(1)).await;
        call.abort();
        assert_eq!(peer.next().await.code(), 8);
        assert_eq!(peer.next().await.kind, GOAWAY);
    });
}

#[test]
fn a_suspect_that_does_not_answer_is_dead() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        sleep(Duration::from_secs(1)).await;
        call.abort();
        let begun = Instant::now();
        peer.closed().await;
        assert_within(begun.elapsed(), PATIENCE);
        assert!(!trunk.is_usable());
    });
}

#[test]
fn calls_that_are_given_up_soon_one_after_the_other_find_a_dead_peer_too() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        for id in [1, 3] {
            let call = begin(&trunk, get("/"));
            peer.request(id).await;
            sleep(Duration::from_millis(30)).await;
            call.abort();
            assert_eq!(peer.next().await.code(), 8);
        }
        assert!(trunk.is_suspect());
        let begun = Instant::now();
        assert_eq!(peer.next().await.kind, PING);
        peer.closed().await;
        assert_within(begun.elapsed(), PATIENCE);
    });
}

#[test]
fn a_peer_that_never_answered_a_ping_gets_its_time_with_each_call() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        assert_eq!(peer.next().await.kind, PING);
        peer.send(HEADERS, END_HEADERS | END_STREAM, 1, OK).await;
        call.await.expect("no panic").expect("an answer");
        sleep(Duration::from_secs(30)).await;
        let call = begin(&trunk, get("/"));
        peer.request(3).await;
        sleep(PATIENCE - Duration::from_millis(10)).await;
        peer.send(HEADERS, END_HEADERS | END_STREAM, 3, OK).await;
        call.await.expect("no panic").expect("an answer");
    });
}

#[test]
fn a_call_that_was_cancelled_soon_or_while_others_are_heard_makes_no_suspect() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        advance(Duration::from_millis(40)).await;
        call.abort();
        assert_eq!(peer.next().await.code(), 8);
        assert!(!trunk.is_suspect());
        let call = begin(&trunk, get("/"));
        peer.request(3).await;
        peer.send(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).await;
        sleep(Duration::from_secs(1)).await;
        call.abort();
        assert_eq!(peer.next().await.code(), 8);
        assert!(!trunk.is_suspect());
    });
}

#[test]
fn a_peer_that_reads_nothing_cannot_keep_a_connection_that_nobody_needs() {
    run_paused(async {
        let (ours, mut theirs) = tokio::io::duplex(256);
        tokio::io::AsyncWriteExt::write_all(&mut theirs, &frame(SETTINGS, 0, 0, &[])).await.expect("room");
        let target = nowhere();
        let open = Open::new(target.clone(), Rc::default());
        let trunk = Trunk::open(ours, open, Rc::new(Notify::new())).await.expect("it speaks HTTP/2");
        let call = begin(&trunk, post("/", Upload::of("x")));
        let (feed, upload) = Upload::fed();
        feed.try_send(Ok(Frame::data(vec![0; 4096].into()))).expect("there is room");
        let upload = begin(&trunk, post("/", upload));
        settle().await;
        call.abort();
        upload.abort();
        settle().await;
        trunk.retire();
        sleep(Duration::from_secs(4)).await;
        assert_eq!(target.metrics.upstream_connections.get(), 1);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(target.metrics.upstream_connections.get(), 0);
        drop(theirs);
    });
}
