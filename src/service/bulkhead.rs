//! The bulkhead's shell: its lock, and the waking of those that wait for a place.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{lock, now};
use crate::policy::{
    adaptive::{self, Adaptive},
    bulkhead::{Bulkhead as Core, GaveUp, Priority, Settings, Verdict, View, WaiterId},
    deadline::earliest,
};

/// One service's bulkhead, shared by all workers. The lock is held for a few additions at a time.
#[derive(Debug)]
pub struct Bulkhead {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    core: Core,
    settings: Settings,
    waiters: HashMap<WaiterId, oneshot::Sender<()>>,
    /// Who lost its place in the queue to somebody who matters more, and has yet to find out.
    displaced: HashSet<WaiterId>,
    /// What moves the limit, where it moves.
    adaptive: Option<Adaptive>,
}

/// There is no place for the call, nor came one free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkheadFull;

impl Bulkhead {
    pub(super) fn new(settings: Settings) -> Self {
        let core = Core::new(settings.clone());
        let adaptive = settings.adaptive.as_ref().map(|adaptive| Adaptive::new(adaptive, settings.max));
        let (waiters, displaced) = (HashMap::new(), HashSet::new());
        Self { state: Mutex::new(State { core, settings, waiters, displaced, adaptive }) }
    }

    /// Asks for a place, waiting in the queue if there is one, until its wait limit or `deadline`.
    ///
    /// # Errors
    /// [`BulkheadFull`] when there is no place, none in the queue, or the wait was in vain.
    pub async fn admit(
        self: &Arc<Self>,
        priority: Priority,
        deadline: Option<Instant>,
    ) -> Result<Permit, BulkheadFull> {
        let (waiter, woken, until) = {
            let mut state = lock(&self.state);
            match state.core.admit_as(priority) {
                Verdict::Admit => return Ok(Permit { bulkhead: self.clone() }),
                Verdict::Refuse => return Err(BulkheadFull),
                verdict @ (Verdict::Queue(id) | Verdict::Displace { waiter: id, .. }) => {
                    if let Verdict::Displace { refused, .. } = verdict {
                        // Its waker is dropped, which wakes it.
                        state.waiters.remove(&refused);
                        state.displaced.insert(refused);
                    }
                    let (wake, woken) = oneshot::channel();
                    state.waiters.insert(id, wake);
                    let until = earliest(deadline, now().checked_add(state.settings.wait));
                    (Waiter { bulkhead: self, id: Some(id) }, woken, until)
                }
            }
        };
        let woken = match until {
            Some(until) => matches!(tokio::time::timeout_at(until.into(), woken).await, Ok(Ok(()))),
            None => woken.await.is_ok(),
        };
        if woken { Ok(waiter.admitted()) } else { Err(BulkheadFull) }
    }

    /// Takes other limits; calls in flight stay, waiters that now have a place are let in.
    pub(super) fn resize(&self, settings: Settings) {
        let mut state = lock(&self.state);
        state.settings = settings.clone();
        state.adaptive = match (state.adaptive.take(), &settings.adaptive) {
            (Some(mut adaptive), Some(now)) => {
                adaptive.reconfigure(now, settings.max);
                Some(adaptive)
            }
            (None, Some(now)) => Some(Adaptive::new(now, settings.max)),
            (_, None) => None,
        };
        let max = state.adaptive.as_ref().map_or(settings.max, Adaptive::limit);
        for waiter in state.core.resize(Settings { max, ..settings }) {
            state.wake(waiter);
        }
    }

    /// Its state, for people.
    pub fn view(&self) -> View {
        lock(&self.state).core.view()
    }

    /// How its limit follows latency, where it does.
    pub fn adaptive(&self) -> Option<adaptive::View> {
        lock(&self.state).adaptive.as_ref().map(Adaptive::view)
    }

    /// A call that holds a place was answered after so long.
    fn answered(&self, now: Instant, took: Duration) {
        let mut state = lock(&self.state);
        let in_flight = state.core.view().in_flight;
        let Some(limit) = state.adaptive.as_mut().and_then(|adaptive| adaptive.record(now, took, in_flight)) else {
            return;
        };
        for waiter in state.core.limit_to(limit) {
            state.wake(waiter);
        }
    }

    fn release(&self) {
        let mut state = lock(&self.state);
        if let Some(waiter) = state.core.release() {
            state.wake(waiter);
        }
    }
}

impl State {
    /// Tells a waiter that a place is its own. One that is just giving up finds out when it does, and passes the place on.
    fn wake(&mut self, waiter: WaiterId) {
        if let Some(wake) = self.waiters.remove(&waiter) {
            let _ = wake.send(());
        }
    }
}

/// One call's place. It is free again when this drops.
#[derive(Debug)]
pub struct Permit {
    bulkhead: Arc<Bulkhead>,
}

impl Permit {
    /// The call that holds it was answered, or its time was over, after so long.
    pub fn answered(&self, now: Instant, took: Duration) {
        self.bulkhead.answered(now, took);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.bulkhead.release();
    }
}

/// One call's place in the queue. A call that goes away, for whatever reason, leaves the queue; if a place
/// was given to it in that same moment, the place passes on.
struct Waiter<'a> {
    bulkhead: &'a Arc<Bulkhead>,
    id: Option<WaiterId>,
}

impl Waiter<'_> {
    fn admitted(mut self) -> Permit {
        self.id = None;
        Permit { bulkhead: self.bulkhead.clone() }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let gave_up = {
            let mut state = lock(&self.bulkhead.state);
            state.waiters.remove(&id);
            if state.displaced.remove(&id) {
                return;
            }
            state.core.give_up(id)
        };
        match gave_up {
            GaveUp::Left => {}
            GaveUp::AlreadyAdmitted => self.bulkhead.release(),
        }
    }
}
