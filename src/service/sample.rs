//! What a service has counted so far, as plain figures: for whoever makes rates of them.

use super::{Service, Table};
use crate::{
    model::Outcome,
    policy::{breaker, bulkhead},
};

/// A service's counts since the start, and how it stands.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The service.
    pub name: String,
    /// Calls ended, by [`Outcome::index`].
    pub calls: [u64; Outcome::COUNT],
    /// Calls that took no longer than each bound, in seconds, and all of them in sum.
    pub latency: Vec<(f64, u64)>,
    /// How long they took together, in seconds.
    pub latency_sum: f64,
    /// Calls that a fallback answered, that found it full, and that it had nothing for.
    pub fallbacks: [u64; 3],
    /// Calls that were given another's answer.
    pub shared: u64,
    /// The breaker.
    pub breaker: Option<(breaker::View, breaker::Settings)>,
    /// The bulkhead.
    pub bulkhead: Option<bulkhead::View>,
    /// How long a call may take until its answer begins, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether failures have a fallback, and identical calls share.
    pub has_fallback: bool,
    /// Whether identical calls share one.
    pub coalesces: bool,
}

impl Table {
    /// The figures of every service.
    pub fn samples(&self) -> Vec<Sample> {
        self.current().iter().map(|service| service.sample()).collect()
    }
}

impl Service {
    fn sample(&self) -> Sample {
        let (metrics, policy) = (self.metrics(), &self.config().policy);
        let (latency, latency_sum) = metrics.latency();
        let now = super::now();
        Sample {
            name: self.name().to_string(),
            calls: std::array::from_fn(|n| metrics.calls[n].get()),
            latency,
            latency_sum,
            fallbacks: metrics.fallback_counts(),
            shared: metrics.coalesced.get(),
            breaker: self.breaker().map(|breaker| breaker.view(now)).zip(policy.breaker.clone()),
            bulkhead: self.bulkhead().map(|bulkhead| bulkhead.view()),
            timeout_ms: policy.timeout.request.map(|time| time.as_millis() as u64),
            has_fallback: !policy.fallback.is_empty(),
            coalesces: policy.coalesce,
        }
    }
}
