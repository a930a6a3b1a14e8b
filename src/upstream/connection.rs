//! One connection to one endpoint, and one exchange over it.

use std::{
    future::poll_fn,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::AbortHandle};

use super::{Target, Upstreams, stream::Stream};
use crate::{model::Reason, net::tcp::DialError};

/// A connection that is nobody's but the holder's. Dropping it closes it, once its request has been sent.
#[derive(Debug)]
pub struct Connection<B> {
    sender: SendRequest<B>,
    target: Arc<Target>,
    driver: AbortHandle,
    reused: bool,
    /// The endpoint speaks HTTP/1.0. hyper would answer in kind from now on, and a body of unknown length
    /// would be lost: such a connection carries one exchange.
    outdated: bool,
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
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Speaks HTTP/1.1 over a fresh stream. The connection is driven by a task of its own on this thread.
    pub(super) async fn open(
        stream: TcpStream,
        upstreams: &Rc<Upstreams<B>>,
        target: &Arc<Target>,
    ) -> Result<Self, DialError> {
        let (sender, driver) = Builder::new()
            .handshake(TokioIo::new(Stream::new(stream)))
            .await
            .map_err(|error| DialError::Refused(std::io::Error::other(error)))?;
        let driver = carry(upstreams, target, async move {
            // How it ended is told to whoever waits for an answer; an idle connection's end concerns nobody.
            let _ = driver.with_upgrades().await;
        });
        Ok(Self { sender, target: target.clone(), driver, reused: false, outdated: false })
    }

    /// Sends one request and waits for the head of its answer. The body of the answer keeps the connection
    /// busy: it may be given back once that body has ended.
    ///
    /// # Errors
    /// [`ExchangeError`]; the connection is of no more use then.
    pub async fn exchange(&mut self, request: Request<B>) -> Result<Response<Incoming>, ExchangeError<B>> {
        if !self.sender.is_ready()
            && let Err(error) = poll_fn(|cx| self.sender.poll_ready(cx)).await
        {
            return Err(ExchangeError {
                reason: Some(Reason::UpstreamReset),
                detail: describe(&error),
                unsent: Some(Box::new(request)),
            });
        }
        let answered = self.sender.try_send_request(request).await;
        self.outdated = answered.as_ref().is_ok_and(|response| response.version() < Version::HTTP_11);
        answered.map_err(|mut failed| {
            let unsent = failed.take_message().map(Box::new);
            let error = failed.error();
            let reason = if error.is_parse() {
                Some(Reason::BadResponse)
            } else if error.is_user() {
                None
            } else {
                Some(Reason::UpstreamReset)
            };
            ExchangeError { reason, detail: describe(error), unsent }
        })
    }
}

impl<B> Connection<B> {
    /// Whether the endpoint has closed it.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it has carried an exchange before: only then can the endpoint have closed it meanwhile.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Closes it at once, whatever is under way. Dropping one lets the rest of a request's body go out first.
    pub fn cut(self) {
        self.driver.abort();
    }

    /// Whether it can carry another exchange.
    pub fn is_reusable(&self) -> bool {
        !self.outdated && !self.is_closed() && self.target.retired().is_none()
    }

    /// What it leads to.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    pub(super) fn mark_reused(&mut self) {
        self.reused = true;
    }
}

/// Runs what carries a connection on a task of its own. It counts as open for as long, and is cut with the
/// others when its endpoint has been gone for the limit.
pub(super) fn carry<B>(
    upstreams: &Rc<Upstreams<B>>,
    target: &Arc<Target>,
    work: impl Future<Output = ()> + 'static,
) -> AbortHandle
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let open = Open { id, target: target.clone(), upstreams: Rc::downgrade(upstreams) };
    let task = tokio::task::spawn_local(async move {
        let _open = open;
        work.await;
    });
    let task = task.abort_handle();
    upstreams.opened(id, target, task.clone());
    task
}

/// Keeps the count of open connections right, however the driving task ends.
struct Open<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    id: u64,
    target: Arc<Target>,
    upstreams: Weak<Upstreams<B>>,
}

impl<B> Drop for Open<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn drop(&mut self) {
        match self.upstreams.upgrade() {
            Some(upstreams) => upstreams.closed(self.id, &self.target),
            None => self.target.connections.dec(),
        }
    }
}

/// An error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
