//! The app's body itself, which the attempts of a call read one after the other.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::{Progress, UploadBroken, UploadFailure};
use crate::{
    proxy::{gate::Gate, grpc::web::Decoder, pause::Pause, wire::WireState},
    upstream::is_malformed,
};

/// A body that streams, with what has been kept of it.
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
    /// Who reads on.
    turn: u32,
    /// How long it is, where that was said.
    length: Option<u64>,
}

/// The beginning of an upload, for an endpoint that has not looked at it, or another one.
#[derive(Debug)]
struct Kept {
    frames: Vec<Bytes>,
    bytes: usize,
    limit: usize,
}

type Polled = Poll<Option<Result<Frame<Bytes>, UploadBroken>>>;

impl Streaming {
    pub(super) fn new(
        body: Incoming,
        progress: Rc<Progress>,
        wire: Option<(Arc<WireState>, u32)>,
        idle: Option<Duration>,
        gate: Option<Gate>,
    ) -> Self {
        let length = body.size_hint().exact();
        Self { body, progress, wire, idle, pause: None, gate, decoder: None, kept: None, turn: 0, length }
    }

    pub(super) fn begin_to_keep(&mut self, limit: usize) {
        if self.progress.moved() == 0 && !self.progress.has_ended() {
            self.kept.get_or_insert_with(|| Kept { frames: Vec::new(), bytes: 0, limit });
        }
    }

    pub(super) fn decode(&mut self, decoder: Decoder) {
        if self.progress.moved() == 0 {
            self.decoder.get_or_insert(decoder);
        }
    }

    pub(super) fn may_rewind(&self) -> bool {
        self.kept.is_some() || (self.progress.moved() == 0 && !self.progress.has_ended())
    }

    pub(super) fn whole(&self) -> Option<Vec<Bytes>> {
        self.kept.as_ref().filter(|_| self.progress.has_ended()).map(|kept| kept.frames.clone())
    }

    pub(super) fn next_turn(&mut self) -> u32 {
        self.turn += 1;
        self.turn
    }

    /// Whether nothing follows the first `at` pieces.
    pub(super) fn is_at_end(&self, at: usize) -> bool {
        self.body.is_end_stream() && self.kept_at(at).is_none()
    }

    pub(super) fn size_hint(&self, at: usize) -> SizeHint {
        match self.length {
            _ if self.decoder.is_some() => SizeHint::default(),
            Some(length) if at == 0 => SizeHint::with_exact(length),
            _ if self.kept_at(at).is_some() => SizeHint::default(),
            _ => self.body.size_hint(),
        }
    }

    /// The next piece for a reader that has had `at` of them.
    pub(super) fn poll(&mut self, at: usize, turn: u32, cx: &mut Context<'_>) -> Polled {
        if let Some(gate) = &mut self.gate {
            if gate.poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.gate = None;
            self.progress.asked_for();
        }
        if let Some(frame) = self.kept_at(at) {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        if self.progress.has_ended() {
            return Poll::Ready(None);
        }
        if turn != self.turn {
            return Poll::Ready(Some(Err(UploadBroken)));
        }
        self.poll_app(cx)
    }

    /// The next piece from the app.
    fn poll_app(&mut self, cx: &mut Context<'_>) -> Polled {
        loop {
            return match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.pause = None;
                    self.progress.advance(frame.data_ref().map_or(0, Bytes::len));
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
                    self.progress.wait_for_app();
                    self.poll_pause(cx)
                }
            };
        }
    }

    /// The piece after the first `at`, if it has been handed on before.
    fn kept_at(&self, at: usize) -> Option<Bytes> {
        self.kept.as_ref()?.frames.get(at).cloned()
    }

    /// Keeps what is handed on, while there is room, and somebody may want it. Trailers are the end: what comes
    /// after them is known to be nothing.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(kept) = &mut self.kept else { return };
        match frame.data_ref() {
            Some(data) if kept.bytes + data.len() <= kept.limit && !self.progress.is_answered() => {
                kept.bytes += data.len();
                kept.frames.push(data.clone());
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

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Polled {
        let Some(idle) = self.idle else { return Poll::Pending };
        let moved = || self.progress.answer_has_moved();
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
        if self.progress.end()
            && let Some((wire, call)) = &self.wire
        {
            wire.upload_ended(*call);
        }
    }
}
