//! Reading along in the frames that an app sends over HTTP/2, for a flood of those that cost us work and carry
//! nothing.
//!
//! hyper and h2 bound what such frames can make them remember. What they cost in time is not bounded there: each
//! PING wants an answer, each SETTINGS an acknowledgement, each stream that is opened and reset at once a new
//! call, and somebody who sends nothing else keeps a worker from everybody else's calls (CVE-2019-9512, -9515,
//! -9518, CVE-2023-44487). So frames are paid for with tokens. Some come back with time, more with what is
//! useful: bytes of requests, and bytes that we were asked to send. Whoever has none left is told to calm down
//! (ENHANCE_YOUR_CALM, RFC 9113 §10.5) and hung up on.
//!
//! A head that begins and does not end holds a connection, as over HTTP/1: it has `header_timeout`. So has the
//! app's first SETTINGS frame, which belongs to its preface.
//!
//! And it lets others have their turn: a connection that always has something to read would never yield.

use std::{
    cell::{Cell, RefCell},
    future::Future as _,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{sniff::Rewound, stall::Stall};
use crate::net::stream::{Stream, Turn};

/// Tokens that a connection begins with, and has at most.
const BURST: u32 = 10_000;

/// Tokens that come back in a second, for nothing.
const A_SECOND: u32 = 1_000;

/// Useful bytes that are worth a token.
const WORTH: usize = 1024;

/// Length of a frame's header (RFC 9113 §4.1).
const HEADER: usize = 9;

/// Length of the preface, which comes before the first frame.
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Frames as they pass, and the tokens that are left.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes to pass over before the next header begins.
    skip: usize,
    header: [u8; HEADER],
    header_len: usize,
    tokens: u32,
    refilled: Instant,
    last_stream: u32,
    /// A head has begun, or the first frame has not come whole: there is more to wait for.
    unfinished: bool,
    /// The frame that passes is the last of what is unfinished.
    finishes: bool,
}

impl Frames {
    fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE,
            header: [0; HEADER],
            header_len: 0,
            tokens: BURST,
            refilled: now,
            last_stream: 0,
            unfinished: true,
            finishes: false,
        }
    }

    /// Reads on; tells whether that can be afforded. `now` is asked only when tokens have run out.
    fn feed(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                bytes = &bytes[passed..];
                self.settle();
                continue;
            }
            let taken = (HEADER - self.header_len).min(bytes.len());
            self.header[self.header_len..self.header_len + taken].copy_from_slice(&bytes[..taken]);
            self.header_len += taken;
            bytes = &bytes[taken..];
            if self.header_len == HEADER {
                self.header_len = 0;
                if !self.pay_for_frame(&now) {
                    return false;
                }
                self.settle();
            }
        }
        true
    }

    /// What is unfinished is finished once its last frame has passed.
    fn settle(&mut self) {
        if self.finishes && self.skip == 0 {
            (self.unfinished, self.finishes) = (false, false);
        }
    }

    fn pay_for_frame(&mut self, now: &impl Fn() -> Instant) -> bool {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.header;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.skip = len;
        match kind {
            HEADERS | CONTINUATION => (self.unfinished, self.finishes) = (true, flags & END_HEADERS != 0),
            SETTINGS => self.finishes = self.unfinished,
            _ => {}
        }
        match kind {
            HEADERS => {
                // Opening a stream costs nothing by itself: the bulkhead bounds calls.
                self.last_stream = self.last_stream.max(u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]));
                return true;
            }
            DATA if len > 0 || flags & END_STREAM != 0 => {
                self.earn(len);
                return true;
            }
            _ => {}
        }
        if self.tokens == 0 {
            let now = now();
            let millis = now.duration_since(self.refilled).as_millis();
            let refill = millis.saturating_mul(u128::from(A_SECOND)) / 1000;
            self.tokens = u32::try_from(refill).unwrap_or(BURST).min(BURST);
            self.refilled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => self.tokens = left,
            None => return false,
        }
        true
    }

    fn earn(&mut self, bytes: usize) {
        let worth = u32::try_from(bytes.div_ceil(WORTH)).unwrap_or(BURST);
        self.tokens = self.tokens.saturating_add(worth).min(BURST);
    }
}

/// What a connection's owner learns of its stream.
#[derive(Debug, Default)]
pub(super) struct WatchState {
    returned: RefCell<Option<Stream>>,
    /// The last stream of an app that was hung up on.
    exhausted: Cell<Option<u32>>,
}

impl WatchState {
    /// The stream, once hyper has let go of it.
    pub(super) fn take_stream(&self) -> Option<Stream> {
        self.returned.take()
    }

    /// The GOAWAY that is owed to an app which is hung up on (RFC 9113 §6.8).
    pub(super) fn farewell(&self) -> Option<[u8; HEADER + 8]> {
        let last = self.exhausted.get()?;
        let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[HEADER..HEADER + 4].copy_from_slice(&last.to_be_bytes());
        frame[HEADER + 4..].copy_from_slice(&u32::from(h2::Reason::ENHANCE_YOUR_CALM).to_be_bytes());
        Some(frame)
    }
}

/// A stream that watches the frames that pass.
#[derive(Debug)]
pub(super) struct FrameWatch {
    stream: Option<Rewound>,
    state: Rc<WatchState>,
    frames: Frames,
    header_timeout: Duration,
    head_deadline: Option<Pin<Box<Sleep>>>,
    stall: Stall,
    turn: Turn,
}

