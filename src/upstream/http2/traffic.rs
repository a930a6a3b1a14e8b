//! What passes below HTTP/2, noted.
//!
//! h2 tells neither when it last heard of its peer nor whether a frame has been written, and it turns an
//! `io::Error` into its text. All three matter: a peer that is heard is alive, a request that was not written
//! may be repeated, and a certificate that was refused is no reset. So the transport is watched on its way in.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::tls::{HandshakeError, failure_of};

/// How every answer of HTTP/1 begins.
const HTTP1: &[u8] = b"HTTP/";

/// What has passed over one transport.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    reads: Cell<u64>,
    writes: Cell<u64>,
    http1: Cell<bool>,
    refusal: RefCell<Option<HandshakeError>>,
}

impl Traffic {
    /// How often something was heard of the peer.
    pub(super) fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// How often something was written to it.
    pub(super) fn writes(&self) -> u64 {
        self.writes.get()
    }

    /// Whether its first bytes are those of an answer of HTTP/1.
    pub(super) fn is_http1(&self) -> bool {
        self.http1.get()
    }

    /// Why the peer broke TLS off.
    pub(super) fn refusal(&self) -> Option<HandshakeError> {
        self.refusal.borrow().clone()
    }

    fn heard(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.reads.get() == 0 {
            self.http1.set(bytes.starts_with(HTTP1));
        }
        self.reads.set(self.reads.get() + 1);
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.writes.set(self.writes.get() + 1);
        }
    }
}

/// A transport that is watched.
#[derive(Debug)]
pub(super) struct Watched<T> {
    transport: T,
    traffic: Rc<Traffic>,
}

impl<T> Watched<T> {
    pub(super) fn new(transport: T, traffic: Rc<Traffic>) -> Self {
        Self { transport, traffic }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.transport).poll_read(cx, buf);
        match &read {
            Poll::Ready(Ok(())) => self.traffic.heard(&buf.filled()[before..]),
            Poll::Ready(Err(error)) => {
                if let Some(refusal) = failure_of(error) {
                    self.traffic.refusal.replace(Some(refusal));
                }
            }
            Poll::Pending => {}
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.transport).poll_write(cx, bytes);
        self.traffic.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.transport).poll_write_vectored(cx, slices);
        self.traffic.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
