//! The answer's body on its way to a gRPC-Web app: frames as they are, the trailers as one more, and for
//! `-text` all of it in base64.
//!
//! Text is padded piece by piece. To hold back what does not fill a group would also hold back the end of a
//! message, until the next one comes along; clients expect padding wherever a server flushes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;

use crate::proxy::grpc::status;

/// What the first byte of a frame says when it holds trailers, uncompressed.
const TRAILERS: u8 = 0x80;

/// What a frame has before its payload: a byte of flags, and the length.
const FRAME_HEAD: usize = 5;

/// Encodes one answer's body.
#[derive(Debug)]
pub(in crate::proxy) struct Encoder {
    text: bool,
    /// What the call amounts to if its trailers do not say.
    unsaid: u16,
}

impl Encoder {
    /// `unsaid` is the grpc-status of an answer that ends without one.
    pub(super) fn new(text: bool, unsaid: u16) -> Self {
        Self { text, unsaid }
    }

    /// A piece of the body.
    pub(in crate::proxy) fn data(&self, piece: Bytes) -> Bytes {
        if self.text { STANDARD.encode(piece).into() } else { piece }
    }

    /// The end of the body: a frame with the trailers, lower case, a line `name: value` each. An answer that
    /// ended without a grpc-status gets one here, so that no app is left without an end.
    pub(in crate::proxy) fn finish(self, trailers: Option<&HeaderMap>) -> Bytes {
        let mut frame = BytesMut::with_capacity(128);
        frame.put_u8(TRAILERS);
        frame.put_u32(0);
        if let Some(trailers) = trailers {
            put(&mut frame, trailers);
        }
        if !trailers.is_some_and(|trailers| trailers.contains_key(status::GRPC_STATUS)) {
            let why = if self.unsaid == status::code::OK { "" } else { "the answer ended without a grpc-status" };
            put(&mut frame, &status::trailers(self.unsaid, why));
        }
        let len = u32::try_from(frame.len() - FRAME_HEAD).expect("trailers are limited to much less than 4 GiB");
        frame[1..FRAME_HEAD].copy_from_slice(&len.to_be_bytes());
        self.data(frame.freeze())
    }
}

/// Several values of a name share a line, as gRPC allows and browsers do with headers: grpc-web keeps only the last
/// of several lines. No value can hold a line break.
fn put(frame: &mut BytesMut, trailers: &HeaderMap) {
    for name in trailers.keys() {
        frame.put_slice(name.as_str().as_bytes());
        let mut separator = &b": "[..];
        for value in trailers.get_all(name) {
            frame.put_slice(separator);
            frame.put_slice(value.as_bytes());
            separator = b", ";
        }
        frame.put_slice(b"\r\n");
    }
}
