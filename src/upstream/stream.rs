//! An endpoint's stream, which reads on after it can no longer be written to.
//!
//! An endpoint may refuse an upload by its head alone: it answers 413 and closes, and its kernel resets the
//! connection because bytes of the body were left unread. The answer has arrived by then, but whoever writes
//! next is told of the reset, and hyper gives up on a failed write without a look at what there is to read
//! (RFC 9112 §9.5 and §9.6: a client that is sending should watch for an answer, and the server may close).
//! Over HTTP/2 it is the GOAWAY before a close that would be lost, and with it what may be repeated.
//!
//! So a failed write is kept to ourselves: from then on bytes go nowhere, and the reading side tells how the
//! exchange ends, by the answer that still arrived or by the end of the connection.
//!
//! And it lets others have their turn: hyper reads past interim answers for as long as there are any, h2 past
//! frames.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::stream::Turn;

/// A stream; bytes go nowhere once a write has failed.
#[derive(Debug)]
pub(super) struct Patient<T> {
    stream: T,
    /// A write has failed.
    deaf: bool,
    turn: Turn,
}

impl<T> Patient<T> {
    pub(super) fn new(stream: T) -> Self {
        Self { stream, deaf: false, turn: Turn::default() }
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

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turn.is_over(cx) {
            return Poll::Pending;
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.turn.read(&read);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
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
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        // Under TLS it is the flush that writes, and that fails.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| 0);
        self.wrote(cx, flushed, 0).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Takes bytes, fails when they are to go out, and has a last word to be read.
    struct Refusing(&'static [u8]);

    impl AsyncRead for Refusing {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buf.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Refusing {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_flush_that_fails_does_not_hide_what_there_is_to_read() {
        let mut stream = Patient::new(Refusing(b"why"));
        for _ in 0..2 {
            stream.write_all(b"preface").await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "why");
    }
}
