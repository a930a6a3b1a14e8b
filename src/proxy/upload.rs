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
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{gate::Gate, grpc::web::Decoder, pause::Pause, wire::WireState, worker::Worker};
use crate::upstream::{Connection, is_malformed};

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
    /// Whom to tell of the end over HTTP/1, and the call's number there.
    wire: Option<(Arc<WireState>, u32)>,
    idle: Option<Duration>,
    pause: Option<Pause>,
    gate: Option<Gate>,
    /// What makes text of a gRPC-Web app's into bytes.
    decoder: Option<Decoder>,
    /// What has been handed on, while it may be wanted again.
    kept: Option<Kept>,
}

/// The beginning of an upload, for an endpoint that says it has not looked at it.
#[derive(Debug, Default)]
struct Kept {
    frames: Vec<Bytes>,
    bytes: usize,
    /// How many of them have been handed on again.
    again: usize,
}

/// How much of an upload is kept to be sent again. As Linkerd does.
const KEPT: usize = 64 * 1024;

/// How far an upload is; shared with the call.
#[derive(Debug, Default)]
pub(super) struct Progress {
    ended: Cell<bool>,
    /// The endpoint has not asked for it yet.
    held_back: Cell<bool>,
    waits_for_app: Cell<bool>,
    bytes: Cell<u64>,
    /// Pieces that have gone up, and pieces of the answer that have come down.
    moved: Cell<u32>,
    answer_moved: Cell<u32>,
    /// The head of the answer has come: nothing is wanted again.
    answered: Cell<bool>,
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

    /// How often it has moved.
    pub(super) fn moved(&self) -> u32 {
        self.moved.get()
    }

    /// A piece of the answer has come.
    pub(super) fn answer_moved(&self) {
        self.answer_moved.set(self.answer_moved.get().wrapping_add(1));
    }

    /// The answer has begun.
    pub(super) fn answer_begun(&self) {
        self.answered.set(true);
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
        wire: Option<&Arc<WireState>>,
        idle: Option<Duration>,
        gate: Option<Gate>,
    ) -> (Self, Rc<Progress>) {
        let progress = Rc::new(Progress::default());
        progress.held_back.set(gate.is_some());
        let wire = wire.map(|wire| (wire.clone(), wire.call()));
        let progress_of = progress.clone();
        let (pause, decoder, kept) = (None, None, None);
        let streaming = Streaming { body, progress: progress_of, wire, idle, pause, gate, decoder, kept };
        (Self::Streaming(Box::new(streaming)), progress)
    }

    /// From now on its beginning is kept, up to a limit, until its answer begins.
    pub(super) fn keep(&mut self) {
        if let Self::Streaming(streaming) = self {
            streaming.kept.get_or_insert_default();
        }
    }

    /// From now on it is text that is to become bytes.
    pub(super) fn decode(&mut self, decoder: Decoder) {
        if let Self::Streaming(streaming) = self {
            streaming.decoder.get_or_insert(decoder);
        }
    }

    /// Whether what has been handed on is all kept.
    pub(super) fn may_rewind(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(streaming) => streaming.kept.is_some() || streaming.progress.moved() == 0,
        }
    }

    /// The same from its beginning.
    pub(super) fn rewound(mut self) -> Self {
        if let Self::Streaming(streaming) = &mut self
            && let Some(kept) = &mut streaming.kept
        {
            kept.again = 0;
        }
        self
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
        if let Some(frame) = self.again() {
            return Poll::Ready(Some(Ok(frame)));
        }
        loop {
            return match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.pause = None;
                    self.progress.waits_for_app.set(false);
                    self.progress.moved.set(self.progress.moved.get().wrapping_add(1));
                    if let Some(data) = frame.data_ref() {
                        self.progress.bytes.set(self.progress.bytes.get() + data.len() as u64);
                    }
                    // Nothing follows trailers, and hyper does not ask for it.
                    let is_last = self.body.is_end_stream() || frame.is_trailers();
                    let Some(frame) = self.decoded(frame, is_last) else { return Poll::Ready(self.malformed()) };
                    if is_last {
                        self.end();
                    } else if frame.data_ref().is_some_and(Bytes::is_empty) {
                        continue;
                    }
                    self.keep(&frame);
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(None) => {
                    if self.decoder.take().is_some_and(|decoder| decoder.end().is_err()) {
                        return Poll::Ready(self.malformed());
                    }
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
            };
        }
    }

    /// Whether something is to be handed on again.
    fn has_more(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.again < kept.frames.len())
    }

    /// A piece that has been handed on before.
    fn again(&mut self) -> Option<Frame<Bytes>> {
        let kept = self.kept.as_mut()?;
        let frame = kept.frames.get(kept.again)?.clone();
        kept.again += 1;
        Some(Frame::data(frame))
    }

    /// Keeps what is handed on, while there is room, and somebody may want it. Trailers are the end: what comes
    /// after them is known to be nothing.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(kept) = &mut self.kept else { return };
        match frame.data_ref() {
            Some(data) if kept.bytes + data.len() <= KEPT && !self.progress.answered.get() => {
                kept.bytes += data.len();
                kept.frames.push(data.clone());
                kept.again = kept.frames.len();
            }
            _ => self.kept = None,
        }
    }

    /// The bytes of a piece of text; `None` when it is malformed.
    fn decoded(&mut self, frame: Frame<Bytes>, is_last: bool) -> Option<Frame<Bytes>> {
        let Some(decoder) = &mut self.decoder else { return Some(frame) };
        let Some(data) = frame.data_ref() else { return Some(frame) };
        let decoded = decoder.feed(data).ok()?;
        if is_last {
            decoder.end().ok()?;
        }
        Some(Frame::data(decoded))
    }

    fn malformed(&self) -> Option<Result<Frame<Bytes>, UploadBroken>> {
        self.progress.fail(UploadFailure::Malformed("it is not base64".into()));
        Some(Err(UploadBroken))
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadBroken>>> {
        let Some(idle) = self.idle else { return Poll::Pending };
        let moved = || self.progress.answer_moved.get();
        let pause = self.pause.get_or_insert_with(|| Pause::begin(idle, moved()));
        // While the endpoint speaks, the app may be listening.
        match pause.poll(cx, idle, moved) {
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
            if let Some((wire, call)) = &self.wire {
                wire.upload_ended(*call);
            }
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
            Self::Streaming(streaming) => streaming.body.is_end_stream() && !streaming.has_more(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(streaming) if streaming.decoder.is_some() || streaming.has_more() => SizeHint::default(),
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
