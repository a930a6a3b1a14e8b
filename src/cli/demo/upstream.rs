//! An upstream to try things with: says who it is, and fails on demand or on a schedule.
//!
//! It is the other end of the demo and of the compose example, so that neither needs an image or a
//! program of somebody else's. It is as strict with its memory as the sidecar: bodies are counted and
//! dropped as they come, long answers are made as they go, connections have a limit.
//!
//! | path | answer |
//! |---|---|
//! | `/`, or any other | 200 and JSON: service, instance, method, path, bytes received |
//! | `/status/NNN` | this status |
//! | `/delay/MS` | as `/`, after so many milliseconds, 60,000 at most |
//! | `/bytes/N` | so many zero bytes, 1 GiB at most |
//!
//! Its [`Character`] comes first, whatever the path. Over HTTP/2 it also answers gRPC, with an empty message to
//! whatever is asked.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    character::{Behaviour, Character},
    grpc,
};

/// The header that names the instance which answered.
pub(crate) const INSTANCE: &str = "x-instance";
/// Connections at once; the next one waits in the kernel's queue.
const CONNECTIONS: usize = 4_096;
/// How long a connection may take to say which HTTP it speaks.
const FIRST_BYTES: Duration = Duration::from_secs(5);
/// How long a hanging call is held before it gets a 503 after all.
const HANG: Duration = Duration::from_secs(60);
const LONGEST_DELAY_MS: u64 = 60_000;
const LONGEST_ANSWER: u64 = 1 << 30;
static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// One instance of a demo service.
#[derive(Debug)]
pub(crate) struct Upstream {
    service: String,
    instance: String,
    character: Character,
    start: Instant,
    calls: AtomicU64,
}

impl Upstream {
    /// An instance whose schedule began at `start`.
    pub(crate) fn new(service: &str, instance: &str, character: Character, start: Instant) -> Self {
        Self { service: service.to_owned(), instance: instance.to_owned(), character, start, calls: AtomicU64::new(0) }
    }

    /// Serves until it is dropped, which closes every connection at once.
    ///
    /// # Errors
    /// When the listener itself fails; a lack of file descriptors passes and is waited out.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                    let stream = match accepted {
                        Ok((stream, _)) => stream,
                        Err(error) if is_passing(&error) => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    // Without it the kernel holds small answers back; where it refuses we are merely slower.
                    let _ = stream.set_nodelay(true);
                    let upstream = Arc::clone(&self);
                    connections.spawn(async move {
                        let answer = service_fn(move |request| {
                            let upstream = Arc::clone(&upstream);
                            async move { Ok::<_, Infallible>(upstream.answer(request).await) }
                        });
                        // A peer that breaks off or speaks nonsense ends its own connection and nothing else.
                        if speaks_http2(&stream).await {
                            let mut builder = http2::Builder::new(TokioExecutor::new());
                            let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer).await;
                            return;
                        }
                        let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer).await;
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Content> {
        let (head, body) = request.into_parts();
        let received = drain(body).await;
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut answer = match self.character.behaviour(self.start.elapsed(), call) {
            Behaviour::Answer(after) => {
                tokio::time::sleep(after).await;
                self.by_path(&head.method, head.uri.path(), received).await
            }
            Behaviour::Fail(after) => {
                tokio::time::sleep(after).await;
                plain(StatusCode::SERVICE_UNAVAILABLE, "failing on schedule\n")
            }
            Behaviour::Hang => {
                tokio::time::sleep(HANG).await;
                plain(StatusCode::SERVICE_UNAVAILABLE, "hung on schedule\n")
            }
        };
        if grpc::is_call(&head.headers) {
            answer = in_grpc(answer.status());
        }
        if let Ok(instance) = HeaderValue::from_str(&self.instance) {
            answer.headers_mut().insert(INSTANCE, instance);
        }
        answer
    }

    async fn by_path(&self, method: &Method, path: &str, received: u64) -> Response<Content> {
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
            ("status", status) => match status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok()) {
                // 1xx is no final answer, and hyper would refuse to send it as one.
                Some(status) if !status.is_informational() => plain(status, ""),
                _ => plain(StatusCode::BAD_REQUEST, "a status is a number from 200 to 999\n"),
            },
            ("bytes", count) => match count.parse() {
                Ok(count) if count <= LONGEST_ANSWER => Response::new(Content::Zeros(count)),
                _ => plain(StatusCode::BAD_REQUEST, "a length is a number up to 1073741824\n"),
            },
            ("delay", delay) => match delay.parse() {
                Ok(delay) if delay <= LONGEST_DELAY_MS => {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                    self.card(method, path, received)
                }
                _ => plain(StatusCode::BAD_REQUEST, "a delay is a number of milliseconds up to 60000\n"),
            },
            _ => self.card(method, path, received),
        }
    }

    /// Who answers, and what it got.
    fn card(&self, method: &Method, path: &str, received: u64) -> Response<Content> {
        let card = serde_json::json!({
            "service": self.service,
            "instance": self.instance,
            "method": method.as_str(),
            "path": path,
            "received": received,
        });
        let mut answer = Response::new(Content::Text(Some(format!("{card}\n").into())));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }
}

