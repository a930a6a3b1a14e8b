//! An endpoint's stream, which reads on after it can no longer be written to.
//!
//! An endpoint may refuse an upload by its head alone: it answers 413 and closes, and its kernel resets the
//! connection because bytes of the body were left unread. The answer has arrived by then, but whoever writes
//! next is told of the reset, and hyper gives up on a failed write without a look at what there is to read
//! (RFC 9112 §9.5 and §9.6: a client that is sending should watch for an answer, and the server may close).
//!
//! So a failed write is kept to ourselves: from then on bytes go nowhere, and the reading side tells how the
//! exchange ends, by the answer that still arrived or by the end of the connection.
//!
//! And it lets others have their turn: hyper reads past interim answers for as long as there are any.

use std::{
    future::Future as _,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::yield_now,
};

/// Reads in a row after which others have their turn.
const TURN: u8 = 8;

/// The stream; bytes go nowhere once a write has failed.
#[derive(Debug)]
pub(super) struct Stream {
    stream: TcpStream,
    /// A write has failed.
    deaf: bool,
    /// Reads since there was nothing to read.
    reads: u8,
}

impl Stream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, deaf: false, reads: 0 }
    }

    /// Lets go of `len` bytes if the peer takes none any more.
    fn wrote(&mut self, cx: &Context<'_>, wrote: Poll<io::Result<usize>>, len: usize) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(_)) = wrote {
            self.deaf = true;
            // Whatever there is to read must be looked at, though the kernel may not say so again.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(len));
        }
        wrote
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.reads == TURN {
            self.reads = 0;
            // Not by our own waker: that would come before the clock and the other sockets are looked at.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.reads = if read.is_ready() { self.reads + 1 } else { 0 };
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, wrote, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = || slices.iter().map(|slice| slice.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(len()));
        }
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(cx, wrote, len())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
