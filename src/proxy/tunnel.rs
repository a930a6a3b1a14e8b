//! Tunnels: bytes both ways between an app and an endpoint, as they come.
//!
//! What an upgraded connection (`upgrade`) and a TCP service (`tcp`) have in common: nobody looks at the bytes, so
//! what can be promised is that they arrive, that an end arrives as an end and a break as a break, and that no peer
//! can make us hold more than a buffer a direction.
//!
//! - Each direction reads only when all that it read before has been written: a receiver that is slow slows its
//!   sender down. A buffer is held only while there are bytes in it, so that ten thousand silent connections hold none.
//! - A sender's end is passed on once its bytes are through; the other direction goes on for as long as it likes.
//! - A peer that can no longer be written to may have said something before: what it said is read to its end first.
//! - A fast pair of peers has its turn and then lets others have theirs.
//!
//! How it ended is told as an [`End`]; what that means to the service and to the peers is for the caller to say.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    alarm::Alarm,
    attempt::{Attempt, ENDPOINT_GONE},
    connection::Control,
    worker::Worker,
};
use crate::{
    model::{Outcome, Reason},
    net::stream::let_others,
    policy::deadline::earliest,
    service::now,
};

/// Bytes that are read at once in each direction, and held at most.
const BUFFER: usize = 32 * 1024;

/// Spare buffers that a worker keeps: busy connections take turns, so that a few serve thousands.
const SPARES: usize = 16;

/// Reads in a row after which others have their turn.
const TURN: u8 = 16;

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have said all that they had to say.
    Clean,
    /// The app broke it off.
    AppReset,
    /// The endpoint broke it off.
    EndpointReset,
    /// Nobody said anything for too long.
    Silence,
    /// It lasted for too long.
    Overdue,
    /// The sidecar stopped.
    CutOff,
    /// Discovery no longer names the endpoint, and the time to finish with it is over.
    EndpointGone,
}

impl End {
    /// How a call counts that ended so.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Clean => Outcome::Ok,
            Self::AppReset => Outcome::Cancelled,
            Self::EndpointReset | Self::EndpointGone => Outcome::Failed(Reason::UpstreamReset),
            Self::Silence | Self::Overdue => Outcome::Failed(Reason::RequestTimeout),
            Self::CutOff => Outcome::Failed(Reason::ShuttingDown),
        }
    }

    /// What there is to say about it in the access log.
    pub(super) fn details(self) -> Option<&'static str> {
        match self {
            Self::Clean => None,
            Self::AppReset => Some("the app broke the connection off"),
            Self::EndpointReset => Some("the endpoint broke the connection off"),
            Self::Silence => Some("neither side said anything for as long as is allowed"),
            Self::Overdue => Some("the connection lasted longer than `total` allows"),
            Self::CutOff => Some("the sidecar stopped before the connection ended"),
            Self::EndpointGone => Some(ENDPOINT_GONE),
        }
    }
}

/// How long a tunnel may last; `None` is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// Silence in both directions.
    pub(super) silence: Option<Duration>,
    /// When it has to be over.
    pub(super) end: Option<Instant>,
}

/// Bytes that were read from a side and taken by the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// From the app.
    pub(super) to_endpoint: u64,
    /// From the endpoint.
    pub(super) to_app: u64,
}

/// Carries bytes both ways, for an attempt if it is one, until both sides have ended, one breaks, a limit is reached, or the
/// worker or the endpoint has to be left.
pub(super) async fn carry<A, E>(
    worker: &Worker,
    control: &Control,
    attempt: Option<&Attempt>,
    app: &mut A,
    endpoint: &mut E,
    limits: Limits,
) -> (End, Carried)
where
    A: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    let interrupted = |cx: &mut Context<'_>| {
        control.listen(cx);
        match () {
            () if worker.is_cut_off() => Some(End::CutOff),
            () if attempt.is_some_and(Attempt::is_cut) => Some(End::EndpointGone),
            () => None,
        }
    };
    relay(app, endpoint, &worker.buffers, limits, interrupted).await
}

/// The same, with whatever else may interrupt it.
async fn relay<A, E>(
    app: &mut A,
    endpoint: &mut E,
    buffers: &Buffers,
    limits: Limits,
    mut interrupted: impl FnMut(&mut Context<'_>) -> Option<End>,
) -> (End, Carried)
where
    A: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let alarm = Alarm::default();
    let mut last = now();
    let end = poll_fn(|cx| {
        if let Some(end) = interrupted(cx) {
            return Poll::Ready(end);
        }
        let before = (up.moved, down.moved);
        let ended = (up.poll(cx, app, endpoint, buffers), down.poll(cx, endpoint, app, buffers));
        if let Some(end) = end_of(ended.0, ended.1) {
            return Poll::Ready(end);
        }
        if before != (up.moved, down.moved) {
            last = now();
        }
        let silent_at = limits.silence.and_then(|silence| last.checked_add(silence));
        let Some(deadline) = earliest(silent_at, limits.end) else { return Poll::Pending };
        ready!(alarm.poll(deadline, cx));
        Poll::Ready(if limits.end == Some(deadline) { End::Overdue } else { End::Silence })
    })
    .await;
    (end, Carried { to_endpoint: up.carried, to_app: down.carried })
}

