//! What happened in a life, so that one in which nothing does is noticed.

use std::collections::BTreeMap;

/// What happened, so that a life in which nothing does is noticed.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<&'static str, u32>);

impl Seen {
    pub(crate) fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, n) in &other.0 {
            *self.0.entry(what).or_default() += n;
        }
    }

    /// Everything that this file can provoke has been provoked, and not just once.
    pub(crate) fn has_everything(&self) {
        for what in [
            "answered",
            "failed",
            "retried",
            "cancelled",
            "very late",
            "breaker refused",
            "bulkhead refused",
            "queued",
            "admitted from the queue",
            "gave up",
            "gave up too late",
            "no endpoint",
            "opened",
            "half-opened",
            "opened again",
            "closed",
            "forced",
            "resized",
            "reconfigured",
            "drained",
            "endpoints changed",
            "bystander",
            "would recover",
        ] {
            let n = self.0.get(what).copied().unwrap_or(0);
            assert!(n >= 20, "too little of it: {what}, {n} times; {self:?}");
        }
    }
}
