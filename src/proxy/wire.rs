//! The app's side of a connection, between the socket and hyper: what hyper does not tell us, and what it
//! would say in our stead.
//!
//! hyper parses and writes HTTP/1.1. Four things about that concern a proxy's caller and are seen best
//! here, where the bytes pass:
//!
//! - A request with both Transfer-Encoding and Content-Length is one that two parsers may read in two ways
//!   (RFC 9112 §6.1). hyper silently drops the length; [`HeadScan`] notices, so that the call is refused.
//! - A head that begins and does not end holds a connection: it has `header_timeout`, from its first byte.
//! - To bytes that are no HTTP hyper answers with a bare status. What it writes while no call is under way
//!   is kept back, and [`Wire`]'s owner writes the contract's local reply instead.
//! - A socket that is closed while the app still sends is reset by the kernel, and the answer may be lost on
//!   the way. The stream is handed back when hyper is done, so that its owner can linger.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    head_scan::{HeadFault, HeadScan},
    sniff::Rewound,
    stall::Stall,
};
use crate::net::stream::Stream;

/// What the call on a connection and its [`Wire`] tell each other. Both run on one thread; atomics because
/// hyper wants its streams to be `Send`.
#[derive(Debug)]
pub(super) struct WireState {
    answer: AtomicU8,
    /// Calls that have begun.
    calls: AtomicU32,
    /// The next bytes belong to a head, not to a body.
    expects_head: AtomicBool,
    /// What the scan found: a [`HeadFault`], or nothing.
    head_fault: AtomicU8,
    head_timed_out: AtomicBool,
    kept_back: AtomicBool,
    tunnel: AtomicBool,
    returned: Mutex<Option<Stream>>,
}

/// No call is under way: what is written now does not come from us.
const IDLE: u8 = 0;
/// A call is under way.
const OWED: u8 = 1;
/// The last of an answer has been handed over, but may not have been written yet.
const HANDED_OVER: u8 = 2;

/// No fault was found in a head.
const SOUND: u8 = 0;
/// [`HeadFault::Conflict`].
const CONFLICT: u8 = 1;
/// [`HeadFault::TooLong`].
const TOO_LONG: u8 = 2;

impl WireState {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            answer: AtomicU8::new(IDLE),
            calls: AtomicU32::new(0),
            expects_head: AtomicBool::new(true),
            head_fault: AtomicU8::new(SOUND),
            head_timed_out: AtomicBool::new(false),
            kept_back: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            returned: Mutex::new(None),
        })
    }

    /// A call has begun: its head is here, its body follows if `has_body`. Tells what was wrong with its
    /// head, though hyper took it.
    pub(super) fn call_begins(&self, has_body: bool) -> Option<HeadFault> {
        self.answer.store(OWED, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.expects_head.store(!has_body, Ordering::Relaxed);
        match self.head_fault.swap(SOUND, Ordering::Relaxed) {
            CONFLICT => Some(HeadFault::Conflict),
            TOO_LONG => Some(HeadFault::TooLong),
            _ => None,
        }
    }

    /// The number of the call that began last.
    pub(super) fn call(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The body of a call's request has been read to its end. The next call may have begun by then: after an
    /// early answer hyper reads ahead of whoever takes the body.
    pub(super) fn upload_ended(&self, call: u32) {
        if call == self.call() {
            self.expects_head.store(true, Ordering::Relaxed);
        }
    }

    /// The last of the answer has been handed to hyper.
    pub(super) fn answer_ended(&self) {
        self.answer.store(HANDED_OVER, Ordering::Relaxed);
    }

    /// From now on the bytes are no HTTP.
    pub(super) fn becomes_tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
    }

    /// Whether a head began and did not end in time.
    pub(super) fn head_timed_out(&self) -> bool {
        self.head_timed_out.load(Ordering::Relaxed)
    }

    /// Whether hyper wanted to answer something by itself.
    pub(super) fn kept_back(&self) -> bool {
        self.kept_back.load(Ordering::Relaxed)
    }

    /// Whether a request was cut off before its end.
    pub(super) fn upload_pending(&self) -> bool {
        !self.expects_head.load(Ordering::Relaxed)
    }

    /// Whether a call is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.answer.load(Ordering::Relaxed) == OWED
    }

    /// The stream, once hyper has let go of it. A tunnel's is not for anybody else.
    pub(super) fn take_stream(&self) -> Option<Stream> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A stream that watches what passes.
pub(super) struct Wire {
    stream: Option<Rewound>,
    state: Arc<WireState>,
    scan: HeadScan,
    header_timeout: Duration,
    head_deadline: Option<Pin<Box<Sleep>>>,
    stall: Stall,
}

impl Wire {
    pub(super) fn new(stream: Rewound, state: Arc<WireState>, header_bytes: usize, header_timeout: Duration) -> Self {
        Self {
            stream: Some(stream),
            state,
            scan: HeadScan::new(header_bytes),
            header_timeout,
            head_deadline: None,
            stall: Stall::default(),
        }
    }

    /// The stream, for whoever goes on with it; hyper has read some of it perhaps.
    pub(super) fn into_stream(mut self) -> Option<Stream> {
        self.stream.take().map(Rewound::into_stream)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Rewound>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Looks at bytes that begin or continue a head.
    fn scan(&mut self, bytes: &[u8]) {
        if let Some(fault) = self.scan.feed(bytes) {
            let fault = match fault {
                HeadFault::Conflict => CONFLICT,
                HeadFault::TooLong => TOO_LONG,
            };
            self.state.head_fault.store(fault, Ordering::Relaxed);
        }
        if !self.scan.is_inside_head() {
            self.head_deadline = None;
        } else if self.head_deadline.is_none() {
            self.head_deadline = Some(Box::pin(sleep_until(Instant::now() + self.header_timeout)));
        }
    }

    fn written(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        // A tunnel has its own limit on silence.
        if self.state.tunnel.load(Ordering::Relaxed) { wrote } else { self.stall.watch(cx, wrote) }
    }

    /// Whether bytes written now are hyper's own answer to what it could not read.
    fn keeps_back(&self) -> bool {
        let foreign = self.state.answer.load(Ordering::Relaxed) == IDLE && !self.state.tunnel.load(Ordering::Relaxed);
        if foreign {
            self.state.kept_back.store(true, Ordering::Relaxed);
        }
        foreign
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match this.stream()?.poll_read(cx, buf) {
            Poll::Ready(result) => {
                result?;
                if this.state.expects_head.load(Ordering::Relaxed) && !this.state.tunnel.load(Ordering::Relaxed) {
                    this.scan(&buf.filled()[before..]);
                } else {
                    this.scan.reset();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                if let Some(deadline) = &mut this.head_deadline
                    && !this.state.is_busy()
                {
                    ready!(deadline.as_mut().poll(cx));
                    this.state.head_timed_out.store(true, Ordering::Relaxed);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.keeps_back() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let wrote = self.stream()?.poll_write(cx, bytes);
        self.written(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.keeps_back() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let wrote = self.stream()?.poll_write_vectored(cx, slices);
        self.written(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream()?.poll_flush(cx);
        if flushed.is_ready() {
            let _ = self.state.answer.compare_exchange(HANDED_OVER, IDLE, Ordering::Relaxed, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.kept_back() {
            // The owner has something to say yet.
            return Poll::Ready(Ok(()));
        }
        self.stream()?.poll_shutdown(cx)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let stream = self.stream.take().map(Rewound::into_stream);
        *self.state.returned.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }
}
