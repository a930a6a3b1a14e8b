//! HTTP/2 towards endpoints, against a server of h2's, and against raw frames for what that does not do.
//!
//! Where time matters the clock is paused and the transport is in memory: a paused clock runs ahead of sockets.

mod cancel;
mod exchange;
mod faults;
mod flow;
mod nonsense;
mod pool;
mod raw;
mod vitals;

use std::{cell::RefCell, future::Future, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Request, Response};
use http_body::Frame;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpListener,
    sync::{Notify, mpsc},
    task::{LocalSet, spawn_local},
};

use super::{Stream, Trunk};
use crate::upstream::{Connection, ExchangeError, Open, Payload, PayloadError, Target, Upstreams, Wish};

/// A request's body that a test feeds.
#[derive(Debug)]
pub(super) struct Upload {
    frames: mpsc::Receiver<Result<Frame<Bytes>, Broken>>,
    over: bool,
}

/// Feeds an [`Upload`].
pub(super) type Feed = mpsc::Sender<Result<Frame<Bytes>, Broken>>;

/// Why an upload broke off.
#[derive(Debug, thiserror::Error)]
#[error("the app broke off")]
pub(super) struct Broken(#[source] pub(super) Option<h2::Error>);

impl Upload {
    pub(super) fn none() -> Self {
        Self { frames: mpsc::channel(1).1, over: true }
    }

    pub(super) fn fed() -> (Feed, Self) {
        let (feed, frames) = mpsc::channel(16);
        (feed, Self { frames, over: false })
    }

    pub(super) fn of(data: &'static str) -> Self {
        let (feed, upload) = Self::fed();
        feed.try_send(Ok(Frame::data(data.into()))).expect("there is room");
        upload
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.frames.poll_recv(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}

pub(super) fn get(path: &str) -> Request<Upload> {
    post(path, Upload::none())
}

pub(super) fn post(path: &str, body: Upload) -> Request<Upload> {
    Request::builder().method("POST").uri(format!("http://orders{path}")).body(body).expect("a good request")
}

/// What a server does with a request.
pub(super) type Handler = Rc<dyn Fn(Asked) -> Pin<Box<dyn Future<Output = ()>>>>;

/// A request at a server.
pub(super) struct Asked {
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
    /// The number of its connection, from 0.
    pub(super) connection: usize,
}

impl Asked {
    /// Answers 200 with this for a body.
    pub(super) fn answer(mut self, body: &'static str) {
        let mut stream = self.respond.send_response(Response::new(()), false).expect("it is open");
        stream.send_data(body.into(), true).expect("it is open");
    }
}

pub(super) fn handler<F: Future<Output = ()> + 'static>(act: impl Fn(Asked) -> F + 'static) -> Handler {
    Rc::new(move |asked| Box::pin(act(asked)))
}

/// Answers with the number of the connection.
pub(super) fn numbered() -> Handler {
    handler(|asked| async move {
        let number = asked.connection.to_string();
        let mut asked = asked;
        let mut stream = asked.respond.send_response(Response::new(()), false).expect("it is open");
        stream.send_data(number.into(), true).expect("it is open");
    })
}

/// Serves one connection of h2's.
pub(super) async fn serve<T>(transport: T, settings: h2::server::Builder, connection: usize, handler: Handler)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(mut server) = settings.handshake::<_, Bytes>(transport).await else { return };
    while let Some(Ok((request, respond))) = server.accept().await {
        spawn_local(handler(Asked { request, respond, connection }));
    }
}

/// An endpoint of h2's over TCP.
pub(super) async fn endpoint(settings: h2::server::Builder, handler: Handler) -> Arc<Target> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    spawn_local(async move {
        for connection in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            stream.set_nodelay(true).expect("it is open");
            spawn_local(serve(stream, settings.clone(), connection, handler.clone()));
        }
    });
    target(addr)
}

