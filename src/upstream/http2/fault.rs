//! What an error of h2's says, in the terms of an exchange.

use std::{error::Error, io};

use h2::Reason as Code;

use super::{traffic::Traffic, trunk::Trunk};
use crate::{
    model::Reason,
    net::tcp::DialError,
    upstream::{ExchangeError, PayloadError},
};

/// An error of h2's, read.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) reason: Reason,
    pub(super) detail: String,
    /// The peer has not looked at the request: it refused the stream, or left it out by a GOAWAY. h2 reports
    /// GOAWAY to no other streams than those above its last id (RFC 9113 §6.8, §8.7).
    pub(super) refused: bool,
    /// The code that the peer reset the stream with.
    pub(super) code: Option<Code>,
}

impl Fault {
    /// Reads the error of a stream of this trunk.
    pub(super) fn of(error: &h2::Error, trunk: &Trunk) -> Self {
        let code = error.reason().filter(|_| error.is_reset() && error.is_remote());
        let refused = error.is_remote() && (error.is_go_away() || code == Some(Code::REFUSED_STREAM));
        if error.is_library() {
            // What h2 itself objects to is what the peer has sent.
            let detail = format!("the endpoint breaks HTTP/2: {error}");
            return Self { reason: Reason::BadResponse, detail, refused, code };
        }
        if let Some(refusal) = trunk.traffic.refusal() {
            return Self { reason: Reason::TlsFailed, detail: refusal.to_string(), refused, code };
        }
        let detail = match trunk.epitaph() {
            Some(epitaph) if error.is_io() => epitaph.to_owned(),
            _ if error.is_io() => format!("the endpoint closed the connection: {error}"),
            _ => error.to_string(),
        };
        Self { reason: Reason::UpstreamReset, detail, refused, code }
    }

    /// No answer came. `body` is what is left of the request's.
    pub(super) fn without_answer<B>(self, body: Option<B>) -> ExchangeError<B> {
        let Self { reason, detail, refused, code } = self;
        let body = body.filter(|_| refused);
        ExchangeError { reason: Some(reason), detail, refused, body, code, ..ExchangeError::default() }
    }

    /// The answer broke off.
    pub(super) fn in_payload(self) -> PayloadError {
        let Self { reason, detail, code, .. } = self;
        PayloadError { malformed: reason == Reason::BadResponse, code, detail }
    }
}

/// Why a peer and we have not come to speak HTTP/2; no request had been sent by then.
pub(super) fn never_agreed(error: Option<&h2::Error>, traffic: &Traffic) -> DialError {
    if traffic.is_http1() {
        return DialError::Protocol("the endpoint does not speak HTTP/2: set `protocol: http1`".into());
    }
    if let Some(refusal) = traffic.refusal() {
        return DialError::Tls(refusal);
    }
    match error {
        Some(error) if error.is_library() => {
            DialError::Protocol(format!("the endpoint does not speak HTTP/2: {error}"))
        }
        Some(error) => DialError::Refused(match error.get_io() {
            Some(cause) => io::Error::new(cause.kind(), format!("closed before HTTP/2 could begin: {cause}")),
            None => io::Error::new(io::ErrorKind::ConnectionReset, error.to_string()),
        }),
        None => DialError::Refused(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the endpoint closed the connection before HTTP/2 could begin",
        )),
    }
}

/// The code to reset a stream with whose request broke off: that which its own peer gave, if it gave one.
pub(super) fn code_of(error: &(dyn Error + 'static)) -> Code {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason) {
            return code;
        }
        cause = error.source();
    }
    Code::CANCEL
}
