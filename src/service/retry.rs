//! The shell of what retries and hedges share: the budget, and how long answers take.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::lock;
use crate::policy::retry::{Budget, Hedge, Latencies, Settings};

/// One service's means for further attempts, shared by all workers. A call that needs none only counts.
#[derive(Debug)]
pub struct Retries {
    calls: AtomicU64,
    account: Mutex<Account>,
    /// Of who hedges by them.
    latencies: Mutex<Option<Latencies>>,
}

#[derive(Debug)]
struct Account {
    settings: Settings,
    budget: Budget,
}

impl Retries {
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        let account = Account { budget: Budget::new(&settings, now), settings };
        Self { calls: AtomicU64::new(0), account: Mutex::new(account), latencies: Mutex::default() }
    }

    /// Takes other settings and keeps what has been paid in.
    pub(super) fn reconfigure(&self, settings: Settings) {
        lock(&self.account).settings = settings;
    }

    /// A call has begun; it pays into the budget.
    pub fn call_began(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one attempt out of the budget, if it bears one more.
    pub fn take(&self, now: Instant) -> bool {
        let Account { settings, budget } = &mut *lock(&self.account);
        budget.take(settings, self.calls.load(Ordering::Relaxed), now)
    }

    /// Puts back what was taken for an attempt that was not made.
    pub fn put_back(&self) {
        lock(&self.account).budget.put_back();
    }

    /// How many further attempts the budget bears now.
    pub fn left(&self, now: Instant) -> u32 {
        let Account { settings, budget } = &*lock(&self.account);
        budget.left(settings, self.calls.load(Ordering::Relaxed), now)
    }

    /// An answer began so long after its request went out.
    pub fn answered(&self, took: Duration) {
        lock(&self.latencies).get_or_insert_default().observe(took);
    }

    /// After how long a second attempt is due; `None` while too little is known.
    pub fn hedge_after(&self, hedge: Hedge) -> Option<Duration> {
        match hedge {
            Hedge::After(time) => Some(time),
            Hedge::Percentile(percentile) => lock(&self.latencies).as_mut()?.percentile(percentile),
        }
    }
}
