//! The answer's body on its way to the app, and with it the end of the call.
//!
//! An attempt's outcome is known when its body ends, not when its head arrives: a body cut short counts as
//! what it is. So the answer carries its call and its attempt, and whichever way it ends (read to its last
//! byte, broken by the endpoint, dropped because the app went away) the end is recorded there, once.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};

use super::{
    attempt::{Attempt, ENDPOINT_GONE},
    call::{self, Call},
    connection::Peer,
    grpc,
    hold::Flow,
    pause::Pause,
    tap::Tap,
    tongue::{Heard, Tongue, outcome_of, unsaid},
    unread,
    upload::{self, Progress, Upload},
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
    /// At hand as a whole.
    Given(VecDeque<Frame<Bytes>>),
    /// An endpoint's, as it comes.
    Relayed(Box<Relayed>),
}

#[derive(Debug)]
pub(super) struct Relayed {
    body: Flow,
    tongue: Tongue,
    /// A grpc-status has yet to come.
    due: bool,
    /// What ends with the body; `None` once it has.
    rest: Option<Rest>,
    /// The body has been cut short, and hyper has yet to be told how it ends.
    cut: Option<Result<Frame<Bytes>, CutShort>>,
    wire: Option<Arc<WireState>>,
    /// The stream that carries it, over HTTP/2.
    stream: Option<Rc<unread::Stream>>,
    idle: Option<Duration>,
    end: Option<Instant>,
    pause: Option<Pause>,
    total: Option<Pin<Box<Sleep>>>,
    /// Runs while a half-open breaker waits for this answer.
    probe: Option<Pin<Box<Sleep>>>,
    bytes: u64,
    /// Who listens.
    taps: Vec<Tap>,
}

