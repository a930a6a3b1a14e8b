//! Taking a service's picture: live state into plain data, for views and gauges.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use super::{
    Live, Service,
    view::{
        AdaptiveView, BreakerView, BulkheadView, EndpointView, EntryView, PolicyValueView, ServiceView, SourceView,
        VipView,
    },
};
use crate::{
    config::{self, Protocol, Provenance, Source},
    model::Outcome,
    policy::{breaker::Mode, ejection::State},
    telemetry::{ENDPOINT_STATES, Mirror},
};

impl Service {
    /// This service, right now; `is_inbound` says that it is our own app.
    pub(super) fn picture(
        &self,
        shared: SocketAddr,
        vips: Option<&config::Vip>,
        domain: &str,
        is_inbound: bool,
        now: Instant,
    ) -> ServiceView {
        let config = self.config();
        // The shared port leads by name, which bytes do not carry and callers of our own app do not use there.
        let names = std::iter::once(&config.name).chain(&config.aliases);
        let names = names.filter(|_| !is_inbound && config.policy.protocol != Protocol::Tcp);
        let hosts = names.flat_map(|name| [name.to_string(), format!("{name}.{domain}")]).collect();
        ServiceView {
            name: config.name.to_string(),
            made: false,
            entry: EntryView { hosts, shared, listen: config.listen, vip: self.vip_view(vips, domain) },
            source: self.source_view(now),
            endpoints: self.endpoint_views(now),
            policy: policy_view(config),
            breaker: self.breaker_view(now),
            bulkhead: self.bulkhead_view(),
            calls: self.call_counts(),
        }
    }

    fn vip_view(&self, vips: Option<&config::Vip>, domain: &str) -> Option<VipView> {
        let (address, vips) = self.vip().zip(vips)?;
        let ports: BTreeSet<u16> = vips.ports.iter().chain(&self.config().vip.ports).copied().collect();
        Some(VipView { address, ports: ports.into_iter().collect(), names: self.config().names(domain) })
    }

    /// Sets the gauges that mirror state.
    pub(super) fn update_gauges(&self, now: Instant) {
        let mut state = Mirror::default();
        if let Some(breaker) = self.breaker() {
            state.breaker = breaker.view(now).state.as_gauge();
        }
        if let Some(bulkhead) = self.bulkhead() {
            let view = bulkhead.view();
            (state.in_flight, state.limit) = (i64::from(view.in_flight), i64::from(view.limit));
        }
        let waiting = self.flights().map_or(0, |flights| flights.waiting());
        state.waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        for live in self.endpoints().live() {
            state.endpoints[state_of(live)] += 1;
        }
        self.settle_ejections(now);
        if let Some(last) = self.source_status().last_answer {
            state.age = now.saturating_duration_since(last).as_secs_f64();
        }
        self.metrics().mirror(&state);
    }

    fn source_view(&self, now: Instant) -> SourceView {
        let status = self.source_status();
        let source = &self.config().source;
        SourceView {
            kind: source.kind().as_str().into(),
            detail: match source {
                Source::Static(_) => "config".into(),
                Source::File(path) => path.display().to_string(),
                Source::Dns { host, port } => format!("{host}:{port}"),
                Source::Srv { name } => name.to_string(),
            },
            revision: self.endpoints().set().revision(),
            age_ms: status.last_answer.map(|last| millis(now.saturating_duration_since(last))),
            problem: status.problem.map(|problem| problem.to_string()),
            dropped_in_ms: status.drop_at.map(|at| millis(at.saturating_duration_since(now))),
        }
    }

    fn endpoint_views(&self, now: Instant) -> Vec<EndpointView> {
        let view = |live: &std::sync::Arc<Live>| {
            let endpoint = live.endpoint();
            EndpointView {
                addr: endpoint.addr,
                weight: endpoint.weight,
                priority: endpoint.priority,
                origin: format!("{} {}", endpoint.origin.kind.as_str(), endpoint.origin.detail),
                state: ENDPOINT_STATES[state_of(live)].into(),
                why: why_out(live),
                out_ms: out_since(live).map(|since| millis(now.saturating_duration_since(since))),
                probe_in_ms: probe_at(live).map(|until| millis(until.saturating_duration_since(now))),
                in_flight: live.outstanding(),
                latency_ms: live.latency(now).as_secs_f64() * 1e3,
            }
        };
        self.endpoints().live().iter().map(view).collect()
    }

    fn breaker_view(&self, now: Instant) -> Option<BreakerView> {
        let (breaker, settings) = self.breaker().zip(self.config().policy.breaker.as_ref())?;
        let view = breaker.view(now);
        Some(BreakerView {
            state: view.state.as_str().into(),
            forced: view.forced.as_str().into(),
            mode: match settings.mode {
                Mode::On => "on",
                Mode::Observe => "observe",
            }
            .into(),
            calls: view.calls,
            failures: view.failures,
            slow: view.slow,
            probes_in_ms: view.probes_in.map(millis),
        })
    }

    fn bulkhead_view(&self) -> Option<BulkheadView> {
        let bulkhead = self.bulkhead()?;
        let view = bulkhead.view();
        let adaptive = bulkhead.adaptive().map(|adaptive| AdaptiveView {
            floor: adaptive.floor,
            ceiling: adaptive.ceiling,
            latency_ms: adaptive.short.as_secs_f64() * 1e3,
            long_term_ms: adaptive.long.as_secs_f64() * 1e3,
            gradient: adaptive.gradient,
        });
        Some(BulkheadView {
            in_flight: view.in_flight,
            limit: view.limit,
            queued: view.queued,
            queue: view.queue,
            adaptive,
        })
    }

    fn call_counts(&self) -> BTreeMap<String, u64> {
        let counts = Outcome::words().into_iter().zip(&self.metrics().calls);
        counts.filter(|(_, n)| n.get() > 0).map(|(word, n)| (word.to_string(), n.get())).collect()
    }
}

/// Where an endpoint stands, as a place in [`ENDPOINT_STATES`].
fn state_of(live: &Live) -> usize {
    let (state, is_down) = live.record().state();
    match state {
        _ if live.is_draining() => 1,
        State::In { .. } => 0,
        _ if is_down => 3,
        State::Out { .. } | State::Probing { .. } => 2,
    }
}

fn why_out(live: &Live) -> Option<String> {
    match live.record().state().0 {
        State::In { .. } => None,
        State::Out { why, .. } | State::Probing { why, .. } => Some(why.as_str().to_owned()),
    }
}

fn out_since(live: &Live) -> Option<Instant> {
    match live.record().state().0 {
        State::In { .. } => None,
        State::Out { since, .. } | State::Probing { since, .. } => Some(since),
    }
}

fn probe_at(live: &Live) -> Option<Instant> {
    match live.record().state() {
        (State::Out { until, .. }, false) => Some(until),
        _ => None,
    }
}

fn policy_view(service: &config::Service) -> BTreeMap<String, PolicyValueView> {
    let from = |provenance| match provenance {
        Provenance::Default => "default".into(),
        Provenance::Defaults(line) => format!("defaults (line {line})"),
        Provenance::Service(line) => format!("service (line {line})"),
    };
    config::describe(service)
        .into_iter()
        .map(|(key, value, provenance)| (key.to_string(), PolicyValueView { value, from: from(provenance) }))
        .collect()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
