//! Every metric, in one place: its name, help, labels and the handles that count it.
//!
//! Handles are made once a service and kept as fields, so that counting on the path of a call is an
//! atomic addition and never a look-up by label. Gauges that mirror state (breaker, bulkhead, endpoints)
//! are not kept up to date call by call: whoever renders sets them first, from the state itself.
//!
//! To add a metric: a field in `Families` with its name and help, a handle in [`ServiceMetrics`], a row
//! in `docs/metrics.md`.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use crate::{
    config,
    model::{Outcome, Reason, SourceKind},
};

/// Upper bounds of the latency buckets, in seconds: fine where a local call lives, coarse to a minute.
const BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Every metric of the process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    registry: Registry,
    calls: IntCounterVec,
    call_duration: HistogramVec,
    attempts: IntCounterVec,
    breaker_state: IntGaugeVec,
    breaker_transitions: IntCounterVec,
    bulkhead_in_flight: IntGaugeVec,
    bulkhead_limit: IntGaugeVec,
    retries: IntCounterVec,
    retry_budget_exhausted: IntCounterVec,
    ejections: IntCounterVec,
    fallbacks: IntCounterVec,
    fallback_refused: IntCounterVec,
    last_good_bytes: IntGauge,
    health_checks: IntCounterVec,
    shed: IntCounterVec,
    coalesced: IntCounterVec,
    coalesce_waiting: IntGaugeVec,
    failure_if_unjudged: IntCounterVec,
    graphql_operations: IntCounterVec,
    /// The names of GraphQL operations that have a series of their own, by service: whatever is reloaded.
    operations: Mutex<HashMap<Box<str>, Operations>>,
    endpoints: IntGaugeVec,
    discovery_updates: IntCounterVec,
    discovery_age: GaugeVec,
    connections: IntGaugeVec,
    access_log_lost: IntCounter,
    certificate_expiry: GaugeVec,
    dns_queries: IntCounterVec,
}

/// The `service` label of what no service can be blamed for: unknown names, requests that are not HTTP.
pub const NO_SERVICE: &str = "";

/// One series an outcome. Only the receiving side turns callers away for who they are: no other service has
/// that series.
fn series_by_outcome(family: &IntCounterVec, service: &str) -> [IntCounter; Outcome::COUNT] {
    let only_inbound = Outcome::Failed(Reason::NotAllowed).as_str();
    Outcome::words().map(|word| match word == only_inbound && service != config::Inbound::NAME {
        true => IntCounter::new("unused", "Registered nowhere.").expect("a plain name is valid"),
        false => family.with_label_values(&[service, word]),
    })
}

/// How a look at a source ended; the `result` label of `outrigger_discovery_updates_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookResult {
    /// The endpoints are other ones than before.
    Changed,
    /// The endpoints are the same.
    Unchanged,
    /// The source says that there are none.
    Empty,
    /// The source could not be asked, or its answer not be read; the last good set stays.
    Failed,
}

impl LookResult {
    /// The word for this result.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Empty => "empty",
            Self::Failed => "failed",
        }
    }
}

/// How a query to the DNS responder ended; the `result` label of `outrigger_dns_queries_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsResult {
    /// One of our names, with records.
    Own,
    /// One of our names, which has no such record.
    NoData,
    /// A name of ours to give, which nobody bears.
    NoName,
    /// Another name, as a forwarder has answered just now.
    Forwarded,
    /// Another name, as a forwarder has answered before.
    Cached,
    /// Another name, of which this client may not ask, or nobody is asked; or a query of ours that came back.
    Refused,
    /// Nobody knows, or too many want to know at once.
    Failed,
    /// What is no query, or none that is understood.
    Malformed,
    /// More than a network of other hosts may ask.
    Limited,
}

impl DnsResult {
    /// Each of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Own,
        Self::NoData,
        Self::NoName,
        Self::Forwarded,
        Self::Cached,
        Self::Refused,
        Self::Failed,
        Self::Malformed,
        Self::Limited,
    ];

    /// The word for this result.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::NoData => "nodata",
            Self::NoName => "nxdomain",
            Self::Forwarded => "forwarded",
            Self::Cached => "cached",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
            Self::Limited => "limited",
        }
    }
}

