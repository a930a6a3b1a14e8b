//! One look at every service, and what has happened since the look before.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::service::view::ServiceView;

/// The answer of `/api/services`.
#[derive(Debug, Deserialize)]
pub(super) struct Services {
    services: Vec<ServiceView>,
}

/// What was seen at one moment.
#[derive(Debug)]
pub(super) struct Sample {
    at: Instant,
    rows: BTreeMap<String, Row>,
}

/// One service at that moment.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) ready: usize,
    pub(super) endpoints: usize,
    /// The breaker's state, `off`, or `forced_open` and the like.
    pub(super) breaker: String,
    /// Calls outstanding, and the limit.
    pub(super) bulkhead: Option<(u32, u32)>,
    /// The slowest endpoint's.
    pub(super) latency_ms: f64,
    /// `None` at the first look, and when the counters began anew.
    pub(super) rates: Option<Rates>,
    totals: Totals,
}

/// Calls per second since the look before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) calls: f64,
    /// Neither ok nor cancelled by the app.
    pub(super) failed: f64,
}

#[derive(Debug, Clone, Copy)]
struct Totals {
    calls: u64,
    failed: u64,
}

impl Sample {
    pub(super) fn new(seen: Services, at: Instant, last: Option<&Self>) -> Self {
        let since = last.map(|last| at.saturating_duration_since(last.at));
        let rows = seen.services.into_iter().map(|view| {
            let before = last.and_then(|last| last.rows.get(&view.name)).map(|row| row.totals);
            let row = Row::new(view, before.zip(since));
            (row.name.clone(), row)
        });
        Self { at, rows: rows.collect() }
    }

    /// The services by name.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The services with what needs attention first, then the busiest.
    pub(super) fn worst_first(&self) -> Vec<&Row> {
        let mut rows: Vec<_> = self.rows().collect();
        rows.sort_by(|a, b| {
            let rate = |row: &Row, pick: fn(Rates) -> f64| row.rates.map_or(0.0, pick);
            let trouble = |row: &Row| (row.ready == 0, !matches!(&*row.breaker, "closed" | "off"));
            (trouble(b).cmp(&trouble(a)))
                .then(rate(b, |r| r.failed).total_cmp(&rate(a, |r| r.failed)))
                .then(rate(b, |r| r.calls).total_cmp(&rate(a, |r| r.calls)))
        });
        rows
    }
}

impl Row {
    fn new(view: ServiceView, before: Option<(Totals, Duration)>) -> Self {
        let harmless = |outcome: &str| matches!(outcome, "ok" | "cancelled");
        let totals = Totals {
            calls: view.calls.values().sum(),
            failed: view.calls.iter().filter(|(outcome, _)| !harmless(outcome)).map(|(_, n)| n).sum(),
        };
        let breaker = match view.breaker {
            None => "off".into(),
            Some(breaker) if breaker.forced == "auto" => breaker.state,
            Some(breaker) => format!("forced_{}", breaker.forced),
        };
        Self {
            ready: view.endpoints.iter().filter(|endpoint| endpoint.state == "ready").count(),
            endpoints: view.endpoints.len(),
            breaker,
            bulkhead: view.bulkhead.map(|bulkhead| (bulkhead.in_flight, bulkhead.limit)),
            latency_ms: view.endpoints.iter().map(|endpoint| endpoint.latency_ms).fold(0.0, f64::max),
            rates: before.and_then(|(before, since)| Rates::between(before, totals, since)),
            totals,
            name: view.name,
        }
    }
}

impl Rates {
    /// `None` when no time has passed, or when the sidecar has begun to count anew.
    fn between(before: Totals, now: Totals, since: Duration) -> Option<Self> {
        let seconds = since.as_secs_f64();
        let per_second = |before: u64, now: u64| Some(now.checked_sub(before)? as f64 / seconds);
        if seconds == 0.0 {
            return None;
        }
        Some(Self { calls: per_second(before.calls, now.calls)?, failed: per_second(before.failed, now.failed)? })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, ready: usize, breaker: Value, bulkhead: Value, latency: f64, calls: Value) -> Value {
        let endpoint = |n: usize| {
            json!({ "addr": format!("10.0.0.{n}:80"), "weight": 1, "priority": 0, "origin": "static config",
                "state": if n < ready { "ready" } else { "draining" }, "in_flight": 0, "latency_ms": latency / (n + 1) as f64 })
        };
        json!({
            "name": name, "entry": { "hosts": [name], "shared": "127.0.0.1:8470" },
            "source": { "kind": "static", "detail": "config", "revision": 1 },
            "endpoints": [endpoint(0), endpoint(1)], "policy": {}, "breaker": breaker, "bulkhead": bulkhead, "calls": calls,
        })
    }

    fn look(orders: u64, ok: u64, refused: u64) -> Services {
        let open = json!({ "state": "open", "forced": "auto", "mode": "on", "calls": 0, "failures": 0, "slow": 0 });
        let bulkhead = json!({ "in_flight": 3, "limit": 100, "queued": 0, "queue": 0 });
        serde_json::from_value(json!({ "services": [
            service("orders", 2, Value::Null, Value::Null, 2.0, json!({ "ok": orders, "cancelled": 7 })),
            service("payments", 1, open, bulkhead, 80.0, json!({ "ok": ok, "breaker_open": refused })),
        ] }))
        .unwrap()
    }

    /// Two seconds apart: orders has 100 more calls, payments 40, of which 30 were refused.
    pub(in crate::cli::top) fn two_looks() -> Sample {
        let start = tokio::time::Instant::now().into_std();
        let first = Sample::new(look(1_000, 10, 0), start, None);
        assert!(first.rows().all(|row| row.rates.is_none()));
        Sample::new(look(1_100, 20, 30), start + Duration::from_secs(2), Some(&first))
    }

    #[test]
    fn rates_are_what_happened_between_two_looks() {
        let sample = two_looks();
        let rates: Vec<_> = sample.rows().map(|row| row.rates.map(|rates| (rates.calls, rates.failed))).collect();
        assert_eq!(rates, [Some((50.0, 0.0)), Some((20.0, 15.0))]);
    }

    #[test]
    fn a_sidecar_that_restarted_has_no_rates_at_first() {
        let before = two_looks();
        let after = Sample::new(look(5, 30, 31), before.at + Duration::from_secs(1), Some(&before));
        let rates: Vec<_> = after.rows().map(|row| row.rates.is_some()).collect();
        assert_eq!(rates, [false, true], "orders' counters fell");
        let at_once = Sample::new(look(9, 30, 31), after.at, Some(&after));
        assert!(at_once.rows().all(|row| row.rates.is_none()), "no time has passed");
    }

    #[test]
    fn trouble_comes_first() {
        let names: Vec<_> = two_looks().worst_first().iter().map(|row| row.name.clone()).collect();
        assert_eq!(names, ["payments", "orders"]);
    }
}
