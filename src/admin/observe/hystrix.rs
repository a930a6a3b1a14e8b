//! `/hystrix.stream`: every service as a Hystrix command and its bulkhead as a thread pool, in Hystrix's own JSON, so
//! that its dashboards and Turbine work (Netflix/Hystrix, `hystrix-metrics-event-stream`).
//!
//! Nothing is kept for it while nobody looks: each stream takes a sample of the counters a second, and shows what has
//! been added over the last ten. A call is what Hystrix calls a command's execution. Where the two count differently,
//! docs/hystrix.md says how.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::{
    model::{Outcome, Reason},
    policy::breaker::{Forced, State},
    service::Sample,
};

/// How often each service is told of, unless the client says so by `?delay=` (milliseconds).
const DELAY: Duration = Duration::from_millis(500);
/// How many streams there may be at once; each keeps samples of every service.
const STREAMS: usize = 5;
/// After so long a stream ends, and its client comes again: one that stands still is not kept for ever.
const LONGEST: Duration = Duration::from_secs(3600);
/// What the figures look back, in samples of a second each.
const WINDOW: usize = 10;

/// The percentiles that Hystrix tells.
const PERCENTILES: [(&str, f64); 9] = [
    ("0", 0.0),
    ("25", 0.25),
    ("50", 0.5),
    ("75", 0.75),
    ("90", 0.9),
    ("95", 0.95),
    ("99", 0.99),
    ("99.5", 0.995),
    ("100", 1.0),
];

/// The streams of one port.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(Arc<AtomicUsize>);

/// One client's stream.
pub(super) struct Stream<Take> {
    take: Take,
    ticks: Interval,
    ends: Instant,
    sampled: Option<Instant>,
    samples: HashMap<String, VecDeque<Sample>>,
    streams: Streams,
}

impl Streams {
    /// A stream of what `take` samples, with Hystrix's `delay` from a query; `None` when there are enough.
    pub(super) fn open<Take>(&self, query: Option<&str>, take: Take) -> Option<Stream<Take>>
    where
        Take: Fn() -> Vec<Sample> + Send + Unpin,
    {
        if self.0.fetch_add(1, Ordering::Relaxed) >= STREAMS {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let delay = query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("delay="));
        let delay = delay.and_then(|delay| delay.parse().ok()).map_or(DELAY, Duration::from_millis);
        let mut ticks = interval(delay.clamp(Duration::from_millis(100), Duration::from_secs(60)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (sampled, samples) = (None, HashMap::new());
        Some(Stream { take, ticks, ends: Instant::now() + LONGEST, sampled, samples, streams: self.clone() })
    }
}

impl<Take> Drop for Stream<Take> {
    fn drop(&mut self) {
        self.streams.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<Take: Fn() -> Vec<Sample> + Unpin> Body for Stream<Take> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        std::task::ready!(this.ticks.poll_tick(cx));
        let now = Instant::now();
        if now >= this.ends {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(this.tell(now).into()))))
    }
}

impl<Take: Fn() -> Vec<Sample>> Stream<Take> {
    /// What there is to tell now; without services, a comment that keeps the connection alive, as Hystrix's ping does.
    fn tell(&mut self, now: Instant) -> String {
        let latest = (self.take)();
        let is_due = self.sampled.is_none_or(|at| now.saturating_duration_since(at) >= Duration::from_secs(1));
        let mut text = String::new();
        for sample in &latest {
            let window = self.samples.entry(sample.name.clone()).or_default();
            if is_due || window.is_empty() {
                window.push_back(sample.clone());
                if window.len() > WINDOW + 1 {
                    window.pop_front();
                }
            }
            let before = window.front().unwrap_or(sample);
            for object in [command(before, sample), thread_pool(before, sample)] {
                text += &format!("data: {object}\n\n");
            }
        }
        if is_due {
            self.sampled = Some(now);
            self.samples.retain(|name, _| latest.iter().any(|sample| sample.name == *name));
        }
        if text.is_empty() { "ping: \n\n".to_owned() } else { text }
    }
}

/// What a window has seen, in Hystrix's terms.
struct Counts {
    success: u64,
    failure: u64,
    timeout: u64,
    short_circuited: u64,
    rejected: u64,
    bad_requests: u64,
    cancelled: u64,
}