/// The counters of the DNS responder.
#[derive(Debug, Clone)]
pub struct DnsMetrics([IntCounter; DnsResult::ALL.len()]);

impl DnsMetrics {
    /// Counts a query that ended.
    pub fn query_ended(&self, result: DnsResult) {
        self.0[result as usize].inc();
    }
}

/// Which side of the sidecar a connection is on; the `side` label of `outrigger_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From an app to us.
    Downstream,
    /// From us to an endpoint.
    Upstream,
}

impl Side {
    /// The word for this side.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
        }
    }
}

/// How many GraphQL operations of a service have series of their own.
const OPERATIONS: usize = 100;

/// Names of GraphQL operations.
type Operations = Arc<Mutex<HashSet<Box<str>>>>;

impl Families {
    /// The names that have series of a service.
    fn operations_of(&self, name: &str) -> Operations {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        operations.entry(name.into()).or_default().clone()
    }

    /// Drops the series of a service's GraphQL operations, whatever they are called.
    fn forget_operations(&self, name: &str) {
        use prometheus::core::Collector as _;
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        for family in self.graphql_operations.collect() {
            for metric in family.get_metric() {
                let of =
                    |label: &str| metric.get_label().iter().find(|pair| pair.name() == label).map(|pair| pair.value());
                if let (Some(service), Some(operation), Some(outcome)) = (of("service"), of("operation"), of("outcome"))
                    && service == name
                {
                    let _ = self.graphql_operations.remove_label_values(&[name, operation, outcome]);
                }
            }
        }
    }
}

/// The kinds of fallback; the `kind` label of `outrigger_fallbacks_total`.
const FALLBACK_KINDS: [&str; 3] = ["last_good", "service", "respond"];

/// The states of an endpoint; the `state` label of `outrigger_endpoints`.
pub const ENDPOINT_STATES: [&str; 4] = ["ready", "draining", "ejected", "unhealthy"];

/// Why endpoints are taken out of rotation; the `reason` label of `outrigger_ejections_total`.
const EJECTION_REASONS: [&str; 4] = ["consecutive", "error_rate", "probe", "health_check"];

/// What makes a further attempt necessary; the `reason` label of `outrigger_retries_total`.
pub const RETRY_REASONS: [&str; 8] =
    ["connect", "reset", "timeout", "status", "grpc", "hedge", "reused_connection", "refused"];

