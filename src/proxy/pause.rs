//! A pause of one direction of a call, and how long it may be.
//!
//! A pause is over when the next piece comes. When a pause has lasted for as long as it may, it still counts for
//! nothing if the other direction has moved meanwhile: in a conversation one side listens while the other speaks.
//! A silence of both is noticed after its limit, and before twice of that.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A pause that has begun.
#[derive(Debug)]
pub(super) struct Pause {
    timer: Pin<Box<Sleep>>,
    /// How often the other direction had moved by then.
    moved: u32,
}

impl Pause {
    /// Begins now; `moved` counts the moves of the other direction.
    pub(super) fn begin(limit: Duration, moved: u32) -> Self {
        Self { timer: Box::pin(sleep_until(Instant::now() + limit)), moved }
    }

    /// Ready once neither direction has moved for `limit`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, limit: Duration, moved: impl Fn() -> u32) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = moved();
            if now == self.moved {
                return Poll::Ready(());
            }
            self.moved = now;
            self.timer.as_mut().reset(Instant::now() + limit);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_silence_of_both_directions_is_what_counts() {
        let (start, moved) = (Instant::now(), Cell::new(0));
        let mut pause = Pause::begin(LIMIT, moved.get());
        for _ in 0..3 {
            let almost = poll_fn(|cx| pause.poll(cx, LIMIT, || moved.get()));
            assert!(tokio::time::timeout(LIMIT - Duration::from_secs(1), almost).await.is_err());
            moved.set(moved.get() + 1);
        }
        poll_fn(|cx| pause.poll(cx, LIMIT, || moved.get())).await;
        assert_eq!(start.elapsed(), LIMIT * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_other_direction_is_still_it_lasts_for_its_limit() {
        let start = Instant::now();
        let mut pause = Pause::begin(LIMIT, 7);
        poll_fn(|cx| pause.poll(cx, LIMIT, || 7)).await;
        assert_eq!(start.elapsed(), LIMIT);
    }
}
