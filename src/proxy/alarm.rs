//! Timers for the deadlines of calls, lent by a worker.
//!
//! Almost no call meets its deadline, and entering a timer into the runtime's wheel and taking it out again
//! costs more than looking at the clock. Calls come one after the other, and so, mostly, do their deadlines:
//! the timer that one call has set is left where it is for the next that borrows it, goes off early for that
//! one, and is then set to what holds by that time. A worker under load touches the wheel once a time-out and
//! concurrent call instead of twice a call.
//!
//! Since every call under way holds an alarm, a worker that has to stop its calls can wake each of them by it,
//! whichever task carries them.

use std::{
    cell::RefCell,
    future::Future,
    ops::Deref,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that may go off early, but never late.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
    listener: RefCell<Option<Waker>>,
}

/// The alarms of one worker.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    free: RefCell<Vec<Rc<Alarm>>>,
    lent: RefCell<Vec<Weak<Alarm>>>,
}

/// How many alarms are kept for calls to come; each may keep the memory of the task that used it last.
const KEPT: usize = 64;

/// An alarm, until it is dropped.
#[derive(Debug)]
pub(super) struct Lent {
    alarm: Rc<Alarm>,
    home: Rc<Alarms>,
}

impl Alarms {
    /// Lends the alarm that was used last.
    pub(super) fn lend(self: &Rc<Self>) -> Lent {
        let alarm = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let alarm = Rc::<Alarm>::default();
            self.lent.borrow_mut().push(Rc::downgrade(&alarm));
            alarm
        });
        Lent { alarm, home: self.clone() }
    }

    /// Wakes whoever holds an alarm.
    pub(super) fn ring(&self) {
        let alarms: Vec<_> = self.lent.borrow().iter().filter_map(Weak::upgrade).collect();
        alarms.iter().for_each(|alarm| alarm.ring());
    }

    /// Forgets alarms that are no more.
    pub(super) fn tidy(&self) {
        self.lent.borrow_mut().retain(|alarm| alarm.strong_count() > 0);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.alarm.listener.take();
        let mut free = self.home.free.borrow_mut();
        if free.len() < KEPT {
            free.push(self.alarm.clone());
        }
    }
}

impl Deref for Lent {
    type Target = Alarm;

    fn deref(&self) -> &Alarm {
        &self.alarm
    }
}

impl Alarm {
    /// From now on [`Alarms::ring`] wakes the task of this context.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        let mut listener = self.listener.borrow_mut();
        match listener.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *listener = Some(cx.waker().clone()),
        }
    }

    fn ring(&self) {
        if let Some(waker) = self.listener.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Ready once `deadline` has passed.
    pub(super) fn poll(&self, deadline: std::time::Instant, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::from_std(deadline);
        let mut timer = self.timer.borrow_mut();
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

    #[tokio::test(start_paused = true)]
    async fn whoever_holds_an_alarm_can_be_woken() {
        let alarms = Rc::<Alarms>::default();
        let lent = alarms.lend();
        let mut waiting = Box::pin(poll_fn(|cx| {
            lent.listen(cx);
            Poll::<()>::Pending
        }));
        let woken = std::sync::Arc::new(Flag::default());
        let waker = Waker::from(woken.clone());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        alarms.ring();
        assert!(woken.0.swap(false, std::sync::atomic::Ordering::SeqCst));
        drop(waiting);
        drop(lent);
        alarms.ring();
        assert!(!woken.0.load(std::sync::atomic::Ordering::SeqCst), "nobody holds it any more");
    }

    #[derive(Default)]
    struct Flag(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Flag {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn alarms_are_lent_again_and_those_that_are_no_more_forgotten() {
        let alarms = Rc::<Alarms>::default();
        let all: Vec<_> = (0..KEPT + 10).map(|_| alarms.lend()).collect();
        drop(all);
        alarms.tidy();
        assert_eq!((alarms.lent.borrow().len(), alarms.free.borrow().len()), (KEPT, KEPT));
        let lent = alarms.lend();
        assert_eq!(alarms.free.borrow().len(), KEPT - 1);
        drop(lent);
        assert_eq!(alarms.lent.borrow().len(), KEPT);
    }
}
