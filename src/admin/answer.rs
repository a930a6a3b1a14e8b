//! The replies of both doors: text, JSON, and problems as RFC 9457 has them.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full, combinators::UnsyncBoxBody};
use serde::Serialize;
use serde_json::json;

use crate::model::Reason;

/// A reply: most are whole, from memory; long ones are made as they are taken; one kind goes on.
pub(super) type Reply = Response<Either<Full<Bytes>, Streaming>>;

/// A body that is made as it is taken.
pub(super) type Streaming = UnsyncBoxBody<Bytes, Infallible>;

/// A body of this media type. Never cached: it is the state of this moment.
pub(super) fn reply(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Either::Left(Full::new(body.into())));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// A body of this media type that is made in pieces: whole if the first is all, else each when the one before has been
/// taken, so that what is long takes little memory, and other requests their turn.
pub(super) fn pieces(media: &'static str, mut pieces: impl Iterator<Item = String> + Send + 'static) -> Reply {
    let first = pieces.next().unwrap_or_default();
    let Some(second) = pieces.next() else { return reply(StatusCode::OK, media, first) };
    let all = [first, second].into_iter().chain(pieces);
    let mut reply = reply(StatusCode::OK, media, "");
    *reply.body_mut() = Either::Right(Pieces(Box::new(all)).boxed_unsync());
    reply
}

/// The body of what is made in pieces.
struct Pieces(Box<dyn Iterator<Item = String> + Send>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece.into()))))
    }
}

/// Marks a reply that goes on until its client has had enough.
#[derive(Debug, Clone, Copy)]
pub(super) struct GoesOn;

/// A stream of server-sent events (HTML Living Standard §9.2).
pub(super) fn events(body: Streaming) -> Reply {
    let mut reply = Response::new(Either::Right(body));
    reply.extensions_mut().insert(GoesOn);
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream;charset=UTF-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, max-age=0, must-revalidate"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// A JSON document, with a line feed so that it ends well in a terminal.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    document(status, "application/json", value)
}

/// A problem document (RFC 9457) without a `type`, so that `title` is the status's own phrase.
pub(super) fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or_default();
    let value = json!({ "status": status.as_u16(), "title": title, "detail": detail });
    document(status, "application/problem+json", &value)
}

/// The 404 for a name that no service bears, in the words of the proxy's own local reply.
pub(super) fn unknown_service(name: &str) -> Reply {
    let reason = Reason::UnknownService;
    let value = json!({
        "status": reason.http_status().as_u16(),
        "title": reason.title(),
        "detail": format!("no service has the name or alias {name:?}"),
        "service": name,
        "reason": reason.as_str(),
    });
    document(reason.http_status(), "application/problem+json", &value)
}

/// 405 with the methods that the path does take (RFC 9110 §15.5.6).
pub(super) fn method_not_allowed(allow: &'static str) -> Reply {
    let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("this path takes {allow} only"));
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    reply
}

fn document(status: StatusCode, media: &'static str, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            reply(status, media, body)
        }
        Err(error) => {
            tracing::error!(%error, "cannot write a view as JSON");
            reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", "cannot write this view as JSON\n")
        }
    }
}