pub(super) fn target(addr: std::net::SocketAddr) -> Arc<Target> {
    Arc::new(Target::new(addr, "orders".into(), None, crate::telemetry::ServiceMetrics::default()))
}

pub(super) fn nowhere() -> Arc<Target> {
    target(([127, 0, 0, 1], 1).into())
}

/// A trunk in memory, and the other end of it.
pub(super) async fn trunk(settings: h2::server::Builder, handler: Handler) -> Rc<Trunk> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    spawn_local(serve(theirs, settings, 0, handler));
    open(ours).await
}

pub(super) async fn open(ours: DuplexStream) -> Rc<Trunk> {
    let open = Open::new(nowhere(), Rc::default());
    Trunk::open(ours, open, Rc::new(Notify::new())).await.expect("it speaks HTTP/2")
}

pub(super) fn lease(trunk: &Rc<Trunk>) -> Stream<Upload> {
    Stream::new(trunk.lease(crate::upstream::now()).expect("there is room"))
}

/// Runs a test as a worker runs its calls.
pub(super) fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(bounded(test)));
}

/// The same, with a clock that jumps.
pub(super) fn run_paused<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(LocalSet::new().run_until(test));
}

async fn bounded<F: Future<Output = ()>>(test: F) {
    tokio::time::timeout(Duration::from_secs(20), test).await.expect("it does not hang");
}

/// Lets everybody else do what can be done without a socket or a clock.
pub(super) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Waits until something is so, letting everybody else go on.
pub(super) async fn until(mut so: impl FnMut() -> bool) {
    while !so() {
        tokio::task::yield_now().await;
    }
}

/// Reads an answer to its end: the data, and the trailers.
pub(super) async fn read(
    connection: &mut Connection<Upload>,
    payload: &mut Payload,
) -> Result<(Vec<u8>, Option<http::HeaderMap>), PayloadError> {
    let mut data = Vec::new();
    while let Some(frame) = next(connection, payload).await {
        match frame?.into_data() {
            Ok(piece) => data.extend_from_slice(&piece),
            Err(frame) => return Ok((data, frame.into_trailers().ok())),
        }
    }
    Ok((data, None))
}

pub(super) async fn next(
    connection: &mut Connection<Upload>,
    payload: &mut Payload,
) -> Option<Result<Frame<Bytes>, PayloadError>> {
    std::future::poll_fn(|cx| connection.poll_frame(payload, cx)).await
}

/// Exchanges one request over a stream of a trunk, and reads the answer.
pub(super) async fn call(trunk: &Rc<Trunk>, request: Request<Upload>) -> Result<Vec<u8>, ExchangeError<Upload>> {
    let mut connection = Connection::Http2(lease(trunk));
    let (_, mut payload) = connection.exchange(request).await?.into_parts();
    let read = read(&mut connection, &mut payload).await;
    Ok(read.expect("the answer is whole").0)
}

/// Takes a connection from the pool, or opens one, and exchanges one request over it.
pub(super) async fn through(upstreams: &Rc<Upstreams<Upload>>, target: &Arc<Target>) -> String {
    let mut connection = connect(upstreams, target).await;
    let (_, mut payload) = connection.exchange(get("/")).await.expect("an answer").into_parts();
    let (data, _) = read(&mut connection, &mut payload).await.expect("the answer is whole");
    upstreams.give_back(connection, crate::upstream::now());
    String::from_utf8(data).expect("text")
}

pub(super) async fn connect(upstreams: &Rc<Upstreams<Upload>>, target: &Arc<Target>) -> Connection<Upload> {
    if let Some(connection) = upstreams.idle(target, Wish::Http2, crate::upstream::now()) {
        return connection;
    }
    upstreams.connect(target, Wish::Http2, None).await.expect("it is there")
}

/// A log that a server's handlers share with their test.
pub(super) type Log<T> = Rc<RefCell<Vec<T>>>;
