//! Every metric: its name, its help, and where its series are read.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::{self, MetricType};

use super::{
    DnsResult, LookResult, NO_SERVICE, Process, Side, Way,
    series::{
        BUCKETS, Count, EJECTION_REASONS, ENDPOINT_STATES, FALLBACK_KINDS, PRIORITIES, REFUSALS, RETRY_REASONS, Series,
    },
};
use crate::{
    config,
    model::{Outcome, Reason, SourceKind},
};

/// One metric. What belongs to no service is read from the process, what belongs to one from its series.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    pub(super) of_process: fn(&Process, &mut Rows<'_>),
    pub(super) of_service: fn(&Series, &mut Rows<'_>),
}

/// A family's lines, as they are gathered.
pub(super) struct Rows<'a> {
    pub(super) kind: MetricType,
    /// The `service` label.
    pub(super) service: &'a str,
    /// Whether series at 0 are there, for those that exist from the start.
    pub(super) from_start: bool,
    pub(super) lines: Vec<proto::Metric>,
}

impl Rows<'_> {
    fn line(&mut self, labels: &[(&str, &str)]) -> proto::Metric {
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        let pair = |(name, value): (&str, &str)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(name.into());
            pair.set_value(value.into());
            pair
        };
        proto::Metric::from_label(labels.into_iter().map(pair).collect())
    }

    /// One number, under these labels and no others.
    fn number(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut line = self.line(labels);
        match self.kind {
            MetricType::COUNTER => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                line.set_counter(counter);
            }
            _ => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                line.set_gauge(gauge);
            }
        }
        self.lines.push(line);
    }

    /// A gauge of the service.
    fn gauge(&mut self, labels: &[(&str, &str)], value: f64) {
        self.number(&[&[("service", self.service)], labels].concat(), value);
    }

    /// A counter of the service that is there from the start.
    fn always(&mut self, labels: &[(&str, &str)], count: &Count) {
        if self.from_start {
            self.gauge(labels, count.get() as f64);
        } else {
            self.once(labels, count);
        }
    }

    /// A counter of the service that is there from the first event on.
    fn once(&mut self, labels: &[(&str, &str)], count: &Count) {
        let count = count.get();
        if count > 0 {
            self.gauge(labels, count as f64);
        }
    }

    /// Only the receiving side turns callers away for who they are: no other service has that series.
    fn outcomes(&mut self, counts: &[Count; Outcome::COUNT]) {
        let only_inbound = Outcome::Failed(Reason::NotAllowed).as_str();
        for (word, count) in Outcome::words().into_iter().zip(counts) {
            if word != only_inbound || self.service == config::Inbound::NAME {
                self.always(&[("outcome", word)], count);
            }
        }
    }

    fn histogram(&mut self, series: &Series) {
        let (within, sum) = series.latency();
        let all = within.last().map_or(0, |(_, count)| *count);
        if all == 0 && !self.from_start {
            return;
        }
        let bucket = |(bound, count): (f64, u64)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(within.into_iter().take(BUCKETS.len()).map(bucket).collect());
        histogram.set_sample_count(all);
        histogram.set_sample_sum(sum);
        let mut line = self.line(&[("service", self.service)]);
        line.set_histogram(histogram);
        self.lines.push(line);
    }
}

/// The place of a look at a kind of source among those of a service.
pub(super) fn look_place(source: SourceKind, result: LookResult) -> usize {
    source as usize * LookResult::ALL.len() + result as usize
}

const SOURCES: [SourceKind; 4] = [SourceKind::Static, SourceKind::File, SourceKind::Dns, SourceKind::Srv];

