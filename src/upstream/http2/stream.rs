//! One exchange over one stream of a shared connection.
//!
//! The task that serves the app does all of it: it sends the request, lets its body go out, and waits for the
//! answer. No task and no channel stands between it and h2.

use std::{
    cell::RefCell,
    future::{Future as _, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason as Code, RecvStream, client::ResponseFuture};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use tokio::{sync::Notify, time::timeout};

use super::{
    body::Body,
    fault::Fault,
    pump::{BodyFailed, Pump},
    trunk::Lease,
};
use crate::{
    model::Reason,
    upstream::{ExchangeError, OnContinue, PayloadError},
};

/// Interim answers (1xx) that one request may bring: nobody counts on more, and they can be sent for ever.
const INTERIMS: u32 = 100;

/// How long the rest of an upload may go on once its exchange has ended well.
const REST_LIMIT: Duration = Duration::from_secs(60);

/// A lease on one stream. Dropping it before its exchange has ended cancels that.
pub struct Stream<B> {
    lease: Lease,
    upload: Upload<B>,
    answer: Answer,
}

enum Upload<B> {
    /// Nothing has been sent yet.
    None,
    /// Whoever uses the stream lets it go out.
    Here(Pump<B>),
    /// A task of its own does.
    Apart(Rc<Apart<B>>),
}

/// An upload that goes on by itself.
struct Apart<B> {
    pump: RefCell<Pump<B>>,
    over: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It is still to come, or to come to its end.
    Pending,
    /// It has ended, well or not.
    Ended,
}

/// Why there is no answer.
enum Unanswered {
    Stream(h2::Error),
    Body(BodyFailed),
    Interims,
}

impl<B> Stream<B> {
    pub(in crate::upstream) fn new(lease: Lease) -> Self {
        Self { lease, upload: Upload::None, answer: Answer::Pending }
    }

    /// Ends the upload, if it is still under way, and the stream with it.
    fn cancel(&mut self, code: Code) {
        match &mut self.upload {
            Upload::None => {}
            Upload::Here(pump) => pump.reset(code),
            // Its task finds out, and ends.
            Upload::Apart(apart) => apart.pump.borrow_mut().reset(code),
        }
    }

    fn upload_is_over(&self) -> bool {
        match &self.upload {
            Upload::None => true,
            Upload::Here(pump) => pump.is_over(),
            Upload::Apart(apart) => apart.pump.borrow().is_over(),
        }
    }
}

impl<B> Stream<B>
where
    B: http_body::Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends one request and waits for the head of its answer.
    pub(in crate::upstream) async fn exchange(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Body>, ExchangeError<B>> {
        let mut answer = self.send(request)?;
        let written = self.lease.trunk().traffic.writes();
        let mut interims = 0;
        let on_continue = answer.1.take();
        let answered = poll_fn(|cx| self.poll_answer(&mut answer.0, on_continue.as_ref(), &mut interims, cx)).await;
        self.lease.answered();
        let error = match answered {
            Ok(response) => {
                let (head, stream) = response.into_parts();
                let body = Body::new(stream, &head.headers);
                self.note_end(&body);
                return Ok(Response::from_parts(head, body));
            }
            Err(error) => error,
        };
        self.answer = Answer::Ended;
        match error {
            Unanswered::Stream(error) => {
                let trunk = self.lease.trunk();
                let mut fault = Fault::of(&error, trunk);
                // Nothing at all has been written since: the request has not left us.
                fault.refused |= !error.is_library() && trunk.traffic.writes() == written;
                let body = match std::mem::replace(&mut self.upload, Upload::None) {
                    Upload::Here(pump) => Some(pump.into_body()),
                    Upload::None | Upload::Apart(_) => None,
                };
                Err(fault.without_answer(body))
            }
            Unanswered::Body(BodyFailed(detail)) => Err(ExchangeError { detail, ..ExchangeError::default() }),
            Unanswered::Interims => {
                self.cancel(Code::ENHANCE_YOUR_CALM);
                let detail = format!("the endpoint sent {INTERIMS} interim answers and no other");
                Err(ExchangeError { reason: Some(Reason::BadResponse), detail, ..ExchangeError::default() })
            }
        }
    }

    /// Hands the head to h2.
    fn send(&mut self, request: Request<B>) -> Result<(ResponseFuture, Option<OnContinue>), ExchangeError<B>> {
        let unsent = |detail: String, request| ExchangeError {
            reason: Some(Reason::UpstreamReset),
            detail,
            unsent: Some(Box::new(request)),
            ..ExchangeError::default()
        };
        let Some(mut sender) = self.lease.take_sender() else {
            return Err(unsent("a stream carries one exchange".into(), request));
        };
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(Err(error)) = sender.poll_ready(&mut nobody) {
            self.lease.answered();
            return Err(unsent(Fault::of(&error, self.lease.trunk()).detail, request));
        }
        let (mut head, body) = request.into_parts();
        let on_continue = head.extensions.remove::<OnContinue>();
        let over = body.is_end_stream();
        match sender.send_request(Request::from_parts(head, ()), over) {
            Ok((answer, stream)) => {
                self.upload = Upload::Here(Pump::new(body, stream, over));
                Ok((answer, on_continue))
            }
            // The connection would take it: it is the head that cannot be sent.
            Err(error) => {
                self.lease.answered();
                let detail = format!("the request cannot be sent over HTTP/2: {error}");
                Err(ExchangeError { detail, ..ExchangeError::default() })
            }
        }
    }

    fn poll_answer(
        &mut self,
        answer: &mut ResponseFuture,
        on_continue: Option<&OnContinue>,
        interims: &mut u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<RecvStream>, Unanswered>> {
        loop {
            match answer.poll_informational(cx) {
                Poll::Ready(Some(Ok(interim))) => {
                    *interims += 1;
                    if *interims > INTERIMS {
                        return Poll::Ready(Err(Unanswered::Interims));
                    }
                    if let Some(on_continue) = on_continue
                        && interim.status() == StatusCode::CONTINUE
                    {
                        on_continue.call();
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Unanswered::Stream(error))),
                // The answer itself is there, or none will come.
                Poll::Ready(None) => return Pin::new(answer).poll(cx).map_err(Unanswered::Stream),
                Poll::Pending => break,
            }
        }
        if let Err(failed) = self.poll_upload(cx) {
            return Poll::Ready(Err(Unanswered::Body(failed)));
        }
        Poll::Pending
    }

    /// Lets the upload go on, if that is our business.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), BodyFailed> {
        match &mut self.upload {
            Upload::Here(pump) if !pump.is_over() => match pump.poll(cx) {
                Poll::Ready(Err(failed)) => Err(failed),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The next piece of the payload of the answer.
    pub(in crate::upstream) fn poll_frame(
        &mut self,
        body: &mut Body,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PayloadError>>> {
        if let Err(BodyFailed(detail)) = self.poll_upload(cx) {
            self.answer = Answer::Ended;
            return Poll::Ready(Some(Err(PayloadError { malformed: false, code: None, detail })));
        }
        let frame = ready!(body.poll_frame(&self.lease, cx));
        self.note_end(body);
        Poll::Ready(frame)
    }

    fn note_end(&mut self, body: &Body) {
        if body.is_end_stream() {
            self.answer = Answer::Ended;
        }
    }

    /// Lets the upload go on by itself, whoever reads the answer.
    pub(in crate::upstream) fn detach(&mut self) {
        match std::mem::replace(&mut self.upload, Upload::None) {
            Upload::Here(pump) if !pump.is_over() => {
                let apart = Rc::new(Apart { pump: RefCell::new(pump), over: Notify::new() });
                self.upload = Upload::Apart(apart.clone());
                tokio::task::spawn_local(async move {
                    // A failure has reset the stream, which its answer tells.
                    let _ = poll_fn(|cx| apart.pump.borrow_mut().poll(cx)).await;
                    apart.over.notify_one();
                });
            }
            other => self.upload = other,
        }
    }

    /// The exchange has ended well; what is left of its upload goes out, for a while.
    pub(in crate::upstream) fn finish(mut self) {
        if self.answer == Answer::Pending || self.upload_is_over() {
            return;
        }
        self.detach();
        tokio::task::spawn_local(async move {
            if let Upload::Apart(apart) = &self.upload {
                let _ = timeout(REST_LIMIT, apart.over.notified()).await;
            }
        });
    }
}

impl<B> Drop for Stream<B> {
    fn drop(&mut self) {
        if self.answer == Answer::Pending || !self.upload_is_over() {
            self.cancel(Code::CANCEL);
        }
    }
}

impl<B> std::fmt::Debug for Stream<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("answer", &self.answer).finish_non_exhaustive()
    }
}