impl Metrics {
    /// Registers every metric in a registry of its own.
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Families {
            calls: counters(&registry, "outrigger_calls_total", "Calls ended, by outcome.", &["service", "outcome"]),
            call_duration: histograms(
                &registry,
                "outrigger_call_duration_seconds",
                "From a call's first byte to the last of its answer.",
                &["service"],
            ),
            attempts: counters(
                &registry,
                "outrigger_attempts_total",
                "Attempts ended, by outcome.",
                &["service", "outcome"],
            ),
            breaker_state: gauges(
                &registry,
                "outrigger_breaker_state",
                "The service's breaker: 0 closed, 1 half-open, 2 open.",
                &["service"],
            ),
            breaker_transitions: counters(
                &registry,
                "outrigger_breaker_transitions_total",
                "Changes of the breaker's state, by the state it came to.",
                &["service", "to"],
            ),
            bulkhead_in_flight: gauges(
                &registry,
                "outrigger_bulkhead_in_flight",
                "Calls that are outstanding.",
                &["service"],
            ),
            bulkhead_limit: gauges(
                &registry,
                "outrigger_bulkhead_limit",
                "Calls that may be outstanding at once.",
                &["service"],
            ),
            retries: counters(
                &registry,
                "outrigger_retries_total",
                "Attempts after a call's first, by what made them necessary.",
                &["service", "reason"],
            ),
            retry_budget_exhausted: counters(
                &registry,
                "outrigger_retry_budget_exhausted_total",
                "Attempts that were not made because the budget bore no more.",
                &["service"],
            ),
            ejections: counters(
                &registry,
                "outrigger_ejections_total",
                "Endpoints taken out of rotation, by reason.",
                &["service", "reason"],
            ),
            fallbacks: counters(
                &registry,
                "outrigger_fallbacks_total",
                "Calls that a fallback answered, by its kind.",
                &["service", "kind"],
            ),
            fallback_refused: counters(
                &registry,
                "outrigger_fallback_refused_total",
                "Steps of fallbacks that could not answer: too many calls at once (full), or nothing to say (nothing).",
                &["service", "kind", "why"],
            ),
            last_good_bytes: register(
                &registry,
                IntGauge::new("outrigger_last_good_bytes", "Bytes of good answers kept for fallbacks."),
            ),
            health_checks: counters(
                &registry,
                "outrigger_health_checks_total",
                "Active checks of endpoints, by result.",
                &["service", "result"],
            ),
            shed: counters(
                &registry,
                "outrigger_bulkhead_shed_total",
                "Calls that found no place, by how much they matter.",
                &["service", "priority"],
            ),
            coalesced: counters(
                &registry,
                "outrigger_coalesced_total",
                "Calls that were given the answer of an identical one.",
                &["service"],
            ),
            coalesce_waiting: gauges(
                &registry,
                "outrigger_coalesce_waiting",
                "Calls that wait for the answer of an identical one.",
                &["service"],
            ),
            failure_if_unjudged: counters(
                &registry,
                "outrigger_failure_if_unjudged_total",
                "Answers in JSON that failure_if did not look into, too long or compressed ones.",
                &["service"],
            ),
            graphql_operations: counters(
                &registry,
                "outrigger_graphql_operations_total",
                "Calls by GraphQL operation; a hundred names a service, the others are `other`.",
                &["service", "operation", "outcome"],
            ),
            endpoints: gauges(&registry, "outrigger_endpoints", "Endpoints, by state.", &["service", "state"]),
            discovery_updates: counters(
                &registry,
                "outrigger_discovery_updates_total",
                "Looks at a source, by result.",
                &["service", "source", "result"],
            ),
            discovery_age: register(
                &registry,
                GaugeVec::new(
                    Opts::new("outrigger_discovery_age_seconds", "Time since the source last answered."),
                    &["service"],
                ),
            ),
            connections: gauges(
                &registry,
                "outrigger_connections",
                "Open connections; those of apps belong to no service.",
                &["service", "side"],
            ),
            access_log_lost: register(
                &registry,
                IntCounter::new(
                    "outrigger_access_log_lost_total",
                    "Access log lines dropped because the log's reader was too slow.",
                ),
            ),
            certificate_expiry: register(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "outrigger_certificate_expiry_timestamp_seconds",
                        "When the certificate that we show expires, in seconds since 1970.",
                    ),
                    &["service"],
                ),
            ),
            dns_queries: counters(
                &registry,
                "outrigger_dns_queries_total",
                "Queries to the DNS responder, by result.",
                &["result"],
            ),
            operations: Mutex::default(),
            registry,
        };
        let info =
            gauges(&families.registry, "outrigger_build_info", "Always 1; the label tells the version.", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self(Arc::new(families))
    }

    /// The handles of one service; the same ones each time for the same name.
    pub fn service(&self, name: &str) -> ServiceMetrics {
        let f = &self.0;
        let by_outcome = |family: &IntCounterVec| series_by_outcome(family, name);
        ServiceMetrics {
            calls: by_outcome(&f.calls),
            call_duration: f.call_duration.with_label_values(&[name]),
            attempts: by_outcome(&f.attempts),
            breaker_state: f.breaker_state.with_label_values(&[name]),
            breaker_transitions: ["closed", "half_open", "open"]
                .map(|to| f.breaker_transitions.with_label_values(&[name, to])),
            bulkhead_in_flight: f.bulkhead_in_flight.with_label_values(&[name]),
            bulkhead_limit: f.bulkhead_limit.with_label_values(&[name]),
            retries_refused: f.retries.with_label_values(&[name, "refused"]),
            retries_reused_connection: f.retries.with_label_values(&[name, "reused_connection"]),
            retries: f.retries.clone(),
            name: name.into(),
            retry_budget_exhausted: f.retry_budget_exhausted.with_label_values(&[name]),
            retries_connect: f.retries.with_label_values(&[name, "connect"]),
            ejections: f.ejections.clone(),
            shed: f.shed.clone(),
            coalesced: f.coalesced.with_label_values(&[name]),
            coalesce_waiting: f.coalesce_waiting.with_label_values(&[name]),
            failure_if_unjudged: f.failure_if_unjudged.with_label_values(&[name]),
            graphql_operations: f.graphql_operations.clone(),
            operations: f.operations_of(name),
            fallbacks: f.fallbacks.clone(),
            refused: f.fallback_refused.clone(),
            endpoints: ENDPOINT_STATES.map(|state| f.endpoints.with_label_values(&[name, state])),
            discovery_age: f.discovery_age.with_label_values(&[name]),
            upstream_connections: f.connections.with_label_values(&[name, Side::Upstream.as_str()]),
        }
    }

    /// Counts one look at a service's source.
    pub fn discovery_look(&self, service: &str, source: SourceKind, result: LookResult) {
        self.0.discovery_updates.with_label_values(&[service, source.as_str(), result.as_str()]).inc();
    }

    /// The handles of the DNS responder.
    pub fn dns(&self) -> DnsMetrics {
        DnsMetrics(DnsResult::ALL.map(|result| self.0.dns_queries.with_label_values(&[result.as_str()])))
    }

    /// Says when the certificate that a service shows expires. Services without one have no such series.
    pub fn certificate_expires(&self, service: &str, at: SystemTime) {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.certificate_expiry.with_label_values(&[service]).set(since_epoch.as_secs_f64());
    }

    /// Calls that no service can be blamed for, by outcome.
    pub fn unattributed_calls(&self) -> [IntCounter; Outcome::COUNT] {
        series_by_outcome(&self.0.calls, NO_SERVICE)
    }

    /// Open connections of apps.
    pub fn downstream_connections(&self) -> IntGauge {
        self.0.connections.with_label_values(&[NO_SERVICE, Side::Downstream.as_str()])
    }

    /// Counts an active check of an endpoint.
    pub fn health_checked(&self, service: &str, good: bool) {
        self.0.health_checks.with_label_values(&[service, if good { "ok" } else { "failed" }]).inc();
    }

    /// Bytes of good answers that are kept.
    pub fn last_good_bytes(&self) -> IntGauge {
        self.0.last_good_bytes.clone()
    }

    /// Access log lines that were dropped.
    pub fn access_log_lost(&self) -> IntCounter {
        self.0.access_log_lost.clone()
    }

    /// Drops every series of a service that is gone.
    pub fn forget(&self, name: &str) {
        let f = &self.0;
        for word in Outcome::words() {
            // A series that is not there needs no dropping.
            let _ = f.calls.remove_label_values(&[name, word]);
            let _ = f.attempts.remove_label_values(&[name, word]);
        }
        let _ = f.call_duration.remove_label_values(&[name]);
        for family in [&f.breaker_state, &f.bulkhead_in_flight, &f.bulkhead_limit] {
            let _ = family.remove_label_values(&[name]);
        }
        for to in ["closed", "half_open", "open"] {
            let _ = f.breaker_transitions.remove_label_values(&[name, to]);
        }
        let _ = f.coalesced.remove_label_values(&[name]);
        let _ = f.coalesce_waiting.remove_label_values(&[name]);
        let _ = f.failure_if_unjudged.remove_label_values(&[name]);
        f.forget_operations(name);
        for result in ["ok", "failed"] {
            let _ = f.health_checks.remove_label_values(&[name, result]);
        }
        for priority in ["critical", "high", "normal", "low"] {
            let _ = f.shed.remove_label_values(&[name, priority]);
        }
        let _ = f.retry_budget_exhausted.remove_label_values(&[name]);
        for reason in RETRY_REASONS {
            let _ = f.retries.remove_label_values(&[name, reason]);
        }
        for kind in FALLBACK_KINDS {
            let _ = f.fallbacks.remove_label_values(&[name, kind]);
            for why in ["full", "nothing"] {
                let _ = f.fallback_refused.remove_label_values(&[name, kind, why]);
            }
        }
        for reason in EJECTION_REASONS {
            let _ = f.ejections.remove_label_values(&[name, reason]);
        }
        for state in ENDPOINT_STATES {
            let _ = f.endpoints.remove_label_values(&[name, state]);
        }
        for kind in [SourceKind::Static, SourceKind::File, SourceKind::Dns, SourceKind::Srv] {
            for result in [LookResult::Changed, LookResult::Unchanged, LookResult::Empty, LookResult::Failed] {
                let _ = f.discovery_updates.remove_label_values(&[name, kind.as_str(), result.as_str()]);
            }
        }
        let _ = f.discovery_age.remove_label_values(&[name]);
        let _ = f.certificate_expiry.remove_label_values(&[name]);
        let _ = f.connections.remove_label_values(&[name, Side::Upstream.as_str()]);
    }

    /// Everything, in Prometheus' text format 0.0.4.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new()
            .encode(&self.0.registry.gather(), &mut text)
            .expect("writing to memory cannot fail, and every family has a name");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// One service's handles.