const fn counter(name: &'static str, help: &'static str, of_service: fn(&Series, &mut Rows<'_>)) -> Family {
    Family { name, help, kind: MetricType::COUNTER, of_process: |_, _| {}, of_service }
}

const fn gauge(name: &'static str, help: &'static str, of_service: fn(&Series, &mut Rows<'_>)) -> Family {
    Family { name, help, kind: MetricType::GAUGE, of_process: |_, _| {}, of_service }
}

const fn alone(
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    of_process: fn(&Process, &mut Rows<'_>),
) -> Family {
    Family { name, help, kind, of_process, of_service: |_, _| {} }
}

/// All of them, in the order of their names.
pub(super) static FAMILIES: [Family; 28] = [
    alone(
        "outrigger_access_log_lost_total",
        "Access log lines dropped because the log's reader was too slow.",
        MetricType::COUNTER,
        |process, rows| rows.number(&[], process.access_log_lost.get() as f64),
    ),
    counter("outrigger_attempts_total", "Attempts ended, by outcome.", |series, rows| rows.outcomes(&series.attempts)),
    gauge("outrigger_breaker_state", "The service's breaker: 0 closed, 1 half-open, 2 open.", |series, rows| {
        rows.gauge(&[], series.mirrored().breaker as f64);
    }),
    counter(
        "outrigger_breaker_transitions_total",
        "Changes of the breaker's state, by the state it came to.",
        |series, rows| {
            for (to, count) in ["closed", "half_open", "open"].into_iter().zip(&series.breaker_transitions) {
                rows.always(&[("to", to)], count);
            }
        },
    ),
    alone("outrigger_build_info", "Always 1; the label tells the version.", MetricType::GAUGE, |_, rows| {
        rows.number(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)
    }),
    gauge("outrigger_bulkhead_in_flight", "Calls that are outstanding.", |series, rows| {
        rows.gauge(&[], series.mirrored().in_flight as f64);
    }),
    gauge("outrigger_bulkhead_limit", "Calls that may be outstanding at once.", |series, rows| {
        rows.gauge(&[], series.mirrored().limit as f64);
    }),
    counter("outrigger_bulkhead_shed_total", "Calls that found no place, by how much they matter.", |series, rows| {
        for (priority, count) in PRIORITIES.into_iter().zip(&series.shed) {
            rows.once(&[("priority", priority)], count);
        }
    }),
    Family {
        name: "outrigger_call_duration_seconds",
        help: "From a call's first byte to the last of its answer.",
        kind: MetricType::HISTOGRAM,
        of_process: |_, _| {},
        of_service: |series, rows| rows.histogram(series),
    },
    Family {
        name: "outrigger_calls_total",
        help: "Calls ended, by outcome.",
        kind: MetricType::COUNTER,
        of_process: |process, rows| rows.outcomes(&process.unattributed.0),
        of_service: |series, rows| rows.outcomes(&series.calls),
    },
    gauge(
        "outrigger_certificate_expiry_timestamp_seconds",
        "When the certificate that we show expires, in seconds since 1970.",
        |series, rows| {
            let at = series.certificate_expiry.load(Relaxed);
            if at > 0 {
                rows.gauge(&[], at as f64);
            }
        },
    ),
    gauge("outrigger_coalesce_waiting", "Calls that wait for the answer of an identical one.", |series, rows| {
        rows.gauge(&[], series.mirrored().waiting as f64)
    }),
    counter("outrigger_coalesced_total", "Calls that were given the answer of an identical one.", |series, rows| {
        rows.always(&[], &series.coalesced)
    }),
    Family {
        name: "outrigger_connections",
        help: "Open connections; those of apps belong to no service.",
        kind: MetricType::GAUGE,
        of_process: |process, rows| {
            let labels = [("service", NO_SERVICE), ("side", Side::Downstream.as_str())];
            rows.number(&labels, process.downstream_connections.get() as f64);
        },
        of_service: |series, rows| {
            rows.gauge(&[("side", Side::Upstream.as_str())], series.upstream_connections.get() as f64);
        },
    },
    gauge("outrigger_discovery_age_seconds", "Time since the source last answered.", |series, rows| {
        rows.gauge(&[], series.mirrored().age);
    }),
    counter("outrigger_discovery_updates_total", "Looks at a source, by result.", |series, rows| {
        for source in SOURCES {
            for result in LookResult::ALL {
                let count = &series.looks[look_place(source, result)];
                rows.once(&[("source", source.as_str()), ("result", result.as_str())], count);
            }
        }
    }),
    alone(
        "outrigger_dns_queries_total",
        "Queries to the DNS responder, by result.",
        MetricType::COUNTER,
        |process, rows| {
            for (result, count) in DnsResult::ALL.into_iter().zip(&process.dns.0) {
                rows.number(&[("result", result.as_str())], count.get() as f64);
            }
        },
    ),
    counter("outrigger_ejections_total", "Endpoints taken out of rotation, by reason.", |series, rows| {
        for (reason, count) in EJECTION_REASONS.into_iter().zip(&series.ejections) {
            rows.once(&[("reason", reason)], count);
        }
    }),
    gauge("outrigger_endpoints", "Endpoints, by state.", |series, rows| {
        for (state, count) in ENDPOINT_STATES.into_iter().zip(series.mirrored().endpoints) {
            rows.gauge(&[("state", state)], count as f64);
        }
    }),
    counter(
        "outrigger_failure_if_unjudged_total",
        "Answers in JSON that failure_if did not look into, too long or compressed ones.",
        |series, rows| rows.always(&[], &series.failure_if_unjudged),
    ),
    counter(
        "outrigger_fallback_refused_total",
        "Steps of fallbacks that could not answer: too many calls at once (full), or nothing to say (nothing).",
        |series, rows| {
            for (kind, counts) in FALLBACK_KINDS.into_iter().zip(&series.refused) {
                for (why, count) in REFUSALS.into_iter().zip(counts) {
                    rows.once(&[("kind", kind), ("why", why)], count);
                }
            }
        },
    ),
    counter("outrigger_fallbacks_total", "Calls that a fallback answered, by its kind.", |series, rows| {
        let has = series.fallback_kinds.load(Relaxed);
        for (n, (kind, count)) in FALLBACK_KINDS.into_iter().zip(&series.fallbacks).enumerate() {
            match has & (1 << n) {
                0 => rows.once(&[("kind", kind)], count),
                _ => rows.always(&[("kind", kind)], count),
            }
        }
    }),
    counter(
        "outrigger_graphql_operations_total",
        "Calls by GraphQL operation; a hundred names a service, the others are `other`.",
        |series, rows| {
            for (operation, counts) in &*series.operations() {
                for (outcome, count) in Outcome::words().into_iter().zip(counts).filter(|(_, count)| **count > 0) {
                    rows.gauge(&[("operation", operation), ("outcome", outcome)], *count as f64);
                }
            }
        },
    ),
    counter("outrigger_health_checks_total", "Active checks of endpoints, by result.", |series, rows| {
        for (result, count) in ["ok", "failed"].into_iter().zip(&series.health_checks) {
            rows.once(&[("result", result)], count);
        }
    }),
    alone(
        "outrigger_intercepted_total",
        "Connections that a redirect rule brought, by what became of them.",
        MetricType::COUNTER,
        |process, rows| {
            for (way, count) in Way::ALL.into_iter().zip(&process.intercepted.0) {
                rows.number(&[("way", way.as_str())], count.get() as f64);
            }
        },
    ),
    alone(
        "outrigger_last_good_bytes",
        "Bytes of good answers kept for fallbacks.",
        MetricType::GAUGE,
        |process, rows| rows.number(&[], process.last_good_bytes.get() as f64),
    ),
    counter(
        "outrigger_retries_total",
        "Attempts after a call's first, by what made them necessary.",
        |series, rows| {
            for (reason, count) in RETRY_REASONS.into_iter().zip(&series.retries) {
                match reason {
                    "connect" | "refused" | "reused_connection" => rows.always(&[("reason", reason)], count),
                    _ => rows.once(&[("reason", reason)], count),
                }
            }
        },
    ),
    counter(
        "outrigger_retry_budget_exhausted_total",
        "Attempts that were not made because the budget bore no more.",
        |series, rows| rows.always(&[], &series.retry_budget_exhausted),
    ),
];