/// The name of this machine or container, which tells instances apart.
pub(crate) fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

/// An answer's body: a text, or zeros that are made as they are sent.
#[derive(Debug)]
pub(crate) enum Content {
    Text(Option<Bytes>),
    Zeros(u64),
    /// A message of gRPC, and its trailers.
    Message(Option<Bytes>, Option<HeaderMap>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Message(message @ Some(_), _) => message.take(),
            Self::Message(None, trailers) => return Poll::Ready(trailers.take().map(|all| Ok(Frame::trailers(all)))),
            Self::Text(text) => text.take().filter(|text| !text.is_empty()),
            Self::Zeros(0) => None,
            Self::Zeros(left) => {
                let count = (*left).min(ZEROS.len() as u64);
                *left -= count;
                Some(Bytes::from_static(&ZEROS[..count as usize]))
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        if let Self::Message(message, trailers) = self {
            return message.is_none() && trailers.is_none();
        }
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Message(..) => return SizeHint::default(),
            Self::Text(text) => text.as_ref().map_or(0, |text| text.len() as u64),
            Self::Zeros(left) => *left,
        })
    }
}

/// Whether a connection begins with HTTP/2's preface, which no HTTP/1 request does.
async fn speaks_http2(stream: &TcpStream) -> bool {
    let mut first = [0; 3];
    // One that stays silent is HTTP/1's to wait for.
    matches!(timeout(FIRST_BYTES, stream.peek(&mut first)).await, Ok(Ok(3))) && first == *b"PRI"
}

/// The same answer as a gRPC service gives it: an empty message, and how it went in the trailers.
fn in_grpc(status: StatusCode) -> Response<Content> {
    let message = status.is_success().then(|| Bytes::from_static(grpc::EMPTY_MESSAGE));
    let mut answer = Response::new(Content::Message(message, Some(grpc::trailers(status))));
    answer.headers_mut().insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    answer
}

/// Counts a body's bytes and drops them; what a broken one had until then.
async fn drain(mut body: Incoming) -> u64 {
    let mut received = 0;
    while let Some(Ok(frame)) = body.frame().await {
        received += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    received
}

fn plain(status: StatusCode, text: &'static str) -> Response<Content> {
    let mut answer = Response::new(Content::Text(Some(Bytes::from_static(text.as_bytes()))));
    *answer.status_mut() = status;
    answer
}

/// Whether accepting may well work again soon: the connection died in the queue, or we lack descriptors.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | OutOfMemory)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Sends bytes to a fresh instance, and reads until it closes.
    async fn exchange(character: Character, request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let upstream = Arc::new(Upstream::new("orders", "orders-1", character, Instant::now()));
        let mut answer = Vec::new();
        tokio::select! {
            _ = upstream.serve(listener) => panic!("it stopped serving"),
            read = async {
                stream.write_all(request.as_bytes()).await?;
                stream.read_to_end(&mut answer).await
            } => read.unwrap(),
        };
        String::from_utf8(answer).unwrap()
    }

    async fn get(path: &str) -> String {
        exchange(Character::Steady, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    #[tokio::test]
    async fn it_says_who_it_is_and_what_it_got() {
        let post = "POST /a/b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
        let answer = exchange(Character::Steady, post).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("x-instance: orders-1\r\n"), "{answer}");
        let card: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let expected = serde_json::json!({
            "service": "orders", "instance": "orders-1", "method": "POST", "path": "/a/b", "received": 5
        });
        assert_eq!(card, expected);
    }

    #[tokio::test]
    async fn paths_ask_for_statuses_and_lengths() {
        assert!(get("/status/418").await.starts_with("HTTP/1.1 418"));
        assert!(get("/delay/1").await.starts_with("HTTP/1.1 200"));
        let zeros = get("/bytes/40000").await;
        assert_eq!(zeros.split_once("\r\n\r\n").unwrap().1, "\0".repeat(40_000));
        assert!(zeros.contains("content-length: 40000\r\n"));
    }

    #[tokio::test]
    async fn absurd_wishes_are_refused() {
        for path in [
            "/status/",
            "/status/99",
            "/status/101",
            "/status/-1",
            "/status/1e3",
            "/status/404/x",
            "/delay/60001",
            "/delay/99999999999999999999999",
            "/bytes/1073741825",
            "/bytes/ten",
            "/bytes/",
        ] {
            assert!(get(path).await.starts_with("HTTP/1.1 400"), "{path}");
        }
    }

    #[tokio::test]
    async fn nonsense_gets_an_answer_or_a_closed_connection() {
        assert!(exchange(Character::Steady, "\0\x01\x02 nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        let lies = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello";
        assert!(exchange(Character::Steady, lies).await.starts_with("HTTP/1.1 400"));
    }
}
