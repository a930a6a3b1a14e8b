//! The answer's body on its way to the app, and with it the end of the call.
//!
//! An attempt's outcome is known when its body ends, not when its head arrives: a body cut short counts as
//! what it is. So the answer carries its call and its attempt, and whichever way it ends (read to its last
//! byte, broken by the endpoint, dropped because the app went away) the end is recorded there, once.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep_until};

use super::{
    attempt::{Attempt, ENDPOINT_GONE},
    call::{self, Call},
    connection::Peer,
    upload::{self, Progress, Upload, is_malformed},
    wire::WireState,
};
use crate::{
    model::{Outcome, Reason},
    upstream::Connection,
};

/// How long a half-open breaker waits for the end of its probe's answer. A download may take an hour; one that
/// has come this far after its head has shown that the service works.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// An answer's body.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nothing.
    Empty,
    /// Our own, as yet unsent.
    Local(Option<Bytes>),
    /// An endpoint's, as it comes.
    Relayed(Box<Relayed>),
}

#[derive(Debug)]
pub(super) struct Relayed {
    body: Incoming,
    /// What ends with the body; `None` once it has.
    rest: Option<Rest>,
    /// The body has been cut short, and hyper has yet to be told.
    cut: Option<CutShort>,
    wire: Arc<WireState>,
    idle: Option<Duration>,
    end: Option<Instant>,
    pause: Option<Pin<Box<Sleep>>>,
    total: Option<Pin<Box<Sleep>>>,
    /// Runs while a half-open breaker waits for this answer.
    probe: Option<Pin<Box<Sleep>>>,
    bytes: u64,
}

#[derive(Debug)]
struct Rest {
    call: Call,
    attempt: Attempt,
    connection: Connection<Upload>,
    upload: Option<Rc<Progress>>,
    /// What the call amounts to if the body is complete.
    outcome: Outcome,
}

/// The answer cannot go on. hyper then breaks off the app's connection, so that the app can tell.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the answer was cut short: {}", .0.as_str())]
pub(super) struct CutShort(Outcome);

impl Answer {
    /// Lets an endpoint's answer through.
    pub(super) fn relay(
        body: Incoming,
        call: Call,
        attempt: Attempt,
        connection: Connection<Upload>,
        upload: Option<Rc<Progress>>,
        peer: &Peer,
        outcome: Outcome,
    ) -> Self {
        let (idle, end) = (call.service.config().policy.timeout.idle, call.deadline.end());
        let wire = peer.wire.clone();
        let rest = Rest { call, attempt, connection, upload, outcome };
        if body.is_end_stream() {
            rest.complete(0);
            wire.answer_ended();
            return Self::Empty;
        }
        let probe = rest.attempt.is_probe().then(|| Box::pin(tokio::time::sleep(PROBE_LIMIT)));
        let rest = Some(rest);
        Self::Relayed(Box::new(Relayed {
            body,
            rest,
            cut: None,
            wire,
            idle,
            end,
            pause: None,
            total: None,
            probe,
            bytes: 0,
        }))
    }
}

impl Rest {
    /// The body has ended as it should: the connection may be used again, once the request is over, too.
    fn complete(self, bytes: u64) {
        let Self { mut call, attempt, connection, upload, outcome } = self;
        let now = call.worker.now();
        attempt.end(now, outcome);
        match upload {
            Some(upload) if !upload.has_ended() => upload::finish(call.worker.clone(), connection, upload),
            _ => call.worker.upstreams.give_back(connection, now),
        }
        if let Some(note) = call.note() {
            note.bytes_out = bytes;
        }
        call.end(now, outcome);
    }

    /// The body has ended before its time.
    fn cut_short(self, bytes: u64, outcome: Outcome, of_attempt: Outcome, why: &str) {
        let Self { mut call, attempt, .. } = self;
        let now = call.worker.now();
        attempt.end(now, of_attempt);
        if let Some(note) = call.note() {
            note.bytes_out = bytes;
            note.details = Some(why.to_owned());
        }
        call.end(now, outcome);
    }
}

