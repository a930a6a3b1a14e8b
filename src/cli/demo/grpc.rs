//! gRPC as far as the demo needs it: a call of one message for one message, and its answer.
//!
//! Like an app's own gRPC library it keeps one HTTP/2 connection and knows nothing of outrigger. Messages are
//! framed by hand (a byte of flags, the length, the message; grpc/grpc `doc/PROTOCOL-HTTP2.md`), and empty.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::Mutex};

use super::client::ClientError;

/// A message without content.
pub(crate) const EMPTY_MESSAGE: &[u8] = &[0; 5];
/// What says that a request or an answer is gRPC.
pub(crate) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: &str = "grpc-status";
/// Bytes of an answer that are read.
const LONGEST_ANSWER: usize = 64 * 1024;

/// gRPC calls to one address.
#[derive(Debug)]
pub(crate) struct Client {
    to: SocketAddr,
    shared: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// Without a connection yet.
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self { to, shared: Mutex::default() }
    }

    /// Makes a call; the head of what it returns has the status of the answer, also where that came last.
    ///
    /// # Errors
    /// [`ClientError`], when no whole answer came. It sets no limit on time; that is the app's to do.
    pub(crate) async fn call(&self, authority: &str) -> Result<Response<()>, ClientError> {
        let request = Request::post(format!("http://{authority}/demo.Search/Find"))
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header(header::TE, "trailers")
            .body(Full::from(EMPTY_MESSAGE))?;
        let (mut head, body) = self.connection().await?.send_request(request).await?.into_parts();
        let whole = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(ClientError::Body)?;
        if let Some(status) = whole.trailers().and_then(|trailers| trailers.get(STATUS)) {
            head.headers.insert(STATUS, status.clone());
        }
        Ok(Response::from_parts(head, ()))
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let mut shared = self.shared.lock().await;
        if let Some(connection) = shared.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let stream =
            TcpStream::connect(self.to).await.map_err(|error| ClientError::Connect(self.to.to_string(), error))?;
        // An old kernel that refuses is no harm.
        let _ = stream.set_nodelay(true);
        let (fresh, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // It ends when nobody holds `fresh` any more or the other side closes; its error reaches us by the calls.
        tokio::spawn(connection);
        *shared = Some(fresh.clone());
        Ok(fresh)
    }
}

/// Whether a request is a gRPC call.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE) == Some(&CONTENT_TYPE)
}

/// The HTTP status that says the same as an answer's grpc-status; without one, its own.
pub(crate) fn status(answer: &Response<()>) -> StatusCode {
    match answer.headers().get(STATUS).map(HeaderValue::as_bytes) {
        None | Some(b"0") => answer.status(),
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The trailers of an answer of this HTTP status.
pub(crate) fn trailers(status: StatusCode) -> HeaderMap {
    let code = if status.is_success() { "0" } else { "14" };
    HeaderMap::from_iter([(header::HeaderName::from_static(STATUS), HeaderValue::from_static(code))])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{net::TcpListener, time::Instant};

    use super::*;
    use crate::cli::demo::{character::Character, upstream::Upstream};

    #[tokio::test]
    async fn calls_share_a_connection_and_end_with_a_status() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(listener.local_addr().unwrap());
        let upstream = Arc::new(Upstream::new("search", "search-1", Character::Steady, Instant::now()));
        tokio::spawn(upstream.serve(listener));
        for _ in 0..3 {
            let answer = client.call("search").await.unwrap();
            assert_eq!((status(&answer), &answer.headers()[STATUS]), (StatusCode::OK, &HeaderValue::from_static("0")));
            assert_eq!(answer.headers()["x-instance"], "search-1");
        }
    }

    #[test]
    fn a_failure_is_told_in_trailers() {
        let mut answer = Response::new(());
        *answer.headers_mut() = trailers(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(&answer), StatusCode::SERVICE_UNAVAILABLE);
    }
}
