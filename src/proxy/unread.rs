//! The tasks of HTTP/2's streams, and the end of those whose app takes nothing.
//!
//! hyper asks for the next piece of an answer when its app has made room for it. An app that opens no window is
//! never asked for, and then none of the answer's own limits can be noticed: the call would keep its place in the
//! bulkhead, and its endpoint's window, for as long as the app likes. So each answer says here when it was asked
//! for last and how long that may take; the worker looks once a second, and ends the task of a stream that is over
//! its time, which resets the stream.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use slab::Slab;

/// How much later than by its own timers an answer is ended: those have the better words.
const GRACE: Duration = Duration::from_secs(2);

/// The streams of one worker.
#[derive(Debug, Default)]
pub(super) struct Streams(RefCell<Slab<Rc<Stream>>>);

/// What an answer and its task know of each other.
#[derive(Debug)]
pub(super) struct Stream {
    /// When the answer was asked for last.
    asked: Cell<Option<Instant>>,
    idle: Cell<Option<Duration>>,
    end: Cell<Option<Instant>>,
    over: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

thread_local! {
    /// The stream whose task is being polled.
    static CURRENT: RefCell<Option<Rc<Stream>>> = const { RefCell::new(None) };
}

/// The stream of this task, if it is one's.
pub(super) fn current() -> Option<Rc<Stream>> {
    CURRENT.with_borrow(Clone::clone)
}

impl Stream {
    /// The answer has begun: pauses of its app may last for `idle`, and all of it until `end`.
    pub(super) fn limit(&self, now: Instant, idle: Option<Duration>, end: Option<Instant>) {
        self.asked.set(Some(now));
        self.idle.set(idle);
        self.end.set(end);
    }

    /// The answer has been asked for.
    pub(super) fn asked(&self, now: Instant) {
        self.asked.set(Some(now));
    }

    /// Whether it was ended because its app took nothing.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    fn look(&self, now: Instant) {
        let Some(asked) = self.asked.get() else { return };
        let waited = now.saturating_duration_since(asked);
        let idle = self.idle.get().is_some_and(|idle| waited >= idle + GRACE);
        let end = waited >= GRACE && self.end.get().is_some_and(|end| now >= end + GRACE);
        if idle || end {
            self.over.set(true);
            if let Some(task) = self.task.borrow().as_ref() {
                task.wake_by_ref();
            }
        }
    }
}

impl Streams {
    /// Ends the streams whose apps have taken nothing for too long.
    pub(super) fn look(&self, now: Instant) {
        self.0.borrow().iter().for_each(|(_, stream)| stream.look(now));
    }

    /// Runs the future of a stream to its end, or until the stream is ended.
    pub(super) fn task<F: Future>(self: &Rc<Self>, future: F) -> Task<F> {
        let stream = Rc::new(Stream {
            asked: Cell::new(None),
            idle: Cell::new(None),
            end: Cell::new(None),
            over: Cell::new(false),
            task: RefCell::default(),
        });
        let key = self.0.borrow_mut().insert(stream.clone());
        Task { future: Some(future), place: Place { streams: self.clone(), key }, stream }
    }
}

pin_project_lite::pin_project! {
    /// The task of a stream.
    pub(super) struct Task<F> {
        #[pin]
        future: Option<F>,
        place: Place,
        stream: Rc<Stream>,
    }
}

/// Leaves the list when it drops.
struct Place {
    streams: Rc<Streams>,
    key: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.0.borrow_mut().try_remove(self.key);
    }
}

impl<F: Future> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        if this.stream.over.get() {
            this.future.set(None);
            return Poll::Ready(());
        }
        CURRENT.set(Some(this.stream.clone()));
        let polled = future.poll(cx);
        CURRENT.set(None);
        if polled.is_pending() {
            let mut task = this.stream.task.borrow_mut();
            match task.as_mut() {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *task = Some(cx.waker().clone()),
            }
        }
        polled.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A stream that has begun its answer and is asked for nothing.
    async fn begun(now: Instant, idle: Option<Duration>, end: Option<Instant>) {
        current().unwrap().limit(now, idle, end);
        pending().await
    }

    fn poll(task: Pin<&mut impl Future<Output = ()>>) -> bool {
        task.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn an_answer_that_nobody_takes_is_ended_after_idle() {
        let (streams, now) = (Rc::<Streams>::default(), tokio::time::Instant::now().into_std());
        let mut task = std::pin::pin!(streams.task(begun(now, Some(10 * SECOND), None)));
        assert!(!poll(task.as_mut()) && current().is_none());
        streams.look(now + 11 * SECOND);
        assert!(!poll(task.as_mut()));
        streams.look(now + 12 * SECOND);
        assert!(poll(task.as_mut()));
    }

    #[test]
    fn one_that_is_taken_goes_on_until_its_end() {
        let (streams, now) = (Rc::<Streams>::default(), tokio::time::Instant::now().into_std());
        let mut task = std::pin::pin!(streams.task(begun(now, Some(10 * SECOND), Some(now + 30 * SECOND))));
        assert!(!poll(task.as_mut()));
        for seconds in (9..36).step_by(9) {
            task.stream.asked(now + seconds * SECOND);
            streams.look(now + seconds * SECOND);
            assert!(!poll(task.as_mut()), "its own timer would end it first");
        }
        streams.look(now + 32 * SECOND + 6 * SECOND);
        assert!(poll(task.as_mut()));
    }

    #[test]
    fn what_is_over_leaves_the_list() {
        let streams = Rc::<Streams>::default();
        let mut task = Box::pin(streams.task(poll_fn(|_| Poll::Ready(()))));
        assert_eq!(streams.0.borrow().len(), 1);
        assert!(poll(task.as_mut()));
        drop(task);
        assert_eq!(streams.0.borrow().len(), 0);
    }
}