impl Relayed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(self.cut.take().map(Err)) };
        if rest.call.worker.is_cut_off() {
            return self.cut_short(cx, Reason::ShuttingDown, "the sidecar stopped");
        }
        if rest.attempt.is_cut() {
            return self.cut(cx, Outcome::Failed(Reason::UpstreamReset), Outcome::Cancelled, ENDPOINT_GONE);
        }
        let frame = rest.connection.poll_frame(&mut self.body, cx);
        let fault = rest.upload.as_ref().and_then(|upload| upload.failure());
        self.poll_probe(cx);
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.pause = None;
                self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                // Nothing follows trailers, and hyper does not ask for it.
                if self.body.is_end_stream() || frame.is_trailers() {
                    self.complete();
                } else if let end @ Poll::Ready(_) = self.poll_total(cx) {
                    return end;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                match fault.map(call::upload_failure) {
                    // The exchange broke because the app broke its own half of it.
                    Some(fault) => self.cut(cx, fault.outcome, Outcome::Cancelled, &fault.detail),
                    None if is_malformed(&error) => self.cut_short(cx, Reason::BadResponse, &error.to_string()),
                    None => self.cut_short(cx, Reason::UpstreamReset, &error.to_string()),
                }
            }
            Poll::Pending => match self.poll_total(cx) {
                end @ Poll::Ready(_) => end,
                Poll::Pending => self.poll_pause(cx),
            },
        }
    }

    /// Lets a half-open breaker decide, when its probe's answer goes on and on.
    fn poll_probe(&mut self, cx: &mut Context<'_>) {
        if let Some(probe) = &mut self.probe
            && probe.as_mut().poll(cx).is_ready()
        {
            self.probe = None;
            if let Some(Rest { call, attempt, outcome, .. }) = &mut self.rest {
                attempt.settle(call.worker.now(), *outcome);
            }
        }
    }

    /// `idle`: the endpoint has paused for too long.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let Some(idle) = self.idle else { return Poll::Pending };
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(tokio::time::Instant::now() + idle)));
        match pause.as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.cut_short(cx, Reason::RequestTimeout, "the endpoint paused for longer than `idle` allows")
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// `total`: the call is over, whatever is still to come.
    fn poll_total(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let Some(end) = self.end else { return Poll::Pending };
        let total = self.total.get_or_insert_with(|| Box::pin(sleep_until(end.into())));
        match total.as_mut().poll(cx) {
            Poll::Ready(()) => self.cut_short(cx, Reason::RequestTimeout, "the call took longer than `total` allows"),
            Poll::Pending => Poll::Pending,
        }
    }

    fn complete(&mut self) {
        if let Some(rest) = self.rest.take() {
            rest.complete(self.bytes);
            self.wire.answer_ended();
        }
    }

    fn cut_short(
        &mut self,
        cx: &Context<'_>,
        reason: Reason,
        why: &str,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let outcome = Outcome::Failed(reason);
        // Being cut off by our own stop says nothing about the service.
        let attempt = if reason == Reason::ShuttingDown { Outcome::Cancelled } else { outcome };
        self.cut(cx, outcome, attempt, why)
    }

    /// Ends the call now, and has hyper told in the next turn: it breaks off without a flush, and what has
    /// come so far, the head included, would not reach the app.
    fn cut(
        &mut self,
        cx: &Context<'_>,
        call: Outcome,
        attempt: Outcome,
        why: &str,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if let Some(rest) = self.rest.take() {
            rest.cut_short(self.bytes, call, attempt, why);
        }
        self.cut = Some(CutShort(call));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Relayed {
    /// hyper may drop a body that has given its last byte without asking for more; any other body that is
    /// dropped belongs to an app that went away.
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.complete();
        } else if let Some(rest) = self.rest.take() {
            rest.cut_short(self.bytes, Outcome::Cancelled, Outcome::Cancelled, "the app went away");
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Local(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relayed(relayed) => relayed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Local(bytes) => bytes.is_none(),
            Self::Relayed(relayed) => relayed.cut.is_none() && (relayed.rest.is_none() || relayed.body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Local(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Relayed(relayed) => relayed.body.size_hint(),
        }
    }
}
