//! Dropping a connection cancels its stream, whatever it waits for.

use super::{raw::*, *};

const CANCEL: u32 = 8;

async fn is_cancelled(peer: &mut Peer, id: u32) {
    let seen = peer.next().await;
    assert_eq!((seen.id, seen.code()), (id, CANCEL));
}

#[test]
fn before_the_head_of_the_answer() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        assert!(peer.request(1).await);
        call.abort();
        is_cancelled(&mut peer, 1).await;
        assert!(trunk.is_idle());
        begin(&trunk, get("/"));
        peer.request(3).await;
    });
}

#[test]
fn in_the_middle_of_the_answer_while_its_payload_is_kept() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let call = begin(&trunk, get("/"));
        peer.request(1).await;
        peer.send(HEADERS, END_HEADERS, 1, OK).await;
        peer.send(DATA, 0, 1, b"half").await;
        let (mut connection, mut payload) = call.await.expect("no panic").expect("a head");
        next(&mut connection, &mut payload).await.expect("some").expect("whole");
        drop(connection);
        is_cancelled(&mut peer, 1).await;
    });
}

/// A call whose upload waits for room in its window.
async fn blocked() -> (Rc<Trunk>, Peer, Feed, Begun) {
    let (trunk, mut peer) = Peer::with(&setting(INITIAL_WINDOW_SIZE, 10)).await;
    let (feed, upload) = Upload::fed();
    for _ in 0..2 {
        feed.try_send(Ok(Frame::data("more than fits".into()))).expect("there is room");
    }
    let call = begin(&trunk, post("/", upload));
    peer.request(1).await;
    let seen = peer.next().await;
    assert_eq!((seen.kind, seen.payload.len()), (DATA, 10));
    settle().await;
    (trunk, peer, feed, call)
}

#[test]
fn while_the_upload_waits_for_room() {
    run_paused(async {
        let (_trunk, mut peer, feed, call) = blocked().await;
        call.abort();
        is_cancelled(&mut peer, 1).await;
        feed.closed().await;
    });
}

#[test]
fn while_an_upload_that_was_detached_waits_for_room() {
    run_paused(async {
        let (trunk, mut peer, feed, call) = blocked().await;
        peer.send(HEADERS, END_HEADERS, 1, OK).await;
        let (mut connection, _payload) = call.await.expect("no panic").expect("a head");
        connection.detach();
        settle().await;
        connection.cut();
        is_cancelled(&mut peer, 1).await;
        feed.closed().await;
        assert!(trunk.is_idle());
    });
}

#[test]
fn while_an_upload_that_was_detached_waits_for_its_app() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        let (feed, upload) = Upload::fed();
        let call = begin(&trunk, post("/", upload));
        peer.request(1).await;
        peer.send(HEADERS, END_HEADERS, 1, OK).await;
        let (mut connection, _payload) = call.await.expect("no panic").expect("a head");
        connection.detach();
        settle().await;
        drop(connection);
        is_cancelled(&mut peer, 1).await;
        feed.closed().await;
    });
}

#[test]
fn not_after_the_end_of_both() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        for id in [1, 3] {
            let call = begin(&trunk, post("/", Upload::of("all")));
            peer.request(id).await;
            while peer.next().await.flags & END_STREAM == 0 {}
            peer.send(HEADERS, END_HEADERS, id, OK).await;
            peer.send(DATA, END_STREAM, id, b"done").await;
            let (mut connection, mut payload) = call.await.expect("no panic").expect("a head");
            next(&mut connection, &mut payload).await.expect("some").expect("whole");
            assert!(payload.is_end_stream());
            drop((connection, payload));
        }
        // The request of the second came right after the answer to the first; and now there is nothing to say.
        trunk.retire();
        assert_eq!(peer.next().await.kind, GOAWAY);
    });
}

#[test]
fn a_place_that_was_not_used_leaves_no_trace() {
    run_paused(async {
        let (trunk, mut peer) = Peer::plain().await;
        drop(lease(&trunk));
        assert!(trunk.is_idle());
        begin(&trunk, get("/"));
        assert!(peer.request(1).await, "it is the first");
    });
}
