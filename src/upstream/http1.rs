//! One HTTP/1.1 connection to one endpoint, and one exchange over it.
//!
//! hyper splits a connection in two: a handle that sends requests, and a driver that has to be polled for
//! anything to happen. Usually each driver gets a task of its own, and every call then goes back and forth
//! between two tasks through channels and wakers. Here whoever uses a [`Connection`] drives it, in the task
//! that serves the app: a call costs two polls instead of five. Where the two sides of an exchange must go
//! on independently (an upload that outlasts the head of its answer, a change of protocols) the driver does
//! get its task, by [`Connection::detach`].

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::{
    Target,
    bell::Bell,
    connection::{ExchangeError, Open, describe},
    dial::failure_beneath,
    stream::Patient,
};
use crate::{
    model::Reason,
    net::{stream::Stream, tcp::DialError},
};

/// How much of an answer may be read ahead of its app, and how long its head may be. hyper's own limit is
/// over three times that; what a stalled app costs us is worth more than the last bit of throughput.
const BUFFER: usize = 128 * 1024;

/// A connection that is nobody's but the holder's. Dropping it closes it; if it has been detached, once its
/// request has been sent.
pub struct Connection<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    sender: SendRequest<B>,
    driver: Driver,
    target: Arc<Target>,
    /// The endpoint speaks HTTP/1.0. hyper would answer in kind from now on, and a body of unknown length
    /// would be lost: such a connection carries one exchange.
    outdated: bool,
}

/// Who polls the other half.
enum Driver {
    /// Whoever uses the connection. Boxed for the want of a name for its type.
    User(Pin<Box<dyn Future<Output = hyper::Result<()>>>>, Bell, Open),
    /// A task of its own.
    Task(AbortHandle),
    /// Nobody any more: the connection is over.
    Ended,
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Speaks HTTP/1.1 over a fresh stream.
    pub(super) async fn open(stream: Stream, open: Open) -> Result<Self, DialError> {
        let target = open.target().clone();
        let (sender, half) = Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(Patient::new(stream)))
            .await
            .map_err(|error| DialError::Refused(std::io::Error::other(error)))?;
        let driver = Driver::User(Box::pin(half.with_upgrades()), Bell::new(), open);
        Ok(Self { sender, driver, target, outdated: false })
    }

    /// Sends one request and waits for the head of its answer. The body of the answer keeps the connection
    /// busy: it may be given back once that body has ended.
    ///
    /// # Errors
    /// [`ExchangeError`]; the connection is of no more use then.
    pub(super) async fn exchange(&mut self, request: Request<B>) -> Result<Response<Incoming>, ExchangeError<B>> {
        let ready = poll_fn(|cx| {
            if self.sender.is_ready() {
                return Poll::Ready(Ok(()));
            }
            self.drive(cx);
            self.sender.poll_ready(cx)
        });
        if let Err(error) = ready.await {
            return Err(ExchangeError {
                reason: Some(Reason::UpstreamReset),
                detail: describe(&error),
                unsent: Some(Box::new(request)),
                ..ExchangeError::default()
            });
        }
        let mut answer = pin!(match &self.driver {
            Driver::User(_, bell, _) => bell.still(|| self.sender.try_send_request(request)),
            Driver::Task(_) | Driver::Ended => self.sender.try_send_request(request),
        });
        let answered = poll_fn(|cx| {
            self.drive(cx);
            self.listen(cx, |cx| answer.as_mut().poll(cx))
        })
        .await;
        self.outdated = answered.as_ref().is_ok_and(|response| response.version() < Version::HTTP_11);
        answered.map_err(|mut failed| {
            let unsent = failed.take_message().map(Box::new);
            let error = failed.error();
            if let Some(refusal) = failure_beneath(error) {
                let (reason, detail) = (Some(Reason::TlsFailed), refusal.to_string());
                return ExchangeError { reason, detail, unsent, ..ExchangeError::default() };
            }
            let reason = if error.is_parse() {
                Some(Reason::BadResponse)
            } else if error.is_user() {
                None
            } else {
                Some(Reason::UpstreamReset)
            };
            ExchangeError { reason, detail: describe(error), unsent, ..ExchangeError::default() }
        })
    }

    /// The next piece of the body of the answer that came over this connection.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        // A small body has come with its head: no need to ask the socket for more.
        if let ready @ Poll::Ready(_) = self.listen(cx, |cx| Pin::new(&mut *body).poll_frame(cx)) {
            return ready;
        }
        self.drive(cx);
        self.listen(cx, |cx| Pin::new(body).poll_frame(cx))
    }

    /// Lets the connection go on by itself from now on.
    pub(super) fn detach(&mut self) {
        match std::mem::replace(&mut self.driver, Driver::Ended) {
            Driver::User(half, _, open) => {
                let task = tokio::task::spawn_local(async move {
                    // How it ends is told to whoever waits for an answer, or for the other protocol.
                    let _ = half.await;
                    drop(open);
                });
                self.driver = Driver::Task(task.abort_handle());
            }
            other => self.driver = other,
        }
    }

    /// Closes it at once, whatever is under way.
    pub(super) fn cut(self) {
        if let Driver::Task(task) = &self.driver {
            task.abort();
        }
    }

    /// Whether it is known to be closed. An idle connection may be without its being known: the next exchange
    /// finds out before it sends anything.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it can carry another exchange.
    pub(super) fn is_reusable(&self) -> bool {
        !self.outdated && self.target.retired().is_none() && !self.is_closed()
    }

    /// What it leads to.
    pub(super) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Puts it to rest until the next exchange: what happens on the socket meanwhile wakes nobody.
    pub(super) fn rest(&self) {
        if let Driver::User(_, bell, _) = &self.driver {
            bell.hold();
        }
    }

    /// Lets reads and writes happen, if that is our business.
    fn drive(&mut self, cx: &Context<'_>) {
        if let Driver::User(half, bell, _) = &mut self.driver {
            bell.heard_by(cx);
            if half.as_mut().poll(&mut Context::from_waker(bell.waker())).is_ready() {
                self.driver = Driver::Ended;
            }
        }
    }

    /// Polls the receiving end of what the driver sends. Where we drive, whatever can arrive has arrived just
    /// before, and the sockets ring for more.
    fn listen<T>(&self, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
        match &self.driver {
            Driver::User(_, bell, _) => bell.still(|| poll(&mut Context::from_waker(Waker::noop()))),
            Driver::Task(_) | Driver::Ended => poll(cx),
        }
    }
}

impl<B> std::fmt::Debug for Connection<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("target", &self.target).finish_non_exhaustive()
    }
}
