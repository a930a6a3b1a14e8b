//! The payload of an answer, over whichever HTTP it comes.

use std::{error::Error as _, io};

use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;

use super::{connection::describe, http2};

/// The payload of an answer; read with [`super::Connection::poll_frame`].
#[derive(Debug)]
pub enum Payload {
    /// Over HTTP/1.
    Http1(Incoming),
    /// Over HTTP/2.
    Http2(http2::Body),
}

/// Why a payload broke off.
#[derive(Debug)]
pub struct PayloadError {
    /// Its framing is wrong, or its peer said what cannot be: not just a connection that ended.
    pub malformed: bool,
    /// The error code that the endpoint reset the stream with (RFC 9113 §7).
    pub code: Option<h2::Reason>,
    /// More about it, for a person.
    pub detail: String,
}

impl Payload {
    /// Whether nothing follows.
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    /// How much follows, where that is known.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

impl From<hyper::Error> for PayloadError {
    fn from(error: hyper::Error) -> Self {
        Self { malformed: is_malformed(&error), code: None, detail: describe(&error) }
    }
}

/// Whether a body ended because its framing is wrong, and not because its connection did: hyper hides the
/// difference in the kind of an `io::Error`.
pub fn is_malformed(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.is_parse()
        || source
            .is_some_and(|source| matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}