#[derive(Clone, Debug)]
pub struct ServiceMetrics {
    /// Calls ended, by [`Outcome::index`].
    pub calls: [IntCounter; Outcome::COUNT],
    /// How long calls took.
    pub call_duration: Histogram,
    /// Attempts ended, by [`Outcome::index`].
    pub attempts: [IntCounter; Outcome::COUNT],
    /// 0 closed, 1 half-open, 2 open; set when rendered.
    pub breaker_state: IntGauge,
    /// Transitions to closed, half-open and open.
    pub breaker_transitions: [IntCounter; 3],
    /// Set when rendered.
    pub bulkhead_in_flight: IntGauge,
    /// Set when rendered; 0 when the bulkhead is off.
    pub bulkhead_limit: IntGauge,
    /// Requests repeated because the endpoint said that it had not looked at them.
    pub retries_refused: IntCounter,
    /// Attempts repeated because a reused connection had died.
    pub retries_reused_connection: IntCounter,
    /// Attempts made because the one before could not connect.
    pub retries_connect: IntCounter,
    retries: IntCounterVec,
    name: Box<str>,
    /// Attempts that the budget did not bear.
    pub retry_budget_exhausted: IntCounter,
    ejections: IntCounterVec,
    shed: IntCounterVec,
    /// Calls that were given another's answer.
    pub coalesced: IntCounter,
    /// Set when rendered.
    pub coalesce_waiting: IntGauge,
    /// Answers that `failure_if` did not look into.
    pub failure_if_unjudged: IntCounter,
    graphql_operations: IntCounterVec,
    /// The names of GraphQL operations that have a series of their own.
    operations: Operations,
    fallbacks: IntCounterVec,
    refused: IntCounterVec,
    /// Endpoints by [`ENDPOINT_STATES`]; set when rendered.
    pub endpoints: [IntGauge; 4],
    /// Set when rendered.
    pub discovery_age: Gauge,
    /// Open connections to the service's endpoints.
    pub upstream_connections: IntGauge,
}