/// What the two directions together amount to, once they do.
fn end_of(up: Poll<Ended>, down: Poll<Ended>) -> Option<End> {
    use Ended::{Fully, ReceiverBroke, SenderBroke};
    match (up, down) {
        // Nothing more is to be had from a side that broke off, and nothing to be told to it.
        (Poll::Ready(SenderBroke), _) => Some(End::AppReset),
        (_, Poll::Ready(SenderBroke)) => Some(End::EndpointReset),
        (Poll::Ready(Fully), Poll::Ready(Fully)) => Some(End::Clean),
        // What a side had said before it took no more has been read to its end by now.
        (Poll::Ready(ReceiverBroke), Poll::Ready(_)) => Some(End::EndpointReset),
        (Poll::Ready(_), Poll::Ready(ReceiverBroke)) => Some(End::AppReset),
        (Poll::Pending, _) | (_, Poll::Pending) => None,
    }
}

/// How one direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The sender's end has been passed on.
    Fully,
    /// Reading failed.
    SenderBroke,
    /// Writing failed.
    ReceiverBroke,
}

/// One direction: what has been read and not yet been taken.
#[derive(Debug, Default)]
struct Direction {
    state: State,
    /// Bytes that the receiver has taken.
    carried: u64,
    /// Counts whatever happens; wraps round.
    moved: u32,
}

#[derive(Debug, Default)]
enum State {
    /// All that was read has left.
    #[default]
    Empty,
    /// All that was read has been taken, but some may still be on this side of the socket (TLS).
    Unflushed,
    /// These bytes of the buffer have not been taken.
    Full { buffer: Box<[u8]>, start: usize, end: usize },
    /// The sender has ended, and the receiver has yet to be told.
    Ending,
    /// It is over.
    Over(Ended),
}

impl Direction {
    /// Carries what can be carried now.
    fn poll<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T, buffers: &Buffers) -> Poll<Ended>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let mut reads = 0;
        loop {
            let next = match &mut self.state {
                State::Empty | State::Unflushed if reads == TURN => {
                    let_others(cx);
                    return Poll::Pending;
                }
                state @ (State::Empty | State::Unflushed) => {
                    reads += 1;
                    match read(cx, from, buffers) {
                        Poll::Ready(next) => next,
                        Poll::Pending => {
                            if matches!(state, State::Unflushed) {
                                match ready!(Pin::new(&mut *to).poll_flush(cx)) {
                                    Ok(()) => *state = State::Empty,
                                    Err(_) => *state = State::Over(Ended::ReceiverBroke),
                                }
                            }
                            match state {
                                State::Over(ended) => return Poll::Ready(*ended),
                                _ => return Poll::Pending,
                            }
                        }
                    }
                }
                State::Full { buffer, start, end } => {
                    match ready!(Pin::new(&mut *to).poll_write(cx, &buffer[*start..*end])) {
                        Ok(0) | Err(_) => State::Over(Ended::ReceiverBroke),
                        Ok(n) => {
                            self.carried += n as u64;
                            self.moved = self.moved.wrapping_add(1);
                            *start += n;
                            if *start < *end {
                                continue;
                            }
                            buffers.give_back(std::mem::take(buffer));
                            State::Unflushed
                        }
                    }
                }
                State::Ending => match ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
                    Ok(()) => State::Over(Ended::Fully),
                    Err(_) => State::Over(Ended::ReceiverBroke),
                },
                State::Over(ended) => return Poll::Ready(*ended),
            };
            self.moved = self.moved.wrapping_add(1);
            self.state = next;
        }
    }
}

/// The state to which a read leads.
fn read<F: AsyncRead + Unpin>(cx: &mut Context<'_>, from: &mut F, buffers: &Buffers) -> Poll<State> {
    let mut buffer = buffers.take();
    let mut filled = ReadBuf::new(&mut buffer);
    let read = Pin::new(from).poll_read(cx, &mut filled);
    let end = filled.filled().len();
    match read {
        Poll::Ready(Ok(())) if end > 0 => Poll::Ready(State::Full { buffer, start: 0, end }),
        other => {
            buffers.give_back(buffer);
            other.map(|read| match read {
                Ok(()) => State::Ending,
                Err(_) => State::Over(Ended::SenderBroke),
            })
        }
    }
}

/// A worker's spare buffers.
#[derive(Debug, Default)]
pub(super) struct Buffers(RefCell<Vec<Box<[u8]>>>);

impl Buffers {
    fn take(&self) -> Box<[u8]> {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        let mut spares = self.0.borrow_mut();
        if spares.len() < SPARES {
            spares.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests;
