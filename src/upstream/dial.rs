//! A stream to an endpoint: TCP, and TLS where its service has it.

use std::{io, time::Instant};

use super::Target;
use crate::net::{
    stream::Stream,
    tcp::{self, DialError},
    tls::{Chosen, HandshakeError, Offer, failure_of},
};

/// Opens a stream of bytes to an endpoint, for what is none of HTTP; under TLS if its service has it.
///
/// # Errors
/// The endpoint refused, or is not who it should be, or `deadline` passed.
pub async fn dial(target: &Target, deadline: Option<Instant>) -> Result<Stream, DialError> {
    open(target, Offer::Bytes, deadline).await.map(|(stream, _)| stream)
}

/// Opens a stream to an endpoint, and tells what the endpoint chose of the offer; that is nothing in plain text.
///
/// # Errors
/// The endpoint refused, or is not who it should be, or `deadline` passed.
pub async fn open(target: &Target, offer: Offer, deadline: Option<Instant>) -> Result<(Stream, Chosen), DialError> {
    let stream = tcp::dial(target.addr, deadline).await?;
    let Some(tls) = &target.tls else { return Ok((stream.into(), Chosen::Nothing)) };
    let securing = tls.connect(stream, &target.host, offer);
    let secured = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), securing).await.map_err(|_| DialError::Timeout)?,
        None => securing.await,
    };
    secured.map_err(DialError::Tls)
}

/// The same error once more, for each of those who waited for one dial.
pub(super) fn copy(error: &DialError) -> DialError {
    match error {
        DialError::Timeout => DialError::Timeout,
        DialError::Refused(error) => DialError::Refused(match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        }),
        DialError::Tls(error) => DialError::Tls(error.clone()),
        DialError::Protocol(detail) => DialError::Protocol(detail.clone()),
    }
}

/// Why the peer broke TLS off, where this is what an error says that has an `io::Error` among its causes.
pub(super) fn failure_beneath(error: &(dyn std::error::Error + 'static)) -> Option<HandshakeError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<io::Error>().and_then(failure_of) {
            return Some(failure);
        }
        cause = error.source();
    }
    None
}
