//! How far an upload is: what the call, its attempt and its answer want to know of it.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// How far an upload is; shared with the call.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Progress {
    ended: Cell<bool>,
    /// The endpoint has not asked for it yet.
    held_back: Cell<bool>,
    waits_for_app: Cell<bool>,
    bytes: Cell<u64>,
    /// Pieces that have gone up, and pieces of the answer that have come down.
    moved: Cell<u32>,
    answer_moved: Cell<u32>,
    /// The head of the answer has come: nothing is wanted again.
    answered: Cell<bool>,
    failure: RefCell<Option<UploadFailure>>,
    /// Waits for the end.
    waiting: RefCell<Option<Waker>>,
}

/// What broke an upload off, on the app's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy) enum UploadFailure {
    /// The app paused for longer than `idle`.
    Idle,
    /// The app's body is malformed.
    Malformed(String),
    /// The app's connection ended before its body did.
    Gone,
}

impl Progress {
    /// Of an upload that has not begun; `held_back` says that the endpoint has to ask for it first.
    pub(in crate::proxy) fn of_upload(held_back: bool) -> Rc<Self> {
        let progress = Self::default();
        progress.held_back.set(held_back);
        Rc::new(progress)
    }

    /// Whether the endpoint has yet to ask for it.
    pub(in crate::proxy) fn is_held_back(&self) -> bool {
        self.held_back.get()
    }

    /// The endpoint has asked for it.
    pub(in crate::proxy) fn asked_for(&self) {
        self.held_back.set(false);
    }

    /// A piece has been read.
    pub(in crate::proxy) fn advance(&self, bytes: usize) {
        self.waits_for_app.set(false);
        self.moved.set(self.moved.get().wrapping_add(1));
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// The next piece has yet to come.
    pub(in crate::proxy) fn wait_for_app(&self) {
        self.waits_for_app.set(true);
    }

    /// The last piece has been read; whether that is news.
    pub(in crate::proxy) fn end(&self) -> bool {
        self.waits_for_app.set(false);
        let is_news = !self.ended.replace(true);
        if is_news {
            self.wake();
        }
        is_news
    }

    /// Whether the answer has begun.
    pub(in crate::proxy) fn is_answered(&self) -> bool {
        self.answered.get()
    }

    /// How many pieces of the answer have come.
    pub(in crate::proxy) fn answer_has_moved(&self) -> u32 {
        self.answer_moved.get()
    }

    /// Whether the whole body has been read.
    pub(in crate::proxy) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Waits until the whole body has been read, or nothing more will be.
    pub(super) async fn ended(&self) {
        poll_fn(|cx| {
            if self.ended.get() || self.failure.borrow().is_some() {
                return Poll::Ready(());
            }
            self.waiting.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    pub(super) fn fail(&self, failure: UploadFailure) {
        self.failure.replace(Some(failure));
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether the app is what the upload waits for.
    pub(in crate::proxy) fn waits_for_app(&self) -> bool {
        self.waits_for_app.get()
    }

    /// How often it has moved.
    pub(in crate::proxy) fn moved(&self) -> u32 {
        self.moved.get()
    }

    /// A piece of the answer has come.
    pub(in crate::proxy) fn answer_moved(&self) {
        self.answer_moved.set(self.answer_moved.get().wrapping_add(1));
    }

    /// The answer has begun.
    pub(in crate::proxy) fn answer_begun(&self) {
        self.answered.set(true);
    }

    /// Bytes read so far.
    pub(in crate::proxy) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// What broke it off.
    pub(in crate::proxy) fn failure(&self) -> Option<UploadFailure> {
        self.failure.borrow().clone()
    }
}