impl Counts {
    fn between(before: &Sample, now: &Sample) -> Self {
        let of = |outcome: Outcome| {
            let n = outcome.index();
            now.calls[n].saturating_sub(before.calls[n])
        };
        let reason = |reason: Reason| of(Outcome::Failed(reason));
        let upstream = Outcome::words().iter().position(|word| *word == "upstream_error").unwrap_or_default();
        let failures = [
            Reason::ConnectRefused,
            Reason::UpstreamReset,
            Reason::BadResponse,
            Reason::TlsFailed,
            Reason::NoEndpoints,
            Reason::Loop,
            Reason::ShuttingDown,
        ];
        Self {
            success: of(Outcome::Ok),
            failure: now.calls[upstream].saturating_sub(before.calls[upstream])
                + failures.into_iter().map(reason).sum::<u64>(),
            timeout: reason(Reason::ConnectTimeout) + reason(Reason::RequestTimeout),
            short_circuited: reason(Reason::BreakerOpen),
            rejected: reason(Reason::BulkheadFull),
            bad_requests: reason(Reason::BadRequest),
            cancelled: of(Outcome::Cancelled),
        }
    }

    /// What Hystrix's circuit breaker would judge by: rejections are errors there.
    fn errors(&self) -> u64 {
        self.failure + self.timeout + self.rejected
    }

    fn total(&self) -> u64 {
        self.success + self.errors()
    }
}

/// A service as a `HystrixCommand`.
fn command(before: &Sample, now: &Sample) -> Value {
    let counts = Counts::between(before, now);
    let fallback = |n: usize| now.fallbacks[n].saturating_sub(before.fallbacks[n]);
    let (is_open, forced) =
        now.breaker.as_ref().map_or((false, None), |(view, _)| (view.state != State::Closed, Some(view.forced)));
    let settings = now.breaker.as_ref().map(|(_, settings)| settings);
    let in_flight = now.bulkhead.map_or(0, |bulkhead| bulkhead.in_flight);
    let errors = (counts.errors() * 100).checked_div(counts.total()).unwrap_or(0);
    let mut object = json!({
        "type": "HystrixCommand",
        "name": now.name,
        "group": "outrigger",
        "threadPool": now.name,
        "currentTime": millis_since_epoch(),
        "isCircuitBreakerOpen": is_open,
        "errorPercentage": errors,
        "errorCount": counts.errors(),
        "requestCount": counts.total(),
        "rollingCountBadRequests": counts.bad_requests,
        "rollingCountCollapsedRequests": now.shared.saturating_sub(before.shared),
        "rollingCountEmit": 0,
        "rollingCountExceptionsThrown": (counts.errors() + counts.short_circuited).saturating_sub(fallback(0)),
        "rollingCountFailure": counts.failure,
        "rollingCountFallbackEmit": 0,
        "rollingCountFallbackFailure": fallback(2),
        "rollingCountFallbackMissing": if now.has_fallback { 0 } else { counts.errors() + counts.short_circuited },
        "rollingCountFallbackRejection": fallback(1),
        "rollingCountFallbackSuccess": fallback(0),
        "rollingCountResponsesFromCache": now.shared.saturating_sub(before.shared),
        "rollingCountSemaphoreRejected": counts.rejected,
        "rollingCountShortCircuited": counts.short_circuited,
        "rollingCountSuccess": counts.success,
        "rollingCountThreadPoolRejected": 0,
        "rollingCountTimeout": counts.timeout,
        "rollingCountCancelled": counts.cancelled,
        "currentConcurrentExecutionCount": in_flight,
        "rollingMaxConcurrentExecutionCount": in_flight
    });
    let properties = json!({
        "propertyValue_circuitBreakerRequestVolumeThreshold": settings.map_or(0, |settings| settings.min_calls),
        "propertyValue_circuitBreakerSleepWindowInMilliseconds": settings.map_or(0, |settings| millis(settings.open_for)),
        "propertyValue_circuitBreakerErrorThresholdPercentage": settings.map_or(0.0, |settings| settings.error_rate.as_percent()) as u64,
        "propertyValue_circuitBreakerForceOpen": forced == Some(Forced::Open),
        "propertyValue_circuitBreakerForceClosed": forced == Some(Forced::Closed),
        "propertyValue_circuitBreakerEnabled": settings.is_some(),
        "propertyValue_executionIsolationStrategy": "SEMAPHORE",
        "propertyValue_executionIsolationThreadTimeoutInMilliseconds": now.timeout_ms.unwrap_or(0),
        "propertyValue_executionTimeoutInMilliseconds": now.timeout_ms.unwrap_or(0),
        "propertyValue_executionIsolationThreadInterruptOnTimeout": true,
        "propertyValue_executionIsolationThreadPoolKeyOverride": null,
        "propertyValue_executionIsolationSemaphoreMaxConcurrentRequests": now.bulkhead.map_or(0, |bulkhead| bulkhead.limit),
        "propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests": 100,
        "propertyValue_metricsRollingStatisticalWindowInMilliseconds": 1000 * WINDOW,
        "propertyValue_requestCacheEnabled": now.coalesces,
        "propertyValue_requestLogEnabled": false,
        "reportingHosts": 1,
    });
    let latency = Latency::between(before, now);
    if let (Some(object), Value::Object(properties)) = (object.as_object_mut(), properties) {
        object.extend(properties);
        // A sidecar's call has no queue of a thread pool before it: both are the same time.
        for kind in ["Execute", "Total"] {
            object.insert(format!("latency{kind}_mean"), json!(latency.mean()));
            let percentiles: Map<_, _> = PERCENTILES
                .iter()
                .map(|(name, share)| ((*name).to_owned(), json!(latency.percentile(*share))))
                .collect();
            object.insert(format!("latency{kind}"), Value::Object(percentiles));
        }
    }
    object
}

