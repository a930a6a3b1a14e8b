//! An app and an upstream that speak HTTP/2, by the `h2` crate: neither hides a frame from a test.

use std::{future::Future, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};

use super::{Origin, within};

/// One connection of an app that speaks HTTP/2.
pub(crate) struct App {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// `None` when there were none.
    pub(crate) trailers: Option<HeaderMap>,
    /// The frame with the head ended the stream.
    pub(crate) head_only: bool,
}

impl App {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).await.unwrap()).await
    }

    /// Speaks HTTP/2 over a connection that there is.
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (requests, connection) = within("HTTP/2", client::handshake(stream)).await.unwrap();
        Self { requests, driver: tokio::spawn(connection) }
    }

    /// Opens a stream; the caller writes the rest of the request, and reads the answer.
    pub(crate) async fn open(&self, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.try_open(request, end).await.unwrap()
    }

    /// The same, on a connection that may take no streams any more.
    pub(crate) async fn try_open(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut requests = within("a place for a stream", self.requests.clone().ready()).await?;
        requests.send_request(request, end)
    }

    /// A whole exchange; an empty body is none.
    pub(crate) async fn call(&self, request: Request<()>, body: impl Into<Bytes>) -> Answer {
        let body = body.into();
        let (response, mut upload) = self.open(request, body.is_empty()).await;
        if !body.is_empty() {
            upload.send_data(body, true).unwrap();
        }
        answer(response).await
    }

    /// A GET without more headers than it needs.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Answer {
        self.call(get(host, path), "").await
    }

    /// Waits for the end of the connection, and tells whether it was an orderly one.
    pub(crate) async fn closed(self) -> Result<(), h2::Error> {
        drop(self.requests);
        within("the end of the connection", self.driver).await.unwrap()
    }
}

impl Answer {
    /// A header's value as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A trailer's value as text.
    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `reason` of a local reply in HTTP's words.
    pub(crate) fn reason(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no problem document ({error}): {self:?}"));
        assert_eq!(problem["status"], self.status);
        let reason = problem["reason"].as_str().expect("a reason").to_owned();
        let proxy_status = self.header("proxy-status").expect("a Proxy-Status");
        assert!(proxy_status.ends_with(&format!("details=\"{reason}\"")), "{proxy_status}");
        reason
    }
}

/// A GET of a service.
pub(crate) fn get(host: &str, path: &str) -> Request<()> {
    Request::get(format!("http://{host}{path}")).body(()).unwrap()
}

/// A POST to a service.
pub(crate) fn post(host: &str, path: &str) -> Request<()> {
    Request::post(format!("http://{host}{path}")).body(()).unwrap()
}

/// An answer that must come whole.
pub(crate) async fn answer(response: ResponseFuture) -> Answer {
    try_answer(response).await.unwrap()
}

/// An answer, or how its stream ended.
pub(crate) async fn try_answer(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = within("the head of an answer", response).await?.into_parts();
    let head_only = body.is_end_stream();
    let bytes = within("a body", read(&mut body)).await?;
    let trailers = within("trailers", body.trailers()).await?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes, trailers, head_only })
}

/// Reads a body to its end, and gives back the room for it.
pub(crate) async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// A request, as an upstream sees it, and the way to answer it.
pub(crate) struct Stream {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
}

impl Stream {
    /// Sends a head and leaves the rest to the caller.
    pub(crate) fn head(&mut self, response: Response<()>) -> SendStream<Bytes> {
        self.respond.send_response(response, false).unwrap()
    }

    /// Answers with 200 and this body.
    pub(crate) fn ok(&mut self, body: impl Into<Bytes>) {
        let _ = self.head(Response::new(())).send_data(body.into(), true);
    }

    /// Waits until the peer resets the stream; the code that it gives.
    pub(crate) async fn reset(&mut self) -> h2::Reason {
        within("a reset", std::future::poll_fn(|cx| self.respond.poll_reset(cx))).await.unwrap()
    }

    /// Reads the request's body.
    pub(crate) async fn body(&mut self) -> Vec<u8> {
        read(self.request.body_mut()).await.unwrap_or_default()
    }
}

/// An upstream that speaks HTTP/2 without TLS and does this with each stream.
pub(crate) async fn origin<F, Fut>(handler: F) -> Origin
where
    F: Fn(Stream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let handler = Arc::new(handler);
    Origin::scripted(move |exchange| serve(exchange.stream, handler.clone())).await
}

/// Serves one connection.
pub(crate) async fn serve<F, Fut>(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, handler: Arc<F>)
where
    F: Fn(Stream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = server::handshake(stream).await else { return };
    let mut streams = tokio::task::JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        streams.spawn(handler(Stream { request, respond }));
    }
}

/// Sends each body back, with its trailers.
pub(crate) async fn echo(mut stream: Stream) {
    let mut down = stream.head(Response::new(()));
    let up = stream.request.body_mut();
    while let Some(Ok(data)) = up.data().await {
        let _ = up.flow_control().release_capacity(data.len());
        let _ = down.send_data(data, false);
    }
    let _ = match up.trailers().await {
        Ok(Some(trailers)) => down.send_trailers(trailers),
        _ => down.send_data(Bytes::new(), true),
    };
}
