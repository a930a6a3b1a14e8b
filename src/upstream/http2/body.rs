//! The payload of an answer over HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Frame, SizeHint};

use super::{fault::Fault, trunk::Lease};
use crate::upstream::PayloadError;

/// The payload of an answer, and its trailers.
#[derive(Debug)]
pub struct Body {
    stream: RecvStream,
    ended: bool,
    /// How much is still to come, where the head told.
    left: Option<u64>,
}

impl Body {
    pub(super) fn new(stream: RecvStream, head: &HeaderMap) -> Self {
        let ended = stream.is_end_stream();
        let length = head.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { stream, ended, left: length }
    }

    /// Whether nothing follows.
    pub(in crate::upstream) fn is_end_stream(&self) -> bool {
        self.ended
    }

    /// How much follows.
    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.ended => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::new(),
        }
    }

    /// The next piece; what is handed on makes room for as much in the endpoint's windows.
    pub(super) fn poll_frame(
        &mut self,
        lease: &Lease,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PayloadError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        while let Some(piece) = ready!(self.stream.poll_data(cx)) {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return self.broken(&error, lease),
            };
            // It fails only for more than has come.
            let _ = self.stream.flow_control().release_capacity(piece.len());
            lease.heard(piece.len());
            self.ended = self.stream.is_end_stream();
            self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => {
                self.ended = true;
                lease.heard(0);
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => self.broken(&error, lease),
        }
    }

    fn broken(&mut self, error: &h2::Error, lease: &Lease) -> Poll<Option<Result<Frame<Bytes>, PayloadError>>> {
        self.ended = true;
        Poll::Ready(Some(Err(Fault::of(error, lease.trunk()).in_payload())))
    }
}
