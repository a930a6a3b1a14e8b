//! The request's body on its way into a stream.
//!
//! One piece at a time: what has been handed to h2 leaves before the next one is asked for, so that a slow
//! endpoint holds its app back. The first goes to h2 without a look at the window, and leaves with the head.
//! Room in the window is asked for only with a piece at hand: a stream that hoards it starves the others.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason as Code, SendStream};
use http_body::{Body, Frame};

use super::fault::code_of;
use crate::upstream::connection::describe;

/// An upload.
pub(super) struct Pump<B> {
    body: B,
    stream: SendStream<Bytes>,
    state: State,
}

enum State {
    /// Nothing has been sent yet.
    Fresh,
    /// The next piece is to come.
    Flowing,
    /// A piece waits for room; it is the last one, or not.
    Blocked(Bytes, bool),
    /// Everything has been handed over, or nothing more will be.
    Over,
}

/// The body itself failed: no fault of the endpoint's.
#[derive(Debug)]
pub(super) struct BodyFailed(pub(super) String);

impl<B> Pump<B> {
    /// `over` tells that the request has no body.
    pub(super) fn new(body: B, stream: SendStream<Bytes>, over: bool) -> Self {
        Self { body, stream, state: if over { State::Over } else { State::Fresh } }
    }

    /// Whether nothing more is to be sent.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Ends the stream, both ways; nothing happens to one that has ended.
    pub(super) fn reset(&mut self, code: Code) {
        self.state = State::Over;
        self.stream.send_reset(code);
    }

    /// What is left of the body.
    pub(super) fn into_body(self) -> B {
        self.body
    }
}

impl<B> Pump<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends what can be sent. Ready when nothing more is to be: all has been handed over, or the endpoint has
    /// ended the stream, which its answer tells more about.
    ///
    /// # Errors
    /// The body failed; the stream has been reset.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyFailed>> {
        loop {
            match &mut self.state {
                State::Over => return Poll::Ready(Ok(())),
                State::Fresh | State::Flowing => {}
                State::Blocked(piece, last) => {
                    while self.stream.capacity() == 0 {
                        // Also woken by a reset.
                        if !matches!(ready!(self.stream.poll_capacity(cx)), Some(Ok(_))) {
                            self.state = State::Over;
                            return Poll::Ready(Ok(()));
                        }
                    }
                    let (piece, last) = (std::mem::take(piece), *last);
                    self.hand_over(piece, last);
                    continue;
                }
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                // The endpoint may want no more of it.
                if self.stream.poll_reset(cx).is_ready() {
                    self.state = State::Over;
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(piece))) => self.take(piece),
                Some(Ok(Err(frame))) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.state = State::Over;
                        if let Err(error) = self.stream.send_trailers(trailers) {
                            return self.refused(&error);
                        }
                    }
                }
                Some(Err(error)) => {
                    let error = error.into();
                    self.reset(code_of(&*error));
                    return Poll::Ready(Err(BodyFailed(describe(&*error))));
                }
                None => self.hand_over(Bytes::new(), true),
            }
        }
    }

    fn take(&mut self, piece: Bytes) {
        let last = self.body.is_end_stream();
        if piece.is_empty() {
            if last {
                self.hand_over(piece, true);
            }
        } else if matches!(self.state, State::Fresh) {
            self.hand_over(piece, last);
        } else {
            // h2 asks for as much as it holds, once it holds it.
            self.stream.reserve_capacity(1);
            self.state = State::Blocked(piece, last);
        }
    }

    fn hand_over(&mut self, piece: Bytes, last: bool) {
        // It fails only where the endpoint has ended the stream.
        let ended = self.stream.send_data(piece, last).is_err();
        self.state = if ended || last { State::Over } else { State::Flowing };
    }

    /// h2 takes no such trailers; or no trailers any more, since the stream has ended.
    fn refused(&mut self, error: &h2::Error) -> Poll<Result<(), BodyFailed>> {
        use std::task::Waker;
        if self.stream.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.reset(Code::CANCEL);
        Poll::Ready(Err(BodyFailed(format!("its trailers cannot be sent: {error}"))))
    }
}