/// An attempt whose answer has begun.
#[derive(Debug)]
pub(super) struct Relayable {
    pub(super) attempt: Attempt,
    pub(super) connection: Connection<Upload>,
    pub(super) progress: Option<Rc<Progress>>,
    pub(super) heard: Heard,
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

/// The answer cannot go on. hyper then breaks off the app's connection, or resets its stream with the code that
/// it finds in here, so that the app can tell.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut short: {}", .outcome.as_str())]
pub(super) struct CutShort {
    outcome: Outcome,
    #[source]
    reset: h2::Error,
}

impl Answer {
    /// Lets an endpoint's answer through.
    pub(super) fn relay(body: Flow, call: Call, attempted: Relayable, taps: Vec<Tap>, peer: &Peer) -> Self {
        let Relayable { attempt, connection, progress: upload, heard } = attempted;
        let Heard { tongue, outcome, due, .. } = heard;
        let (idle, end) = (call.service.config().policy.timeout.idle, call.deadline.end());
        let wire = peer.wire.clone();
        let rest = Rest { call, attempt, connection, upload, outcome };
        if body.is_end_stream() && !tongue.has_last_word() {
            taps.into_iter().for_each(|tap| tap.complete(rest.outcome));
            rest.complete(0);
            peer.answer_ended();
            return Self::Empty;
        }
        let probe = rest.attempt.is_probe().then(|| Box::pin(tokio::time::sleep(PROBE_LIMIT)));
        let stream = unread::current();
        if let Some(stream) = &stream {
            stream.limit(rest.call.worker.recently(), idle, end);
        }
        let rest = Some(rest);
        Self::Relayed(Box::new(Relayed {
            body,
            tongue,
            due,
            rest,
            cut: None,
            wire,
            stream,
            idle,
            end,
            pause: None,
            total: None,
            probe,
            bytes: 0,
            taps,
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
        let Some(rest) = &mut self.rest else { return Poll::Ready(self.cut.take()) };
        if let Some(stream) = &self.stream {
            stream.asked(rest.call.worker.recently());
        }
        if rest.call.worker.is_cut_off() {
            return self.cut_short(cx, Reason::ShuttingDown, "the sidecar stopped");
        }
        if rest.attempt.is_cut() {
            return self.cut(cx, Outcome::Failed(Reason::UpstreamReset), Outcome::Cancelled, ENDPOINT_GONE, None);
        }
        let frame = self.body.poll_frame(&mut rest.connection, cx);
        let fault = rest.upload.as_ref().and_then(|upload| upload.failure());
        self.poll_probe(cx);
        let Some(rest) = &mut self.rest else { return Poll::Ready(self.cut.take()) };
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.pause = None;
                if let Some(upload) = rest.upload.as_ref() {
                    upload.answer_moved();
                }
                if let (Some(trailers), true) = (frame.trailers_ref(), self.due) {
                    rest.outcome = outcome_of(trailers).unwrap_or_else(unsaid);
                    self.due = false;
                }
                // Nothing follows trailers, and hyper does not ask for it.
                let is_last = frame.is_trailers() || (self.body.is_end_stream() && !self.tongue.has_last_word());
                self.taps.iter_mut().for_each(|tap| tap.frame(&frame));
                let frame = self.tongue.tell(frame);
                self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                if is_last {
                    self.complete();
                } else if let end @ Poll::Ready(_) = self.poll_total(cx) {
                    return end;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                let last = self.tongue.last_word();
                self.bytes += last.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
                self.complete();
                Poll::Ready(last.map(Ok))
            }
            Poll::Ready(Some(Err(error))) => {
                match fault.map(call::upload_failure) {
                    // The exchange broke because the app broke its own half of it.
                    Some(fault) => self.cut(cx, fault.outcome, Outcome::Cancelled, &fault.detail, None),
                    None => {
                        let reason = if error.malformed { Reason::BadResponse } else { Reason::UpstreamReset };
                        let outcome = Outcome::Failed(reason);
                        self.cut(cx, outcome, outcome, &error.detail, error.code)
                    }
                }
            }
            Poll::Pending => {
                rest.call.alarm.listen(cx);
                match self.poll_total(cx) {
                    end @ Poll::Ready(_) => end,
                    Poll::Pending => self.poll_pause(cx),
                }
            }
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
        let moved = || self.rest.as_ref().and_then(|rest| rest.upload.as_ref()).map_or(0, |upload| upload.moved());
        let pause = self.pause.get_or_insert_with(|| Pause::begin(idle, moved()));
        // While the app sends, the endpoint may be listening.
        match pause.poll(cx, idle, moved) {
            Poll::Ready(()) => {
                self.cut_short(cx, Reason::RequestTimeout, "the endpoint paused for longer than `idle` allows")
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// `total`, or the caller's own deadline: the call is over, whatever is still to come.
    fn poll_total(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let Some(end) = self.end else { return Poll::Pending };
        let total = self.total.get_or_insert_with(|| Box::pin(sleep_until(end.into())));
        match total.as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.cut_short(cx, Reason::RequestTimeout, "the time for this call was over before its answer was")
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn complete(&mut self) {
        if let Some(mut rest) = self.rest.take() {
            if self.due {
                rest.outcome = unsaid();
            }
            self.taps.drain(..).for_each(|tap| tap.complete(rest.outcome));
            rest.complete(self.bytes);
            if let Some(wire) = &self.wire {
                wire.answer_ended();
            }
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
        self.cut(cx, outcome, attempt, why, None)
    }

    /// Ends the call now, and has hyper told in the next turn: it breaks off without a flush, and what has
    /// come so far, the head included, would not reach the app.
    fn cut(
        &mut self,
        cx: &Context<'_>,
        call: Outcome,
        attempt: Outcome,
        why: &str,
        code: Option<h2::Reason>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        self.taps.drain(..).for_each(|tap| tap.broke(call, why));
        if let Some(rest) = self.rest.take() {
            rest.cut_short(self.bytes, call, attempt, why);
        }
        let farewell = match (code, call) {
            // The endpoint's own reset is passed on as it is, where there is a way.
            (Some(_), _) if matches!(self.tongue, Tongue::Grpc) => None,
            (Some(code), _) => self.tongue.farewell(grpc::status::of_reset(code), why),
            (None, Outcome::Failed(reason)) if self.wire.is_none() || self.tongue.has_last_word() => {
                self.tongue.farewell(reason.grpc_status().into(), why)
            }
            _ => None,
        };
        let reset = h2::Error::from(code.unwrap_or(h2::Reason::INTERNAL_ERROR));
        self.cut = Some(farewell.ok_or(CutShort { outcome: call, reset }));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Relayed {
    /// hyper may drop a body that has given its last byte without asking for more; any other body that is
    /// dropped belongs to an app that went away.
    fn drop(&mut self) {
        if self.body.is_end_stream() && !self.tongue.has_last_word() {
            self.complete();
        } else if let Some(rest) = self.rest.take() {
            let unread = self.stream.as_ref().is_some_and(|stream| stream.is_over());
            let why = if unread { "the app took nothing of the answer for too long" } else { "the app went away" };
            rest.cut_short(self.bytes, Outcome::Cancelled, Outcome::Cancelled, why);
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
            Self::Given(frames) => Poll::Ready(frames.pop_front().map(Ok)),
            Self::Relayed(relayed) => relayed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Local(bytes) => bytes.is_none(),
            Self::Given(frames) => frames.is_empty(),
            Self::Relayed(relayed) => {
                let has_come = relayed.body.is_end_stream() && !relayed.tongue.has_last_word();
                relayed.cut.is_none() && (relayed.rest.is_none() || has_come)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Local(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Given(frames) if frames.iter().any(Frame::is_trailers) => SizeHint::default(),
            Self::Given(frames) => {
                SizeHint::with_exact(frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>() as u64)
            }
            // What we add is not known before.
            Self::Relayed(relayed) if matches!(relayed.tongue, Tongue::Web(_)) => SizeHint::default(),
            Self::Relayed(relayed) => relayed.body.size_hint(),
        }
    }
}
