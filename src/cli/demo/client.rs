//! A plain HTTP/1.1 client: what an app in any language has, and no more.
//!
//! It knows nothing of outrigger: it keeps connections alive, reads whole answers of up to 1 MiB, and
//! sends a call anew when a kept connection turns out to be closed. What an answer *means*,
//! an [`Outcome`], is read from the status and from Proxy-Status (RFC 9209), as any app could read it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::upstream::INSTANCE;
use crate::model::{Outcome, Reason};

/// Bytes of an answer that are read.
const LONGEST_ANSWER: usize = 1024 * 1024;
/// Connections that are kept for the next call.
const IDLE: usize = 256;
/// Bytes of an instance's name that are kept.
const LONGEST_INSTANCE: usize = 64;

/// Why there is no answer; the message completes "no answer: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("cannot connect to {0}: {1}")]
    Connect(String, #[source] std::io::Error),
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
    #[error("the answer breaks off or is over 1 MiB: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0} cannot stand in a request")]
    Request(#[from] http::Error),
}

/// Where calls go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// An address, whatever the Host.
    Address(SocketAddr),
    /// What the system's resolver says of the Host, at port 80.
    Name,
}

/// Calls to one address, or to one name.
#[derive(Debug)]
pub(crate) struct Client {
    to: To,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Client {
    /// Without connections yet.
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self::to(To::Address(to))
    }

    /// The same, for a name perhaps.
    pub(crate) fn to(to: To) -> Self {
        Self { to, idle: Mutex::default() }
    }

    /// Gets a path under a Host.
    ///
    /// # Errors
    /// [`ClientError`], when no whole answer came. It sets no limit on time; that is the app's to do.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Result<Response<Bytes>, ClientError> {
        let request = || Request::get(path).header(header::HOST, host).body(Empty::new());
        while let Some(mut kept) = self.take() {
            // One that the other side has closed meanwhile says so at once, or when it is written to;
            // nothing has come back from it then, and a GET may be sent again.
            if kept.ready().await.is_err() {
                continue;
            }
            match kept.send_request(request()?).await {
                Ok(answer) => return self.read(kept, answer).await,
                Err(error) if error.is_canceled() || error.is_incomplete_message() => continue,
                Err(error) => return Err(error.into()),
            }
        }
        let stream = match self.to {
            To::Address(to) => {
                TcpStream::connect(to).await.map_err(|error| ClientError::Connect(to.to_string(), error))?
            }
            To::Name => {
                let connected = TcpStream::connect((host, 80)).await;
                connected.map_err(|error| ClientError::Connect(host.to_owned(), error))?
            }
        };
        // Without it small requests would wait for acknowledgements; an old kernel that refuses is no harm.
        let _ = stream.set_nodelay(true);
        let (mut fresh, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends when `fresh` is dropped or the other side closes; its error reaches us by the call.
        tokio::spawn(connection);
        let answer = fresh.send_request(request()?).await?;
        self.read(fresh, answer).await
    }

    async fn read(
        &self,
        mut connection: SendRequest<Empty<Bytes>>,
        answer: Response<hyper::body::Incoming>,
    ) -> Result<Response<Bytes>, ClientError> {
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(ClientError::Body)?.to_bytes();
        if connection.ready().await.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE {
                idle.push(connection);
            }
        }
        Ok(Response::from_parts(head, body))
    }

    fn take(&self) -> Option<SendRequest<Empty<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// How a call ended, as far as its answer tells: a local reply says so in Proxy-Status.
pub(crate) fn outcome(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let replies = headers.get_all("proxy-status").iter().filter_map(|value| value.to_str().ok());
    match replies.filter_map(local_reason).next() {
        Some(reason) => Outcome::Failed(reason),
        None => Outcome::of_status(status),
    }
}

/// The instance that says that it answered.
pub(crate) fn instance(headers: &HeaderMap) -> Option<Arc<str>> {
    let name = headers.get(INSTANCE)?.to_str().ok()?;
    Some(name.get(..LONGEST_INSTANCE).unwrap_or(name).into())
}

/// Reads `outrigger; error=…; details="REASON"`; an answer that a fallback gave has no error, and is none.
fn local_reason(proxy_status: &str) -> Option<Reason> {
    let mut parts = proxy_status.split(';').map(str::trim);
    if parts.next() != Some("outrigger") {
        return None;
    }
    let mut error = false;
    let mut reason = None;
    for part in parts {
        match part.split_once('=') {
            Some(("error", _)) => error = true,
            Some(("details", word)) => {
                let word = word.trim_matches('"');
                reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == word);
            }
            _ => {}
        }
    }
    reason.filter(|_| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome_of(status: u16, proxy_status: &str) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.append("proxy-status", "edge; error=http_response_timeout".parse().unwrap());
        headers.append("proxy-status", proxy_status.parse().unwrap());
        outcome(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn a_local_reply_tells_its_reason() {
        for reason in Reason::ALL {
            let value = format!("outrigger; error={}; details=\"{}\"", reason.proxy_error(), reason.as_str());
            assert_eq!(outcome_of(reason.http_status().as_u16(), &value), Outcome::Failed(reason));
        }
    }

    #[test]
    fn an_upstreams_own_answer_is_judged_by_its_status() {
        assert_eq!(
            outcome_of(503, "other; details=\"breaker_open\""),
            Outcome::of_status(StatusCode::SERVICE_UNAVAILABLE)
        );
        assert_eq!(outcome_of(404, "outrigger"), Outcome::Ok);
        assert_eq!(outcome_of(200, "outrigger; fallback=last_good; details=\"breaker_open\""), Outcome::Ok);
        assert_eq!(outcome_of(200, "outrigger; error=;;;=; details"), Outcome::Ok);
    }

    #[test]
    fn an_instances_name_is_cut_at_its_limit() {
        let mut headers = HeaderMap::new();
        assert_eq!(instance(&headers), None);
        headers.insert(INSTANCE, "x".repeat(1000).parse().unwrap());
        assert_eq!(instance(&headers).unwrap().len(), LONGEST_INSTANCE);
    }
}
