//! One timer a connection, for the deadlines of its calls.
//!
//! Almost no call meets its deadline, and entering a timer into the runtime's wheel and taking it out again
//! costs more than looking at the clock. The calls of a connection come one after the other, and so, mostly,
//! do their deadlines: the timer that one call has set is left where it is for the next, goes off early for
//! that one, and is then set to what holds by that time. A connection under load touches the wheel once a
//! time-out instead of twice a call.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that may go off early, but never late.
#[derive(Debug, Default)]
pub(super) struct Alarm(RefCell<Option<Pin<Box<Sleep>>>>);

impl Alarm {
    /// Ready once `deadline` has passed.
    pub(super) fn poll(&self, deadline: std::time::Instant, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::from_std(deadline);
        let mut timer = self.0.borrow_mut();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn rings_after(alarm: &Alarm, limit: Duration) -> Duration {
        let start = Instant::now();
        poll_fn(|cx| alarm.poll((start + limit).into_std(), cx)).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_each_deadline_whatever_the_one_before() {
        let alarm = Alarm::default();
        for seconds in [10, 3, 3, 20, 1, 7] {
            assert_eq!(rings_after(&alarm, seconds * SECOND).await.as_secs(), u64::from(seconds));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_nobody_waits_for_any_more_rings_for_nobody() {
        let alarm = Alarm::default();
        for _ in 0..5 {
            let call = tokio::time::timeout(SECOND, rings_after(&alarm, 10 * SECOND));
            assert!(call.await.is_err(), "the call ends before its deadline");
            tokio::time::advance(4 * SECOND).await;
        }
        assert_eq!(rings_after(&alarm, 10 * SECOND).await.as_secs(), 10, "and the last one has all of its time");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_rings_at_once() {
        let alarm = Alarm::default();
        let now = Instant::now().into_std();
        poll_fn(|cx| alarm.poll(now, cx)).await;
        assert_eq!(rings_after(&alarm, SECOND).await.as_secs(), 1);
    }
}
