//! Which HTTP does a connection speak? Its first bytes tell.
//!
//! HTTP/2 in plain text begins with a preface that is no HTTP/1 request (RFC 9113 §3.4); whatever differs from
//! it is HTTP/1's business, also to complain about. What was read to find out is put back.

use std::{
    future::{Future as _, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{connection::Control, worker::Worker};
use crate::net::stream::Stream;

/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that are read at first: most requests' heads are shorter, and are then read once.
const FIRST: usize = 512;

/// What a connection speaks.
#[derive(Debug)]
pub(super) enum Spoken {
    /// HTTP/1, or nothing that we know.
    Http1(Rewound),
    /// HTTP/2.
    Http2(Rewound),
    /// Nothing, and nothing is expected any more.
    Nothing,
}

/// A stream whose first bytes have been put back.
#[derive(Debug)]
pub(super) struct Rewound {
    first: Bytes,
    stream: Stream,
}

/// Waits for the first bytes, for as long as it takes; for the rest of a preface that has begun, until `limit` has
/// passed. Some may have been read before.
pub(super) async fn listen(worker: &Worker, control: &Rc<Control>, stream: Rewound, limit: Duration) -> Spoken {
    let Rewound { first, mut stream } = stream;
    let mut first = first.try_into_mut().unwrap_or_else(|first| BytesMut::from(&first[..]));
    first.reserve(FIRST);
    let mut deadline = None;
    loop {
        match spoken(&first) {
            Some(true) => return Spoken::Http2(Rewound { first: first.freeze(), stream }),
            Some(false) => return Spoken::Http1(Rewound { first: first.freeze(), stream }),
            None => {}
        }
        let read = read(worker, control, &mut stream, &mut first);
        let read = match deadline {
            None => read.await,
            // HTTP/1 has words for a head that does not end.
            Some(deadline) => timeout_at(deadline, read).await.unwrap_or(Some(0)),
        };
        let is_over = match read {
            None => return Spoken::Nothing,
            Some(0) if first.is_empty() => return Spoken::Nothing,
            Some(read) => read == 0,
        };
        if is_over {
            return Spoken::Http1(Rewound { first: first.freeze(), stream });
        }
        deadline.get_or_insert_with(|| Instant::now() + limit);
    }
}

/// Whether these first bytes are HTTP/2's; `None` while that is open.
fn spoken(first: &[u8]) -> Option<bool> {
    if first.starts_with(PREFACE) {
        return Some(true);
    }
    (!PREFACE.starts_with(first)).then_some(false)
}

/// Waits for the first byte; `None` when none comes any more.
pub(super) async fn first_byte(worker: &Worker, control: &Control, stream: &mut Rewound) -> Option<u8> {
    if stream.first.is_empty() {
        let mut first = BytesMut::with_capacity(FIRST);
        read(worker, control, &mut stream.stream, &mut first).await?;
        stream.first = first.freeze();
    }
    stream.first.first().copied()
}

/// Reads on; `None` when the connection has failed, or is to be closed.
pub(super) async fn read(
    worker: &Worker,
    control: &Control,
    stream: &mut Stream,
    first: &mut BytesMut,
) -> Option<usize> {
    let mut read = pin!(stream.read_buf(first));
    poll_fn(|cx| {
        control.listen(cx);
        if control.is_finishing() || worker.is_cut_off() {
            return Poll::Ready(None);
        }
        read.as_mut().poll(cx).map(Result::ok)
    })
    .await
}

impl From<Stream> for Rewound {
    fn from(stream: Stream) -> Self {
        Self { first: Bytes::new(), stream }
    }
}

impl Rewound {
    /// A stream of which these bytes have been read, and shall be read again.
    pub(super) fn new(first: Bytes, stream: Stream) -> Self {
        Self { first, stream }
    }

    /// What has been put back.
    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }

    /// The socket below.
    pub(super) fn tcp(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// The stream, when nothing has been put back or all of it has been read again.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let len = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..len]);
            self.first.advance(len);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