/// A service's bulkhead as a `HystrixThreadPool`.
fn thread_pool(before: &Sample, now: &Sample) -> Value {
    let counts = Counts::between(before, now);
    let bulkhead = now.bulkhead;
    let (in_flight, limit) = bulkhead.map_or((0, 0), |bulkhead| (bulkhead.in_flight, bulkhead.limit));
    let completed: u64 = now.calls.iter().sum();
    json!({
        "type": "HystrixThreadPool",
        "name": now.name,
        "currentTime": millis_since_epoch(),
        "currentActiveCount": in_flight,
        "currentCompletedTaskCount": completed,
        "currentCorePoolSize": limit,
        "currentLargestPoolSize": limit,
        "currentMaximumPoolSize": limit,
        "currentPoolSize": limit,
        "currentQueueSize": bulkhead.map_or(0, |bulkhead| bulkhead.queued),
        "currentTaskCount": completed + u64::from(in_flight),
        "rollingCountThreadsExecuted": counts.success + counts.failure + counts.timeout,
        "rollingMaxActiveThreads": in_flight,
        "rollingCountCommandRejections": counts.rejected,
        "propertyValue_queueSizeRejectionThreshold": bulkhead.map_or(0, |bulkhead| bulkhead.queue),
        "propertyValue_metricsRollingStatisticalWindowInMilliseconds": 1000 * WINDOW,
        "reportingHosts": 1,
    })
}

/// The latencies of a window.
struct Latency {
    /// Calls that took no longer than each bound, in milliseconds.
    within: Vec<(f64, u64)>,
    count: u64,
    sum_ms: f64,
}

impl Latency {
    fn between(before: &Sample, now: &Sample) -> Self {
        let earlier = before.latency.iter().map(|(_, n)| *n).chain(std::iter::repeat(0));
        let within: Vec<_> = now
            .latency
            .iter()
            .zip(earlier)
            .map(|((bound, n), before)| (bound * 1e3, n.saturating_sub(before)))
            .collect();
        let count = within.last().map_or(0, |(_, n)| *n);
        Self { within, count, sum_ms: (now.latency_sum - before.latency_sum).max(0.0) * 1e3 }
    }

    fn mean(&self) -> u64 {
        if self.count == 0 { 0 } else { (self.sum_ms / self.count as f64) as u64 }
    }

    /// The latency that so large a share stays within, in milliseconds: straight lines between the bounds.
    fn percentile(&self, share: f64) -> u64 {
        let rank = share * self.count as f64;
        let (mut low, mut below) = (0.0, 0u64);
        for (bound, n) in &self.within {
            if *n > below && *n as f64 >= rank {
                // The last one has no bound: what is known is where it begins.
                let high = if bound.is_finite() { *bound } else { low };
                return (low + (high - low) * ((rank - below as f64) / (*n - below) as f64).clamp(0.0, 1.0)) as u64;
            }
            (low, below) = (if bound.is_finite() { *bound } else { low }, *n);
        }
        0
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn millis_since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_on_straight_lines() {
        let latency = Latency {
            within: vec![(10.0, 0), (20.0, 50), (40.0, 100), (f64::INFINITY, 100)],
            count: 100,
            sum_ms: 2250.0,
        };
        for (share, expected) in [(0.0, 10), (0.25, 15), (0.5, 20), (0.75, 30), (1.0, 40)] {
            assert_eq!(latency.percentile(share), expected, "{share}");
        }
        assert_eq!(latency.mean(), 22);
        let none = Latency { within: vec![(10.0, 0)], count: 0, sum_ms: 0.0 };
        assert_eq!((none.percentile(0.99), none.mean()), (0, 0));
    }
}