impl ServiceMetrics {
    /// Counts a call that ended.
    pub fn call_ended(&self, outcome: Outcome, took: Duration) {
        self.calls[outcome.index()].inc();
        self.call_duration.observe(took.as_secs_f64());
    }

    /// Counts an attempt after a call's first, by what made it necessary: one of [`RETRY_REASONS`].
    pub fn retried(&self, reason: &'static str) {
        self.retries.with_label_values(&[&*self.name, reason]).inc();
    }

    /// How many calls took no longer than each bound, in seconds (all of them last, without a bound), and how long they
    /// took together.
    pub fn latency(&self) -> (Vec<(f64, u64)>, f64) {
        use prometheus::core::Metric as _;
        let metric = self.call_duration.metric();
        let histogram = metric.get_histogram();
        let mut within: Vec<_> =
            histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
        within.push((f64::INFINITY, histogram.get_sample_count()));
        (within, histogram.get_sample_sum())
    }

    /// Calls that a fallback answered; steps that were full, and steps that had nothing.
    pub fn fallback_counts(&self) -> [u64; 3] {
        let sum = |of: &dyn Fn(&'static str) -> u64| FALLBACK_KINDS.into_iter().map(of).sum();
        let refused = |kind, why| self.refused.with_label_values(&[&*self.name, kind, why]).get();
        [
            sum(&|kind| self.fallbacks.with_label_values(&[&*self.name, kind]).get()),
            sum(&|kind| refused(kind, "full")),
            sum(&|kind| refused(kind, "nothing")),
        ]
    }

    /// Counts a call that found no place in the bulkhead.
    pub fn shed(&self, priority: &'static str) {
        self.shed.with_label_values(&[&*self.name, priority]).inc();
    }

    /// Counts a call of a GraphQL operation that ended.
    pub fn graphql_ended(&self, operation: &str, outcome: Outcome) {
        let mut known = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let has_series = known.contains(operation) || (known.len() < OPERATIONS && known.insert(operation.into()));
        let operation = if has_series { operation } else { "other" };
        self.graphql_operations.with_label_values(&[&*self.name, operation, outcome.as_str()]).inc();
    }

    /// Counts a call that a fallback answered.
    pub fn fell_back(&self, kind: &'static str) {
        self.fallbacks.with_label_values(&[&*self.name, kind]).inc();
    }

    /// Makes the series of a kind of fallback that the service has, at 0.
    pub fn may_fall_back(&self, kind: &'static str) {
        self.fallbacks.with_label_values(&[&*self.name, kind]);
    }

    /// Counts a step of a fallback that could not answer.
    pub fn fallback_refused(&self, kind: &'static str, why: &'static str) {
        self.refused.with_label_values(&[&*self.name, kind, why]).inc();
    }

    /// Counts an endpoint that was taken out of rotation.
    pub fn ejected(&self, reason: &'static str) {
        self.ejections.with_label_values(&[&*self.name, reason]).inc();
    }

    /// Counts an attempt that ended.
    pub fn attempt_ended(&self, outcome: Outcome) {
        self.attempts[outcome.index()].inc();
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    register(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), labels))
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("the names in this file are valid");
    registry.register(Box::new(collector.clone())).expect("the names in this file are unique");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reason;

    #[test]
    fn a_service_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new();
        let orders = metrics.service("orders");
        orders.call_ended(Outcome::Failed(Reason::BreakerOpen), Duration::from_millis(3));
        orders.graphql_ended("Buy", Outcome::Ok);
        metrics.discovery_look("orders", SourceKind::Dns, LookResult::Changed);
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains(r#"outrigger_calls_total{outcome="breaker_open",service="orders"} 1"#), "{text}");
        drop(orders);
        metrics.forget("orders");
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(!text.contains("orders"), "{text}");
    }

    #[test]
    fn the_operations_of_a_service_are_a_hundred_over_all_reloads() {
        let metrics = Metrics::new();
        for reload in 0..3 {
            let orders = metrics.service("orders");
            (0..80).for_each(|n| orders.graphql_ended(&format!("Q{reload}x{n}"), Outcome::Ok));
        }
        let text = String::from_utf8(metrics.render()).unwrap();
        let series = text.lines().filter(|line| line.starts_with("outrigger_graphql_operations_total{"));
        assert_eq!(series.count(), OPERATIONS + 1, "and `other`");
        assert!(text.contains(r#"{operation="other",outcome="ok",service="orders"} 140"#), "{text}");
    }
}
