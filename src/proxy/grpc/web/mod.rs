//! gRPC-Web (grpc/grpc, `doc/PROTOCOL-WEB.md`): what leaves for the endpoint is gRPC, and what comes back is
//! gRPC-Web again.
//!
//! A browser can neither read trailers nor count on HTTP/2. So its requests are those of gRPC under another
//! content type, and in its answers the trailers are one more frame at the end of the body. Where even bytes
//! are too much for it, either body is base64 (`-text`).
//!
//! Messages and metadata pass as they are, `-bin` metadata in its own base64 also under `-text`: the
//! document would spare that second encoding, but no client of today reads it so.
//!
//! An answer that is no gRPC (an error page, a 404 of plain HTTP) stays as it is: clients read its status,
//! as they do without us.

mod decode;
mod encode;

pub(in crate::proxy) use decode::Decoder;
pub(in crate::proxy) use encode::Encoder;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER},
    response,
};

use super::{ContentType, Dialect, status};

const X_GRPC_WEB: HeaderName = HeaderName::from_static("x-grpc-web");

/// One gRPC-Web call: what its app sent, and wants to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy) struct WebCall {
    /// The upload is base64.
    text_up: bool,
    /// The answer shall be.
    text_down: bool,
    /// How messages are written, as the app named it: `+proto`.
    format: Box<[u8]>,
}

impl WebCall {
    /// Makes a gRPC request's head of a gRPC-Web one's; `None`, and nothing is changed, if it is none.
    ///
    /// The length goes where the body will have another, `x-grpc-web` because it is none any more, and
    /// `Accept-Encoding` because trailers cannot be added to a body that was compressed as a whole. `Accept`
    /// stays: it says what the app takes, and gRPC servers do not look.
    pub(in crate::proxy) fn translate(headers: &mut HeaderMap) -> Option<Self> {
        let content_type = ContentType::parse(headers.get(CONTENT_TYPE)?.as_bytes())?;
        let Dialect::GrpcWeb { text: text_up } = content_type.dialect else { return None };
        let call = Self {
            text_up,
            text_down: accepted(headers).unwrap_or(text_up),
            format: content_type.format.to_ascii_lowercase().into(),
        };
        headers.insert(CONTENT_TYPE, call.content_type("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.remove(X_GRPC_WEB);
        headers.remove(ACCEPT_ENCODING);
        if text_up {
            headers.remove(CONTENT_LENGTH);
        }
        Some(call)
    }

    /// What turns the upload into gRPC's; `None` for one that is that already.
    pub(in crate::proxy) fn decoder(&self) -> Option<Decoder> {
        self.text_up.then(Decoder::default)
    }

    /// Makes a gRPC-Web answer's head of a gRPC one's, and tells what its body must go through; `None` for a
    /// body that passes as it is. `ended` says that there is none.
    ///
    /// An answer of nothing but a head with the status in it (trailers-only) keeps it there.
    pub(in crate::proxy) fn translate_answer(&self, head: &mut response::Parts, ended: bool) -> Option<Encoder> {
        let headers = &mut head.headers;
        if !is_grpc(headers) || is_encoded(headers) {
            return None;
        }
        headers.insert(CONTENT_TYPE, self.answer_content_type());
        let code = status::of(headers);
        if ended && code.is_some() {
            return None;
        }
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRAILER);
        Some(Encoder::new(self.text_down, code.unwrap_or_else(|| status::of_http(head.status))))
    }

    /// The content type of an answer to this call, a local reply included.
    pub(in crate::proxy) fn answer_content_type(&self) -> HeaderValue {
        self.content_type(if self.text_down { "application/grpc-web-text" } else { "application/grpc-web" })
    }

    fn content_type(&self, family: &str) -> HeaderValue {
        let whole = [family.as_bytes(), &self.format].concat();
        HeaderValue::from_maybe_shared(Bytes::from(whole)).expect("a piece of a header's value is one")
    }
}

/// Whether the app wants its answer as text; `None` if it leaves that open.
fn accepted(headers: &HeaderMap) -> Option<bool> {
    let wanted = headers.get_all(ACCEPT).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    wanted.filter_map(|media| ContentType::parse(media.trim_ascii())).find_map(|media| match media.dialect {
        Dialect::GrpcWeb { text } => Some(text),
        Dialect::Http | Dialect::Grpc => None,
    })
}

/// Whether an answer is gRPC's. One without a content type is, if it has a status.
fn is_grpc(headers: &HeaderMap) -> bool {
    match headers.get(CONTENT_TYPE) {
        Some(value) => ContentType::parse(value.as_bytes()).is_some_and(|media| media.dialect == Dialect::Grpc),
        None => headers.contains_key(status::GRPC_STATUS),
    }
}

/// Whether a body was compressed as a whole. Nobody asked for that.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests;