impl FrameWatch {
    pub(super) fn new(stream: Rewound, state: Rc<WatchState>, header_timeout: Duration) -> Self {
        let frames = Frames::new(Instant::now());
        let (stall, turn) = (Stall::default(), Turn::default());
        Self { stream: Some(stream), state, frames, header_timeout, head_deadline: None, stall, turn }
    }

    /// Fails when a head has been unfinished for too long.
    fn check_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.frames.unfinished {
            self.head_deadline = None;
            return Poll::Pending;
        }
        let limit = self.header_timeout;
        let deadline = self.head_deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Rewound>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn written(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(len)) = wrote {
            self.frames.earn(len);
        }
        self.stall.watch(cx, wrote)
    }
}

impl AsyncRead for FrameWatch {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.turn.is_over(cx) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = this.stream()?.poll_read(cx, buf);
        this.turn.read(&read);
        if read.is_pending() {
            return this.check_head(cx);
        }
        if !this.frames.unfinished {
            this.head_deadline = None;
        }
        if !this.frames.feed(&buf.filled()[before..], Instant::now) {
            this.state.exhausted.set(Some(this.frames.last_stream));
            return Poll::Ready(Err(io::Error::other("too many frames that carry nothing")));
        }
        read
    }
}

impl AsyncWrite for FrameWatch {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = self.stream()?.poll_write(cx, bytes);
        self.written(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = self.stream()?.poll_write_vectored(cx, slices);
        self.written(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.exhausted.get().is_some() {
            // The owner has something to say yet.
            return Poll::Ready(Ok(()));
        }
        self.stream()?.poll_shutdown(cx)
    }
}

impl Drop for FrameWatch {
    fn drop(&mut self) {
        self.state.returned.replace(self.stream.take().map(Rewound::into_stream));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Random;

    fn frame(len: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
        let mut frame = vec![(len >> 16) as u8, (len >> 8) as u8, len as u8, kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(vec![0x55; len]);
        frame
    }

    fn started() -> (Frames, Instant) {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        assert!(frames.feed(&[0; PREFACE], || now));
        (frames, now)
    }

    #[test]
    fn pings_alone_are_too_many_sooner_or_later() {
        let (mut frames, now) = started();
        let ping = frame(8, 6, 0, 0);
        let sent = (0..).take_while(|_| frames.feed(&ping, || now)).count();
        assert_eq!(sent, BURST as usize);
        assert!(!frames.feed(&ping, || now + Duration::from_micros(900)));
        assert!(frames.feed(&ping, || now + Duration::from_secs(2)), "time brings some back");
    }

    #[test]
    fn what_serves_calls_goes_on_for_ever() {
        let (mut frames, now) = started();
        for n in 0..50_000_u32 {
            assert!(frames.feed(&frame(30, HEADERS, 4, n * 2 + 1), || now));
            assert!(frames.feed(&frame(100, DATA, END_STREAM, n * 2 + 1), || now));
            assert!(frames.feed(&frame(4, 8, 0, 0), || now), "a window update for what was answered");
        }
        assert_eq!(frames.last_stream, 99_999);
    }

    #[test]
    fn streams_that_are_opened_and_reset_at_once_are_paid_for() {
        let (mut frames, now) = started();
        let mut pair = frame(30, HEADERS, 5, 1);
        pair.extend(frame(4, 3, 0, 1));
        assert_eq!((0..).take_while(|_| frames.feed(&pair, || now)).count(), BURST as usize);
    }

    #[test]
    fn a_head_is_unfinished_until_its_last_byte() {
        let (mut frames, now) = started();
        let mut feed = |bytes: &[u8]| {
            assert!(frames.feed(bytes, || now));
            frames.unfinished
        };
        assert!(feed(&[]), "the first SETTINGS are still to come");
        assert!(!feed(&frame(6, SETTINGS, 0, 0)));
        let head = frame(30, HEADERS, END_STREAM, 1);
        assert!(!feed(&head[..HEADER - 1]), "which frame this is, nobody knows");
        assert!(feed(&head[HEADER - 1..]));
        let rest = frame(10, CONTINUATION, END_HEADERS, 1);
        assert!(feed(&rest[..HEADER + 9]));
        assert!(!feed(&rest[HEADER + 9..]));
        assert!(!feed(&frame(0, SETTINGS, 1, 0)));
        assert!(!feed(&frame(9, DATA, 0, 1)));
        assert!(!feed(&frame(0, HEADERS, END_HEADERS | END_STREAM, 3)));
    }

    #[test]
    fn it_makes_no_difference_how_the_bytes_are_cut() {
        let mut random = Random::seeded(7);
        let all: Vec<u8> = (0..200).flat_map(|n| frame((n * 37) % 300, (n % 10) as u8, 0, n as u32)).collect();
        let (mut whole, now) = started();
        assert!(whole.feed(&all, || now));
        for _ in 0..50 {
            let (mut cut, _) = started();
            let mut rest = &all[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(1 + random.below(rest.len().min(40) as u32) as usize);
                assert!(cut.feed(piece, || now));
                rest = after;
            }
            assert_eq!((cut.tokens, cut.skip, cut.last_stream), (whole.tokens, whole.skip, whole.last_stream));
        }
    }
}
