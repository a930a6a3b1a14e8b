//! A connection on which an app speaks HTTP/2, from its preface to its last stream.
//!
//! hyper serves each stream on a task of its own. Its calls differ from HTTP/1's in little: they share a
//! connection, and whatever ends one of them ends its stream alone.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{io::AsyncWriteExt as _, time::timeout};

use super::{
    call,
    connection::{Control, Peer},
    frame_watch::{FrameWatch, WatchState},
    sniff::Rewound,
    unread::Streams,
    worker::Worker,
};
use crate::config::Limits;

/// Streams that an app may have open on one connection; nginx allows 128, HAProxy 100.
const STREAMS: u32 = 256;

/// What an app may send ahead of us, on one stream and on all of a connection's: what a sidecar's memory is worth,
/// and enough for the short way to it.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What may wait to be sent to an app on one stream.
const SEND_BUFFER: usize = 128 * 1024;

/// Streams that an app may reset before we have so much as looked at them.
const UNSEEN_RESETS: usize = 100;

/// How long a connection may be silent before we ask whether somebody is there, and how long that may take.
const PING_AFTER: Duration = Duration::from_secs(60);
const PING_LIMIT: Duration = Duration::from_secs(20);

/// How long the last word to an app may take.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// Puts each stream on a task of this worker's.
#[derive(Debug, Clone)]
struct Local(Rc<Streams>);

impl<F: Future<Output: 'static> + 'static> Executor<F> for Local {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(self.0.task(stream));
    }
}

/// Serves one connection until either side has had enough.
pub(super) async fn serve(worker: Rc<Worker>, control: Rc<Control>, stream: Rewound, peer: Peer, limits: Limits) {
    let state = Rc::<WatchState>::default();
    let watch = FrameWatch::new(stream, state.clone(), limits.header_timeout);
    let peer = Rc::new(peer);
    let service = service_fn({
        let (worker, control) = (worker.clone(), control.clone());
        move |request| {
            let (worker, peer, busy) = (worker.clone(), peer.clone(), control.busy());
            // Boxed: on its way into a task of its own a stream is copied seven times.
            Box::pin(async move {
                let _busy = busy;
                Ok::<_, Infallible>(call::serve(&worker, &peer, request).await)
            })
        }
    });
    let mut builder = http2::Builder::new(Local(worker.streams.clone()));
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_LIMIT);
    {
        let mut serving = pin!(builder.serve_connection(TokioIo::new(watch), service));
        let mut graceful = false;
        let _ = poll_fn(|cx| {
            control.listen(cx);
            if (control.is_finishing() || worker.is_cut_off()) && !std::mem::replace(&mut graceful, true) {
                serving.as_mut().graceful_shutdown();
            }
            serving.as_mut().poll(cx)
        })
        .await;
    }
    if let (Some(farewell), Some(mut stream)) = (state.farewell(), state.take_stream()) {
        let _ = timeout(FAREWELL_LIMIT, async {
            stream.write_all(&farewell).await?;
            stream.shutdown().await
        })
        .await;
    }
}
