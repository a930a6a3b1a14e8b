//! One request a connection, and a limit on all that a client may cost.
//!
//! No keep-alive: scrapes and commands are seconds apart, and a connection that ends with its answer needs no
//! idle limit, and stops no shutdown. A limit on the whole connection, from the accept to the last byte, covers
//! every way of being slow. Bodies of requests are never read.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::JoinSet,
};

use super::answer::{GoesOn, Reply};

/// Connections at once, a door; more wait in the listener's backlog.
pub(super) const CONNECTIONS: usize = 64;
/// From the accept to the end of the request's head.
const HEAD: Duration = Duration::from_secs(5);
/// From the accept to the last byte of the answer.
const WHOLE: Duration = Duration::from_secs(30);
/// The same for an answer that goes on.
const STREAM: Duration = Duration::from_secs(3700);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;

/// What both kinds of listener have in common.
pub(super) trait Accept: Send + Sync {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept_one(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept_one(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Io = UnixStream;

    async fn accept_one(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Serves connections for as long as the future is polled; dropping it drops them.
pub(super) async fn serve<Handler, Answering>(listener: &impl Accept, handler: Handler)
where
    Handler: Fn(Request<Incoming>) -> Answering + Clone + Send + 'static,
    Answering: Future<Output = Reply> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept_one().await {
            Ok(io) => {
                connections.spawn(connection(io, handler.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely; trying again at once would only burn the processor.
                tracing::warn!(%error, "cannot accept an operator's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection<Io, Handler, Answering>(io: Io, handler: Handler)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Handler: Fn(Request<Incoming>) -> Answering + Send + 'static,
    Answering: Future<Output = Reply> + Send + 'static,
{
    let streams = Arc::new(AtomicBool::new(false));
    let goes_on = streams.clone();
    let service = service_fn(move |request| {
        let (answering, streams) = (handler(request), streams.clone());
        async move {
            let reply = answering.await;
            streams.store(reply.extensions().get::<GoesOn>().is_some(), Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(reply)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .half_close(true) // `printf 'GET /metrics HTTP/1.0\r\n\r\n' | nc` is a client too
        .serve_connection(TokioIo::new(io), service);
    let mut serving = std::pin::pin!(serving);
    let mut served = tokio::time::timeout(WHOLE, &mut serving).await;
    if served.is_err() && goes_on.load(Ordering::Relaxed) {
        // A stream has an end of its own; this is for a client that takes nothing any more.
        served = tokio::time::timeout(STREAM, serving).await;
    }
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an operator's connection ended early"),
        Err(_) => tracing::debug!("an operator's connection took too long"),
    }
}
