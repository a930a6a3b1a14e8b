//! The request's body on its way to the endpoint.
//!
//! Bytes pass as they come: hyper asks for the next piece when the endpoint has taken the last, which is all
//! the back-pressure there is to it. What is added here:
//!
//! - `idle` bounds each pause of the app;
//! - it is known whether a call waits for its app or for its endpoint, so that a slow app is not blamed on
//!   the service;
//! - what is still to come when the answer has ended goes out, while it moves ([`finish`]);
//! - after `Expect: 100-continue` nothing is read from the app (which is what makes hyper say "100 Continue"
//!   to it) before the endpoint has said so, RFC 9110 §10.1.1.

use std::{
    cell::{Cell, RefCell},
    error::Error as _,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{wire::WireState, worker::Worker};
use crate::upstream::Connection;

/// How long an app that waits for "100 Continue" is kept waiting for an endpoint that may not know it.
const EXPECT_LIMIT: Duration = Duration::from_secs(1);

/// How long the rest of an upload may pause once its answer has ended, and how many such pauses it may last.
/// No deadline and no bulkhead bounds it any more.
const REST_PAUSE: Duration = Duration::from_secs(1);
const REST_LIMIT: u32 = 60;

/// A request's body.
pub(super) enum Upload {
    /// The request has none.
    Empty,
    /// The app's, as it comes.
    Streaming(Box<Streaming>),
}

pub(super) struct Streaming {
    body: Incoming,
    progress: Rc<Progress>,
    wire: Arc<WireState>,
    /// Its number on the wire.
    call: u32,
    idle: Option<Duration>,
    pause: Option<Pin<Box<Sleep>>>,
    gate: Option<Gate>,
}

/// How far an upload is; shared with the call.
#[derive(Debug, Default)]
pub(super) struct Progress {
    ended: Cell<bool>,
    /// The endpoint has not asked for it yet.
    held_back: Cell<bool>,
    waits_for_app: Cell<bool>,
    bytes: Cell<u64>,
    failure: RefCell<Option<UploadFailure>>,
    /// Waits for the end.
    waiting: RefCell<Option<Waker>>,
}

/// What broke an upload off, on the app's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UploadFailure {
    /// The app paused for longer than `idle`.
    Idle,
    /// The app's body is malformed.
    Malformed(String),
    /// The app's connection ended before its body did.
    Gone,
}

/// Whether a body ended because its framing is wrong, and not because its connection did: hyper hides the
/// difference in the kind of an `io::Error`.
pub(super) fn is_malformed(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.is_parse()
        || source
            .is_some_and(|source| matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

impl Progress {
    /// Whether the whole body has been read.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Waits until the whole body has been read, or nothing more will be.
    async fn ended(&self) {
        poll_fn(|cx| {
            if self.ended.get() || self.failure.borrow().is_some() {
                return Poll::Ready(());
            }
            self.waiting.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn fail(&self, failure: UploadFailure) {
        self.failure.replace(Some(failure));
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether the app is what the upload waits for.
    pub(super) fn waits_for_app(&self) -> bool {
        self.waits_for_app.get()
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// What broke it off.
    pub(super) fn failure(&self) -> Option<UploadFailure> {
        self.failure.borrow().clone()
    }
}

impl Upload {
    /// The body of a request that has one, and how to follow its progress.
    pub(super) fn streaming(
        body: Incoming,
        wire: Arc<WireState>,
        idle: Option<Duration>,
        gate: Option<Gate>,
    ) -> (Self, Rc<Progress>) {
        let progress = Rc::new(Progress::default());
        progress.held_back.set(gate.is_some());
        let call = wire.call();
        let streaming = Streaming { body, progress: progress.clone(), wire, call, idle, pause: None, gate };
        (Self::Streaming(Box::new(streaming)), progress)
    }
}

impl Streaming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadBroken>>> {
        if let Some(gate) = &mut self.gate {
            if gate.poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.gate = None;
            self.progress.held_back.set(false);
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.pause = None;
                self.progress.waits_for_app.set(false);
                if let Some(data) = frame.data_ref() {
                    self.progress.bytes.set(self.progress.bytes.get() + data.len() as u64);
                }
                // Nothing follows trailers, and hyper does not ask for it.
                if self.body.is_end_stream() || frame.is_trailers() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let failure = if is_malformed(&error) {
                    UploadFailure::Malformed(error.to_string())
                } else {
                    UploadFailure::Gone
                };
                self.progress.fail(failure);
                Poll::Ready(Some(Err(UploadBroken)))
            }
            Poll::Pending => {
                self.progress.waits_for_app.set(true);
                self.poll_pause(cx)
            }
        }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadBroken>>> {
        let Some(idle) = self.idle else { return Poll::Pending };
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + idle)));
        match pause.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.progress.fail(UploadFailure::Idle);
                Poll::Ready(Some(Err(UploadBroken)))
            }
        }
    }

    fn end(&mut self) {
        self.progress.waits_for_app.set(false);
        if !self.progress.ended.replace(true) {
            self.wire.upload_ended(self.call);
            self.progress.wake();
        }
    }
}

/// Lets the rest of an upload go out after its answer has come to its end: an endpoint may answer early and
/// read on all the same, and then both connections are as good as new. One that has stopped to read is not
/// waited for; its connection is cut, which lets go of the app's too. So is one that never asked for the body
/// after `Expect: 100-continue`: the app will not send it, and whether it thinks so is anybody's guess.
pub(super) fn finish(worker: Rc<Worker>, connection: Connection<Upload>, progress: Rc<Progress>) {
    if progress.held_back.get() {
        return connection.cut();
    }
    tokio::task::spawn_local(async move {
        for _ in 0..REST_LIMIT {
            let before = progress.bytes();
            if timeout(REST_PAUSE, progress.ended()).await.is_ok() {
                if progress.has_ended() {
                    worker.upstreams.give_back(connection, worker.now());
                }
                return;
            }
            if progress.bytes() == before {
                break;
            }
        }
        connection.cut();
    });
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadBroken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streaming(streaming) => streaming.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(streaming) => streaming.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(streaming) => streaming.body.size_hint(),
        }
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Upload::Empty",
            Self::Streaming(_) => "Upload::Streaming",
        })
    }
}

/// The upload cannot go on; [`Progress::failure`] says why.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the app's request body broke off")]
pub(super) struct UploadBroken;

/// Holds an upload back until the endpoint wants it.
pub(super) struct Gate {
    shared: Arc<GateState>,
    limit: Pin<Box<Sleep>>,
}

#[derive(Default)]
struct GateState {
    open: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

/// Opens a [`Gate`]; may be called from wherever hyper reports an interim answer.
#[derive(Clone)]
pub(super) struct GateKey(Arc<GateState>);

impl Gate {
    /// A closed gate and its key. It opens by itself after a second.
    pub(super) fn closed() -> (Self, GateKey) {
        let shared = Arc::new(GateState::default());
        let limit = Box::pin(sleep_until(Instant::now() + EXPECT_LIMIT));
        (Self { shared: shared.clone(), limit }, GateKey(shared))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        *self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.shared.open.load(Ordering::Acquire) { Poll::Ready(()) } else { self.limit.as_mut().poll(cx) }
    }
}

impl GateKey {
    pub(super) fn open(&self) {
        self.0.open.store(true, Ordering::Release);
        if let Some(waker) = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}
