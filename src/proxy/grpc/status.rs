//! `grpc-status` and `grpc-message`: how a gRPC call went, and how we tell of failures.
//!
//! A call that ends without a `grpc-status` has an end all the same, and the tables here say which: one for
//! answers of plain HTTP (a load balancer's error page), one for streams that were reset. Neither is
//! symmetric: gRPC's own servers must not use them backwards.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The header, or trailer, with the code.
pub(in crate::proxy) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The one with words for a person.
pub(in crate::proxy) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The codes by name (grpc/grpc, `doc/statuscodes.md`).
pub(in crate::proxy) mod code {
    pub(in crate::proxy) const OK: u16 = 0;
    pub(in crate::proxy) const CANCELLED: u16 = 1;
    pub(in crate::proxy) const UNKNOWN: u16 = 2;
    pub(in crate::proxy) const PERMISSION_DENIED: u16 = 7;
    pub(in crate::proxy) const RESOURCE_EXHAUSTED: u16 = 8;
    pub(in crate::proxy) const UNIMPLEMENTED: u16 = 12;
    pub(in crate::proxy) const INTERNAL: u16 = 13;
    pub(in crate::proxy) const UNAVAILABLE: u16 = 14;
    pub(in crate::proxy) const UNAUTHENTICATED: u16 = 16;
}

/// The longest message that we write, in bytes before they are encoded: peers may drop trailers over 8 KiB, and
/// each byte can become three.
const LONGEST_MESSAGE: usize = 1024;

/// The code that headers or trailers carry; `None` where they carry none. One that is no number of 16 bits
/// is UNKNOWN, as gRPC's C core reads it.
pub(in crate::proxy) fn of(headers: &HeaderMap) -> Option<u16> {
    let value = headers.get(GRPC_STATUS)?.as_bytes();
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    Some(digits.and_then(|digits| digits.parse().ok()).unwrap_or(code::UNKNOWN))
}

/// What an answer without a code amounts to (grpc/grpc, `doc/http-grpc-status-mapping.md`). A 200 is UNKNOWN:
/// a good answer has a code.
pub(in crate::proxy) fn of_http(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 | 431 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        429 | 502..=504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}

/// What a stream that its server reset amounts to (`doc/PROTOCOL-HTTP2.md`, Errors). Reasons that the table leaves
/// out, and those that nobody knows, are INTERNAL, as RFC 9113 §7 lets them be taken.
pub(in crate::proxy) fn of_reset(reason: Reason) -> u16 {
    match reason {
        Reason::REFUSED_STREAM => code::UNAVAILABLE,
        Reason::CANCEL => code::CANCELLED,
        Reason::ENHANCE_YOUR_CALM => code::RESOURCE_EXHAUSTED,
        Reason::INADEQUATE_SECURITY => code::PERMISSION_DENIED,
        _ => code::INTERNAL,
    }
}

/// A `grpc-message`: UTF-8, percent-encoded but for `%x20-%x24` and `%x26-%x7E` (`doc/PROTOCOL-HTTP2.md`,
/// Responses). Spaces at either end are encoded, too, since HTTP would drop them (RFC 9113 §8.2.1). What is
/// over a kilobyte is cut off.
pub(in crate::proxy) fn message(text: &str) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let fits = (0..=text.len().min(LONGEST_MESSAGE)).rev().find(|at| text.is_char_boundary(*at));
    let text = &text[..fits.unwrap_or(0)];
    let last = text.len().saturating_sub(1);
    let mut encoded = Vec::with_capacity(text.len() + 16);
    for (at, byte) in text.bytes().enumerate() {
        let stays = match byte {
            b' ' => at != 0 && at != last,
            b'%' => false,
            _ => byte.is_ascii_graphic(),
        };
        if stays {
            encoded.push(byte);
        } else {
            encoded.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    HeaderValue::from_maybe_shared(Bytes::from(encoded)).expect("printable ASCII is a header's value")
}

/// The end of a call in gRPC's words: the trailers of an answer, or the rest of the head of one that has nothing
/// but trailers.
pub(in crate::proxy) fn trailers(code: u16, text: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(GRPC_STATUS, HeaderValue::from(code));
    if !text.is_empty() {
        trailers.insert(GRPC_MESSAGE, message(text));
    }
    trailers
}

#[cfg(test)]
mod tests;
