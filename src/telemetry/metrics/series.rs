//! What one service has counted: plain numbers, side by side.
//!
//! A counter of the `prometheus` crate carries its name, help and labels with it, a kilobyte or so each; thousands of
//! services with some seventy of them would fill a machine's memory with the same words. Here a series is eight
//! bytes at a fixed place, and its words are put to it when somebody reads. So counting on the path of a call is an
//! atomic addition to a field, and never a look-up by label.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::model::Outcome;

/// Upper bounds of the latency buckets, in seconds: fine where a local call lives, coarse to a minute.
pub(super) const BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// How many GraphQL operations of a service have series of their own.
pub(super) const OPERATIONS: usize = 100;

/// The kinds of fallback; the `kind` label of `outrigger_fallbacks_total`.
pub(super) const FALLBACK_KINDS: [&str; 3] = ["last_good", "service", "respond"];

/// Why a step of a fallback could not answer; the `why` label of `outrigger_fallback_refused_total`.
pub(super) const REFUSALS: [&str; 2] = ["full", "nothing"];

/// The states of an endpoint; the `state` label of `outrigger_endpoints`.
pub const ENDPOINT_STATES: [&str; 4] = ["ready", "draining", "ejected", "unhealthy"];

/// Why endpoints are taken out of rotation; the `reason` label of `outrigger_ejections_total`.
pub(super) const EJECTION_REASONS: [&str; 4] = ["consecutive", "error_rate", "probe", "health_check"];

/// How much calls matter; the `priority` label of `outrigger_bulkhead_shed_total`.
pub(super) const PRIORITIES: [&str; 4] = ["critical", "high", "normal", "low"];

/// What makes a further attempt necessary; the `reason` label of `outrigger_retries_total`.
pub const RETRY_REASONS: [&str; 8] =
    ["connect", "reset", "timeout", "status", "grpc", "hedge", "reused_connection", "refused"];

/// Kinds of sources times results of a look.
pub(super) const LOOKS: usize = 16;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// How many now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// How long calls took.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    /// Calls that took no longer than the bound of this bucket and longer than that of the one before; the last has none.
    within: [Count; BUCKETS.len() + 1],
    /// How long all of them took, in nanoseconds: enough for 584 years.
    sum: AtomicU64,
}

impl Latencies {
    fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.within[bucket].inc();
        self.sum.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How many calls took no longer than each bound, in seconds (all of them last, without a bound), and how long
    /// they took together.
    pub(super) fn cumulative(&self) -> (Vec<(f64, u64)>, f64) {
        let mut so_far = 0;
        let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
        let within = bounds.zip(&self.within).map(|(bound, count)| {
            so_far += count.get();
            (bound, so_far)
        });
        (within.collect(), Duration::from_nanos(self.sum.load(Relaxed)).as_secs_f64())
    }
}

/// What mirrors a service's state. Nobody keeps it up to date call by call: whoever reads the metrics has it set
/// first, from the state itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirror {
    /// The breaker: 0 closed, 1 half-open, 2 open.
    pub breaker: i64,
    /// Calls outstanding.
    pub in_flight: i64,
    /// Calls that may be outstanding at once; 0 when the bulkhead is off.
    pub limit: i64,
    /// Calls that wait for the answer of an identical one.
    pub waiting: i64,
    /// Endpoints by [`ENDPOINT_STATES`].
    pub endpoints: [i64; ENDPOINT_STATES.len()],
    /// Seconds since the source last answered; NaN when it never has.
    pub age: f64,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { breaker: 0, in_flight: 0, limit: 0, waiting: 0, endpoints: [0; 4], age: f64::NAN }
    }
}

impl Mirror {
    /// Several services under one label: their sum, and of a state or an age the worst.
    fn add(&mut self, other: &Self) {
        self.breaker = self.breaker.max(other.breaker);
        self.in_flight += other.in_flight;
        self.limit += other.limit;
        self.waiting += other.waiting;
        self.endpoints.iter_mut().zip(other.endpoints).for_each(|(sum, more)| *sum += more);
        self.age = self.age.max(other.age);
    }
}

/// Everything that is counted of one service, or of several under one label.
#[derive(Debug, Default)]
pub struct Series {
    /// The `service` label.
    pub(super) label: Box<str>,
    /// Calls ended, by [`Outcome::index`].
    pub calls: [Count; Outcome::COUNT],
    /// Attempts ended, by [`Outcome::index`].
    pub attempts: [Count; Outcome::COUNT],
    /// How long calls took.
    pub(super) durations: Latencies,
    /// Open connections to the service's endpoints.
    pub upstream_connections: Level,
    /// Transitions to closed, half-open and open.
    pub breaker_transitions: [Count; 3],
    /// Attempts that the budget did not bear.
    pub retry_budget_exhausted: Count,
    /// Calls that were given another's answer.
    pub coalesced: Count,
    /// Answers that `failure_if` did not look into.
    pub failure_if_unjudged: Count,
    pub(super) retries: [Count; RETRY_REASONS.len()],
    pub(super) ejections: [Count; EJECTION_REASONS.len()],
    pub(super) shed: [Count; PRIORITIES.len()],
    /// Which kinds of fallback the service has, a bit each.
    pub(super) fallback_kinds: AtomicU64,
    pub(super) fallbacks: [Count; FALLBACK_KINDS.len()],
    pub(super) refused: [[Count; REFUSALS.len()]; FALLBACK_KINDS.len()],
    /// Checks that were good, and those that were not.
    pub(super) health_checks: [Count; 2],
    pub(super) looks: [Count; LOOKS],
    /// When the certificate that is shown expires, in seconds since 1970; 0 where there is none.
    pub(super) certificate_expiry: AtomicU64,
    operations: Mutex<Operations>,
    mirror: Mutex<Mirror>,
}

