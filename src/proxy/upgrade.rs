//! Tunnels: what is left of a call after both sides have changed protocols (WebSocket and the like).
//!
//! Bytes go both ways as they come, with one buffer a direction, until both have ended, one breaks, or
//! neither has said anything for `tunnel`. The call stays in its bulkhead and its attempt at its endpoint for as
//! long; but the attempt has succeeded with the 101, and the breaker is told so at once: an hour of chat is no
//! slow call, and no reason to stay half-open.

use std::{cell::Cell, future::poll_fn, io, pin::pin, rc::Rc, task::Poll, time::Duration};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until},
};

use super::{attempt::Attempt, call::Call, listener::OpenConnection, worker::Worker};
use crate::model::{Outcome, Reason};

/// Bytes that are read at once in each direction.
const BUFFER: usize = 16 * 1024;

/// Joins the two sides as soon as both have changed protocols, on a task of its own.
pub(super) fn spawn(
    call: Call,
    mut attempt: Attempt,
    open: Rc<OpenConnection>,
    downstream: OnUpgrade,
    upstream: Option<OnUpgrade>,
) {
    attempt.settle(call.worker.now(), Outcome::Ok);
    let counted = attempt.keep_counted(&call.worker);
    tokio::task::spawn_local(async move {
        let (_open, _counted) = (open, counted);
        let limit = call.service.config().policy.timeout.tunnel;
        let upstream = async {
            match upstream {
                Some(upstream) => upstream.await.map_err(drop),
                None => Err(()),
            }
        };
        let outcome = match tokio::try_join!(async { downstream.await.map_err(drop) }, upstream) {
            Ok((downstream, upstream)) => tunnel(&call.worker, &attempt, downstream, upstream, limit).await,
            Err(()) => Outcome::Cancelled,
        };
        let now = call.worker.now();
        attempt.end(now, Outcome::Ok);
        call.end(now, outcome);
    });
}

async fn tunnel(
    worker: &Rc<Worker>,
    attempt: &Attempt,
    downstream: Upgraded,
    upstream: Upgraded,
    limit: Option<Duration>,
) -> Outcome {
    let (from_app, to_app) = tokio::io::split(TokioIo::new(downstream));
    let (from_endpoint, to_endpoint) = tokio::io::split(TokioIo::new(upstream));
    let last = Rc::new(Cell::new(Instant::now()));
    let mut both =
        pin!(async { tokio::try_join!(copy(from_app, to_endpoint, &last), copy(from_endpoint, to_app, &last)) });
    let mut silence = pin!(limit.map(|limit| sleep_until(last.get() + limit)));
    let control = worker.register();
    poll_fn(|cx| {
        control.listen(cx);
        if worker.is_cut_off() {
            return Poll::Ready(Outcome::Failed(Reason::ShuttingDown));
        }
        if attempt.is_cut() {
            return Poll::Ready(Outcome::Failed(Reason::UpstreamReset));
        }
        if let Poll::Ready(ended) = both.as_mut().poll(cx) {
            return Poll::Ready(if ended.is_ok() { Outcome::Ok } else { Outcome::Cancelled });
        }
        while let (Some(mut timer), Some(limit)) = (silence.as_mut().as_pin_mut(), limit) {
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
            let until = last.get() + limit;
            if until <= Instant::now() {
                return Poll::Ready(Outcome::Failed(Reason::RequestTimeout));
            }
            timer.reset(until);
        }
        Poll::Pending
    })
    .await
}

/// One direction, to its end; the end is passed on, so that a half-closed tunnel still carries the other.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    last: &Cell<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await?;
        last.set(Instant::now());
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
        last.set(Instant::now());
    }
}
