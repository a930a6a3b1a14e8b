//! Answers that are at hand as a whole: fixed ones, and older ones.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    response,
};
use http_body::Frame;

use crate::{
    policy::fallback::{Body, Grpc, Respond},
    proxy::{
        answer::Answer,
        asked::Asked,
        grpc::{Dialect, status, web::WebCall},
        manner::Manner,
    },
};

/// An answer, in the dialect that an endpoint would have spoken.
pub(in crate::proxy) struct Given {
    pub(in crate::proxy) head: response::Parts,
    pub(in crate::proxy) body: Bytes,
    pub(in crate::proxy) trailers: Option<HeaderMap>,
}

impl Given {
    /// As the app reads it, and how long its body is then.
    pub(super) fn into_response(self, asked: &Asked, _manner: &Manner) -> (Response<Answer>, usize) {
        let Self { mut head, mut body, mut trailers } = self;
        if let Dialect::GrpcWeb { .. } = asked.terms.dialect
            && let Some(web) = WebCall::translate(&mut asked.head.headers.clone())
            && let Some(encoder) = web.translate_answer(&mut head, body.is_empty() && trailers.is_none())
        {
            let mut encoded = BytesMut::from(&encoder.data(body)[..]);
            encoded.put(encoder.finish(trailers.take().as_ref()));
            body = encoded.freeze();
            head.headers.remove(CONTENT_LENGTH);
        }
        let length = body.len();
        let mut frames = VecDeque::new();
        if !body.is_empty() {
            frames.push_back(Frame::data(body));
        }
        frames.extend(trailers.map(Frame::trailers));
        let answer = if frames.is_empty() { Answer::Empty } else { Answer::Given(frames) };
        (Response::from_parts(head, answer), length)
    }
}

/// A fixed answer to a request; `None` when it has nothing to say in the dialect of the call.
pub(super) fn respond(respond: &Respond, body: &Bytes, asked: &Asked) -> Option<Given> {
    let (mut head, ()) = Response::new(()).into_parts();
    let named = respond.headers.iter().cloned();
    if !asked.terms.dialect.is_grpc() {
        if respond.grpc.is_some() && is_silent(respond) {
            return None;
        }
        head.status = respond.status;
        head.headers.extend(named);
        return Some(Given { head, body: body.clone(), trailers: None });
    }
    let of_message = |(name, _): &(http::HeaderName, HeaderValue)| name != CONTENT_TYPE;
    match respond.grpc.as_ref()? {
        Grpc::Message(message) => {
            head.headers.extend(named.filter(of_message));
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            Some(Given { head, body: framed(message), trailers: Some(ok_trailers()) })
        }
        Grpc::Status(code, text) => {
            head.headers = status::trailers(*code, text);
            head.headers.extend(named.filter(of_message));
            let content_type = asked.terms.dialect.content_type();
            head.headers.extend(content_type.map(|value| (CONTENT_TYPE, value)));
            Some(Given { head, body: Bytes::new(), trailers: None })
        }
    }
}

/// Whether an answer is for gRPC alone: nothing of it speaks to HTTP.
fn is_silent(respond: &Respond) -> bool {
    respond.headers.is_empty() && respond.status == http::StatusCode::OK && respond.body == Body::Bytes(Bytes::new())
}

/// One message of gRPC's, not compressed (grpc/grpc, `doc/PROTOCOL-HTTP2.md`, Length-Prefixed-Message).
fn framed(message: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(message);
    frame.freeze()
}

fn ok_trailers() -> HeaderMap {
    HeaderMap::from_iter([(status::GRPC_STATUS, HeaderValue::from_static("0"))])
}
