//! A limit on how long an app may take nothing of what is written to it: nobody else would notice.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// How long an app may take nothing.
const LIMIT: Duration = Duration::from_secs(60);

/// Watches the writes of one connection.
#[derive(Debug, Default)]
pub(super) struct Stall(Option<Pin<Box<Sleep>>>);

impl Stall {
    /// Looks at what came of a write; fails one that has been waiting for too long.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if wrote.is_ready() {
            self.0 = None;
            return wrote;
        }
        let deadline = self.0.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + LIMIT)));
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_too_long_fails_and_each_write_has_all_of_the_time() {
        let (mut stall, start) = (Stall::default(), Instant::now());
        for _ in 0..3 {
            let almost = poll_fn(|cx| stall.watch(cx, Poll::Pending));
            assert!(tokio::time::timeout(LIMIT - Duration::from_secs(1), almost).await.is_err());
            assert!(matches!(poll_fn(|cx| stall.watch(cx, Poll::Ready(Ok(1)))).await, Ok(1)));
        }
        assert!(start.elapsed() > LIMIT);
        let failed = poll_fn(|cx| stall.watch(cx, Poll::Pending)).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
