//! A stream of bytes to a peer, plain or under TLS, that writes small pieces in one plain send.
//!
//! hyper hands a head and a small body over as two slices. Gathering a few hundred bytes on the stack and
//! sending them costs the kernel less than taking in a list of slices; large bodies are never copied.

use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::yield_now,
};
use tokio_rustls::TlsStream;

/// Slices that together are no longer than this are gathered.
const SMALL: usize = 2048;

/// Has a task polled again once others have had their turn. Not by its own waker: that would come before the clock
/// and the other sockets are looked at.
pub fn let_others(cx: &mut Context<'_>) {
    let _ = pin!(yield_now()).poll(cx);
}

/// Counts the reads of a stream that always has something to read, so that others have their turn.
#[derive(Debug, Default)]
pub struct Turn {
    reads: u8,
}

impl Turn {
    /// Reads in a row that one turn lasts.
    const READS: u8 = 8;

    /// Whether the turn is over; the next one begins, later.
    pub fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let over = self.reads == Self::READS;
        if over {
            self.reads = 0;
            let_others(cx);
        }
        over
    }

    /// A read has been tried; one that finds nothing ends the turn by itself.
    pub fn read<T>(&mut self, read: &Poll<T>) {
        self.reads = if read.is_ready() { self.reads + 1 } else { 0 };
    }
}

/// A stream of bytes.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Bytes under TLS. Boxed: a session is large, and most connections have none.
    Secure(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => stream.get_ref().0,
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Secure(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Secure(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = match self.get_mut() {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => return Pin::new(stream).poll_write_vectored(cx, slices),
        };
        if let [only] = slices {
            return Pin::new(stream).poll_write(cx, only);
        }
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total > SMALL {
            return Pin::new(stream).poll_write_vectored(cx, slices);
        }
        let mut gathered = [0; SMALL];
        let mut end = 0;
        for slice in slices {
            gathered[end..end + slice.len()].copy_from_slice(slice);
            end += slice.len();
        }
        Pin::new(stream).poll_write(cx, &gathered[..end])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
