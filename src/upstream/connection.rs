//! One exchange with one endpoint, over whichever HTTP it speaks.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};

use super::{Payload, PayloadError, Target, http1, http2};
use crate::model::Reason;

/// What one exchange needs of a connection: over HTTP/1 the whole of it, over HTTP/2 one stream. Dropping it
/// gives up what is under way: over HTTP/1 the connection is closed (if it has been detached, once its request
/// has been sent), over HTTP/2 the stream is cancelled.
#[derive(Debug)]
pub enum Connection<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A connection that is nobody's but the holder's.
    Http1(http1::Connection<B>),
    /// One stream of a connection that many share.
    Http2(http2::Stream<B>),
}

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1 (or 1.0, if the endpoint answers so).
    Http1,
    /// HTTP/2.
    Http2,
}

/// What to do when an endpoint says "100 Continue": to be put among a request's extensions by who holds its body
/// back until then (RFC 9110 §10.1.1). It may be called more than once.
#[derive(Clone)]
pub struct OnContinue(Arc<dyn Fn() + Send + Sync>);

impl OnContinue {
    /// Does this.
    pub fn new(act: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(act))
    }

    pub(super) fn call(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for OnContinue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnContinue")
    }
}

/// Counts a connection as open for as long as its socket is.
#[derive(Debug)]
pub struct Open {
    target: Arc<Target>,
    of_worker: Rc<Cell<usize>>,
}

impl Open {
    pub(super) fn new(target: Arc<Target>, of_worker: Rc<Cell<usize>>) -> Self {
        target.metrics.upstream_connections.inc();
        of_worker.set(of_worker.get() + 1);
        Self { target, of_worker }
    }
}

impl Open {
    pub(super) fn target(&self) -> &Arc<Target> {
        &self.target
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.target.metrics.upstream_connections.dec();
        self.of_worker.set(self.of_worker.get() - 1);
    }
}

/// Why an exchange brought no answer, with the facts that decide whether it may be repeated.
#[derive(Debug)]
pub struct ExchangeError<B> {
    /// What went wrong: `upstream_reset` or `bad_response`; `None` when the request's own body failed,
    /// which is no fault of the endpoint's.
    pub reason: Option<Reason>,
    /// More about it, for a person.
    pub detail: String,
    /// The request, when not a byte of it was sent.
    pub unsent: Option<Box<Request<B>>>,
    /// The endpoint has said that it has not looked at the request (REFUSED_STREAM, or a GOAWAY that leaves it
    /// out; RFC 9113 §8.7): it may be repeated, whatever its method.
    pub refused: bool,
    /// Where it is refused, the request's body, or what is left of it.
    pub body: Option<B>,
    /// The error code that the endpoint reset the stream with (RFC 9113 §7).
    pub code: Option<h2::Reason>,
}

impl<B> Default for ExchangeError<B> {
    fn default() -> Self {
        Self { reason: None, detail: String::new(), unsent: None, refused: false, body: None, code: None }
    }
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Which HTTP it speaks: the request's head has to fit.
    pub fn version(&self) -> Version {
        match self {
            Self::Http1(_) => Version::Http1,
            Self::Http2(_) => Version::Http2,
        }
    }

    /// Sends one request and waits for the head of its answer. While the payload of the answer lasts, the
    /// connection has to be kept: it may be given back once that has ended.
    ///
    /// # Errors
    /// [`ExchangeError`]; the connection is of no more use then.
    pub async fn exchange(&mut self, mut request: Request<B>) -> Result<Response<Payload>, ExchangeError<B>> {
        match self {
            Self::Http1(connection) => {
                if let Some(on_continue) = request.extensions().get::<OnContinue>().cloned() {
                    hyper::ext::on_informational(&mut request, move |interim| {
                        if interim.status() == StatusCode::CONTINUE {
                            on_continue.call();
                        }
                    });
                }
                connection.exchange(request).await.map(|response| response.map(Payload::Http1))
            }
            Self::Http2(stream) => stream.exchange(request).await.map(|response| response.map(Payload::Http2)),
        }
    }

    /// The next piece of the payload of the answer that came over this connection.
    pub fn poll_frame(
        &mut self,
        payload: &mut Payload,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PayloadError>>> {
        match (self, payload) {
            (Self::Http1(connection), Payload::Http1(body)) => {
                connection.poll_frame(body, cx).map(|frame| frame.map(|frame| frame.map_err(PayloadError::from)))
            }
            (Self::Http2(stream), Payload::Http2(body)) => stream.poll_frame(body, cx),
            _ => Poll::Ready(Some(Err(PayloadError {
                malformed: false,
                code: None,
                detail: "the payload has come over another connection".into(),
            }))),
        }
    }

    /// Lets the request go on by itself from now on, whoever reads the answer.
    pub fn detach(&mut self) {
        match self {
            Self::Http1(connection) => connection.detach(),
            Self::Http2(stream) => stream.detach(),
        }
    }

    /// Ends what is under way at once.
    pub fn cut(self) {
        match self {
            Self::Http1(connection) => connection.cut(),
            Self::Http2(stream) => drop(stream),
        }
    }

    /// Whether it can carry another exchange. A stream carries one; the connection that it belongs to is kept
    /// all the same.
    pub fn is_reusable(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_reusable(),
            Self::Http2(_) => false,
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
