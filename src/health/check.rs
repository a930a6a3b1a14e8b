//! One check of one endpoint.

use std::{
    future::poll_fn,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::ResponseFuture;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::{
    config::{Protocol, Service},
    net::{stream::Stream, tcp::DialError, tls::Offer},
    policy::health::Probe,
    service::{Live, now},
    upstream,
};

/// Who asks.
const USER_AGENT: &str = concat!("outrigger/", env!("CARGO_PKG_VERSION"), " health check");

/// The longest answer over HTTP/2 that is read, in bytes; what a gRPC health service says has seven.
const LONGEST: usize = 1024;

/// The longest head of it, in bytes.
const LONGEST_HEAD: u32 = 16 * 1024;

/// What is asked of the endpoints of one service.
pub(super) struct Check {
    probe: Probe,
    timeout: Duration,
    /// A path is asked for over HTTP/2: the endpoints may speak nothing else.
    http2: bool,
}

impl Check {
    /// The check that a service wants of its endpoints, if it wants any.
    pub(super) fn of(service: &Service) -> Option<Self> {
        let settings = service.policy.health_check.as_ref()?;
        let http2 = service.policy.protocol == Protocol::Http2;
        Some(Self { probe: settings.probe.clone(), timeout: settings.timeout, http2 })
    }

    /// Asks an endpoint how it is; the error says why it is not well.
    pub(super) async fn run(&self, live: &Live) -> Result<(), String> {
        let deadline = now() + self.timeout;
        let asking = tokio::time::timeout_at(deadline.into(), self.ask(live, deadline));
        asking.await.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.timeout)))
    }

    async fn ask(&self, live: &Live, deadline: Instant) -> Result<(), String> {
        let offer = match (&self.probe, self.http2) {
            (Probe::Tcp, _) => Offer::Bytes,
            (Probe::Http(_), false) => Offer::Http1,
            (Probe::Http(_), true) | (Probe::Grpc(_), _) => Offer::Http2,
        };
        let opened = upstream::open(live.target(), offer, Some(deadline)).await;
        let (stream, _) = opened.map_err(|error| match error {
            DialError::Timeout => "it does not accept connections in time".to_owned(),
            DialError::Refused(error) => error.to_string(),
            DialError::Tls(error) => error.to_string(),
            DialError::Protocol(detail) => detail,
        })?;
        match &self.probe {
            Probe::Tcp => Ok(()),
            Probe::Http(path) if self.http2 => over_http2(stream, path, live).await,
            Probe::Http(path) => over_http1(stream, path, &live.endpoint().authority).await,
            Probe::Grpc(service) => grpc(stream, service, live).await,
        }
    }
}

fn well(status: StatusCode) -> Result<(), String> {
    if status.is_success() { Ok(()) } else { Err(format!("it answers {}", status.as_u16())) }
}

async fn over_http1(stream: Stream, path: &str, authority: &str) -> Result<(), String> {
    let said = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // A connection that is over has brought the answer, or never will.
        _ = connection => answer.await,
    };
    well(answer.map_err(said)?.status())
}

async fn over_http2(stream: Stream, path: &str, live: &Live) -> Result<(), String> {
    let request = Request::get(uri(live, path)).header(header::USER_AGENT, USER_AGENT);
    let read = async |answer: ResponseFuture| well(answer.await.map_err(|error| error.to_string())?.status());
    exchange(stream, request, None, read).await
}

/// `grpc.health.v1.Health/Check` (grpc/grpc, `doc/health-checking.md`).
async fn grpc(stream: Stream, service: &str, live: &Live) -> Result<(), String> {
    let said = |error: h2::Error| error.to_string();
    let request = Request::post(uri(live, "/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT);
    let read = async |answer: ResponseFuture| {
        let (head, mut body) = answer.await.map_err(said)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("it answers {}", head.status.as_u16()));
        }
        let mut message = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(said)?;
            let _ = body.flow_control().release_capacity(piece.len());
            message.extend_from_slice(&piece);
            if message.len() > LONGEST {
                return Err("its health service says more than there is to say".into());
            }
        }
        let trailers = body.trailers().await.map_err(said)?.unwrap_or(head.headers);
        match trailers.get("grpc-status").map(http::HeaderValue::as_bytes) {
            Some(b"0") => serving(&message),
            Some(code) => Err(format!("its health service answers with grpc-status {}", String::from_utf8_lossy(code))),
            None => Err("its health service ended without a grpc-status".into()),
        }
    };
    exchange(stream, request, Some(question(service)), read).await
}

fn uri(live: &Live, path: &str) -> String {
    let scheme = if live.target().tls().is_some() { "https" } else { "http" };
    format!("{scheme}://{}{path}", live.endpoint().authority)
}

/// One request over a connection of its own, which lives until its answer is read.
async fn exchange(
    stream: Stream,
    request: http::request::Builder,
    body: Option<Bytes>,
    read: impl AsyncFnOnce(ResponseFuture) -> Result<(), String>,
) -> Result<(), String> {
    let said = |error: h2::Error| error.to_string();
    let request = request.version(http::Version::HTTP_2).body(()).map_err(|error| error.to_string())?;
    let mut bounds = h2::client::Builder::new();
    bounds.enable_push(false).max_header_list_size(LONGEST_HEAD);
    let (mut sender, mut connection) = bounds.handshake(stream).await.map_err(said)?;
    let mut exchange = pin!(async {
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(said)?;
        let (answer, mut upload) = sender.send_request(request, body.is_none()).map_err(said)?;
        if let Some(body) = body {
            upload.send_data(body, true).map_err(said)?;
        }
        read(answer).await
    });
    tokio::select! {
        said = &mut exchange => said,
        _ = &mut connection => exchange.await,
    }
}

/// `HealthCheckRequest { string service = 1; }` in a frame of gRPC's.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// `HealthCheckResponse { ServingStatus status = 1; }`: SERVING is 1.
fn serving(frame: &[u8]) -> Result<(), String> {
    match frame.get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        Some([]) => Err("its health service does not know".into()),
        Some([0x08, 2, ..]) => Err("it says NOT_SERVING".into()),
        Some([0x08, 3, ..]) => Err("its health service does not know this service".into()),
        _ => Err("its health service does not make sense".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_protobuf() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("ab")[..], b"\0\0\0\0\x04\x0a\x02ab");
        let long = "x".repeat(300);
        assert_eq!(&question(&long)[5..8], b"\x0a\xac\x02");
        assert_eq!(serving(b"\0\0\0\0\x02\x08\x01"), Ok(()));
        for frame in [&b"\0\0\0\0\x02\x08\x02"[..], b"\0\0\0\0\0", b"\0\0\0\0\x02\x08\x03", b"", b"\0\0\0\0\x01\x09"] {
            assert!(serving(frame).is_err(), "{frame:?}");
        }
    }
}
