//! Holding an upload back until the endpoint wants it (`Expect: 100-continue`, RFC 9110 §10.1.1).

use std::{
    future::Future as _,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// How long an app that waits for "100 Continue" is kept waiting for an endpoint that may not know it.
const LIMIT: Duration = Duration::from_secs(1);

/// Holds an upload back until the endpoint wants it.
pub(super) struct Gate {
    shared: Arc<GateState>,
    limit: Pin<Box<Sleep>>,
}

#[derive(Default)]
struct GateState {
    open: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

/// Opens a [`Gate`]; may be called from wherever hyper reports an interim answer.
#[derive(Clone)]
pub(super) struct GateKey(Arc<GateState>);

impl Gate {
    /// A closed gate and its key. It opens by itself after a second.
    pub(super) fn closed() -> (Self, GateKey) {
        let shared = Arc::new(GateState::default());
        let limit = Box::pin(sleep_until(Instant::now() + LIMIT));
        (Self { shared: shared.clone(), limit }, GateKey(shared))
    }

    /// Ready when it is open.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        *self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.shared.open.load(Ordering::Acquire) { Poll::Ready(()) } else { self.limit.as_mut().poll(cx) }
    }
}

impl GateKey {
    pub(super) fn open(&self) {
        self.0.open.store(true, Ordering::Release);
        if let Some(waker) = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}
