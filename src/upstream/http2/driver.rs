//! The task of one shared connection: lets frames pass, and watches whether there is a peer.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use h2::client::Connection;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    trunk::Trunk,
    vitals::{Verdict, Vitals},
};
use crate::upstream::connection::Open;

/// Drives a connection until it is over, whichever side ends it. Streams that are open by then fail.
pub(super) async fn drive<T>(mut connection: Connection<T, Bytes>, trunk: Rc<Trunk>, open: Open)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let pings = connection.ping_pong().expect("nobody else has asked for it");
    let mut vitals = Vitals::new(pings, &trunk);
    poll_fn(|cx| {
        trunk.driven_by(cx);
        Poll::Ready(())
    })
    .await;
    poll_fn(|cx| {
        loop {
            if Pin::new(&mut connection).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            match vitals.check(cx, &trunk, |size| connection.set_initial_window_size(size).is_ok()) {
                Verdict::Well => return Poll::Pending,
                // A PING or a SETTINGS has yet to be written.
                Verdict::Speaks => {}
                Verdict::Over => return Poll::Ready(()),
            }
        }
    })
    .await;
    trunk.retire();
    // Whoever waits for a stream of it is told by this.
    drop(connection);
    drop(open);
}