/// Calls by GraphQL operation and outcome: as many operations as have series of their own, and `other`.
pub(super) type Operations = BTreeMap<Box<str>, [u64; Outcome::COUNT]>;

/// One service's handles. Cheap to clone; equal to those of every service that counts under the same label.
#[derive(Debug, Clone, Default)]
pub struct ServiceMetrics(pub(super) Arc<Series>);

impl Deref for ServiceMetrics {
    type Target = Series;

    fn deref(&self) -> &Series {
        &self.0
    }
}

impl Series {
    /// The `service` label that they count under.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn of(label: &str) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// Whether anything has happened to it that an app or an operator did.
    pub(super) fn has_begun(&self) -> bool {
        let mut counts = self.calls.iter().chain(&self.attempts).chain(&self.breaker_transitions);
        counts.any(|count| count.get() > 0)
    }

    /// Counts a call that ended.
    pub fn call_ended(&self, outcome: Outcome, took: Duration) {
        self.calls[outcome.index()].inc();
        self.durations.observe(took);
    }

    /// Counts an attempt that ended.
    pub fn attempt_ended(&self, outcome: Outcome) {
        self.attempts[outcome.index()].inc();
    }

    /// Counts an attempt after a call's first, by what made it necessary: one of [`RETRY_REASONS`].
    pub fn retried(&self, reason: &'static str) {
        count(&RETRY_REASONS, &self.retries, reason);
    }

    /// How many calls took no longer than each bound, in seconds (all of them last, without a bound), and how long they
    /// took together.
    pub fn latency(&self) -> (Vec<(f64, u64)>, f64) {
        self.durations.cumulative()
    }

    /// Calls that a fallback answered; steps that were full, and steps that had nothing.
    pub fn fallback_counts(&self) -> [u64; 3] {
        let refused = |why: usize| self.refused.iter().map(|kind| kind[why].get()).sum();
        [self.fallbacks.iter().map(Count::get).sum(), refused(0), refused(1)]
    }

    /// Counts a call that found no place in the bulkhead.
    pub fn shed(&self, priority: &'static str) {
        count(&PRIORITIES, &self.shed, priority);
    }

    /// Counts a call of a GraphQL operation that ended.
    pub fn graphql_ended(&self, operation: &str, outcome: Outcome) {
        let mut operations = lock(&self.operations);
        // `other` may be one of a hundred names that callers chose, or the one beyond them.
        let has_series = operations.contains_key(operation) || operations.len() < OPERATIONS;
        let name = if has_series { operation } else { "other" };
        operations.entry(name.into()).or_insert([0; Outcome::COUNT])[outcome.index()] += 1;
    }

    pub(super) fn operations(&self) -> MutexGuard<'_, Operations> {
        lock(&self.operations)
    }

    /// Counts a call that a fallback answered.
    pub fn fell_back(&self, kind: &'static str) {
        count(&FALLBACK_KINDS, &self.fallbacks, kind);
    }

    /// Makes the series of a kind of fallback that the service has, at 0.
    pub fn may_fall_back(&self, kind: &'static str) {
        if let Some(place) = place(&FALLBACK_KINDS, kind) {
            self.fallback_kinds.fetch_or(1 << place, Relaxed);
        }
    }

    /// Counts a step of a fallback that could not answer.
    pub fn fallback_refused(&self, kind: &'static str, why: &'static str) {
        if let Some(place) = place(&FALLBACK_KINDS, kind) {
            count(&REFUSALS, &self.refused[place], why);
        }
    }

    /// Counts an endpoint that was taken out of rotation.
    pub fn ejected(&self, reason: &'static str) {
        count(&EJECTION_REASONS, &self.ejections, reason);
    }

    /// Adds a service's state to what is shown under its label.
    pub fn mirror(&self, state: &Mirror) {
        lock(&self.mirror).add(state);
    }

    pub(super) fn mirrored(&self) -> Mirror {
        *lock(&self.mirror)
    }

    pub(super) fn clear_mirror(&self) {
        *lock(&self.mirror) = Mirror::default();
    }
}

/// Where a word stands among those of its label.
fn place(words: &[&str], word: &str) -> Option<usize> {
    let place = words.iter().position(|known| *known == word);
    debug_assert!(place.is_some(), "{word} is none of {words:?}");
    place
}

fn count(words: &[&str], counts: &[Count], word: &str) {
    if let Some(place) = place(words, word) {
        counts[place].inc();
    }
}

/// A thread that panicked in the middle of an addition left nothing half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
