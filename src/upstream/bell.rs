//! The waker of a connection that is driven by its user.
//!
//! hyper's two halves wake each other: whoever takes a piece of a body wakes the driver, for there is room
//! again; whoever hands over a request wakes it, for there is work. Where both halves are polled by one
//! task, one right after the other, such a wake says what that task is doing already, and would have it
//! polled once more for nothing. So the driver gets a waker of its own, a bell, that its user can hold still
//! while it deals with the other half. The sockets ring it at other times.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

/// The bell of one connection.
pub(super) struct Bell {
    striker: Arc<Striker>,
    waker: Waker,
}

struct Striker {
    task: Mutex<Waker>,
    held: AtomicBool,
}

impl Bell {
    /// A bell that nobody hears yet.
    pub(super) fn new() -> Self {
        let striker = Arc::new(Striker { task: Mutex::new(Waker::noop().clone()), held: AtomicBool::new(true) });
        Self { waker: Waker::from(striker.clone()), striker }
    }

    /// From now on it wakes the task of this context.
    pub(super) fn heard_by(&self, cx: &Context<'_>) {
        let mut task = self.striker.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.will_wake(cx.waker()) {
            task.clone_from(cx.waker());
        }
        drop(task);
        self.striker.held.store(false, Ordering::Relaxed);
    }

    /// Nobody hears it until [`Bell::heard_by`] is called again.
    pub(super) fn hold(&self) {
        self.striker.held.store(true, Ordering::Relaxed);
    }

    /// Nobody hears it during `act`. Whoever holds it has to drive the connection afterwards.
    pub(super) fn still<T>(&self, act: impl FnOnce() -> T) -> T {
        let held = self.striker.held.swap(true, Ordering::Relaxed);
        let done = act();
        self.striker.held.store(held, Ordering::Relaxed);
        done
    }

    /// What the driver is polled with.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }
}

impl Wake for Striker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.held.load(Ordering::Relaxed) {
            self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn it_is_heard_by_the_last_user_and_only_while_it_is_not_held() {
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let heard = || (first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst));
        let bell = Bell::new();
        bell.waker().wake_by_ref();
        bell.heard_by(&Context::from_waker(&Waker::from(first.clone())));
        bell.waker().wake_by_ref();
        assert_eq!(heard(), (1, 0));
        bell.still(|| bell.waker().wake_by_ref());
        assert_eq!(heard(), (1, 0));
        bell.heard_by(&Context::from_waker(&Waker::from(second.clone())));
        bell.waker().wake_by_ref();
        assert_eq!(heard(), (1, 1));
        bell.hold();
        bell.still(|| ());
        bell.waker().wake_by_ref();
        assert_eq!(heard(), (1, 1), "what was held before stays held");
    }
}
