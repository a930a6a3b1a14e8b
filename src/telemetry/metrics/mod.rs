//! Every metric of the process.
//!
//! Counting is an atomic addition to a field (`series`), names and labels come in when somebody reads (`families`),
//! and what is read is made a page at a time (`pages`). Gauges that mirror state (breaker, bulkhead, endpoints) are
//! not kept up to date call by call: whoever renders has them set first, from the state itself.
//!
//! Up to a hundred services have all of their series from the start, so that `rate` sees the first failure. With more
//! of them the series that count are left out for a service until its first call, all at once: most of thousands of
//! services are never called by one host, and nobody wants to store their zeros.
//!
//! To add a metric: a field of `Series`, a row in `FAMILIES`, and one in `docs/metrics.md`.

mod families;
mod pages;
mod series;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::{IntCounter, IntGauge};

use self::{families::look_place, series::lock};
pub use self::{
    pages::Pages,
    series::{Count, ENDPOINT_STATES, Level, Mirror, RETRY_REASONS, Series, ServiceMetrics},
};
use crate::model::{Outcome, SourceKind};

/// Every metric of the process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Counted>);

struct Counted {
    process: Process,
    services: Mutex<Services>,
}

/// Whose series there are.
#[derive(Default)]
struct Services {
    /// By the name of the service; the label may be another one.
    by_name: BTreeMap<Box<str>, ServiceMetrics>,
    /// Labels that several services count under.
    shared: BTreeMap<Box<str>, ServiceMetrics>,
}

/// What belongs to no service.
struct Process {
    unattributed: Arc<Unattributed>,
    intercepted: Arc<Intercepted>,
    dns: Arc<DnsMetrics>,
    downstream_connections: IntGauge,
    access_log_lost: IntCounter,
    last_good_bytes: IntGauge,
}

/// Calls that no service can be blamed for, by outcome.
#[derive(Debug, Default)]
pub struct Unattributed([Count; Outcome::COUNT]);

impl Unattributed {
    /// Counts one that ended.
    pub fn ended(&self, outcome: Outcome) {
        self.0[outcome.index()].inc();
    }
}

/// What became of an intercepted connection; the `way` label of `outrigger_intercepted_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The Host of its first request named a service.
    Host,
    /// The address that it was meant for is a service's.
    Address,
    /// It is nobody's here, and went where it was meant to go.
    Passed,
}

impl Way {
    const ALL: [Self; 3] = [Self::Host, Self::Address, Self::Passed];

    /// The word for this way.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Address => "address",
            Self::Passed => "passed",
        }
    }
}

/// Connections that a redirect rule brought, by [`Way`].
#[derive(Debug, Default)]
pub struct Intercepted([Count; Way::ALL.len()]);

impl Intercepted {
    /// Counts one.
    pub fn came(&self, way: Way) {
        self.0[way as usize].inc();
    }
}

/// The `service` label of what no service can be blamed for: unknown names, requests that are not HTTP.
pub const NO_SERVICE: &str = "";

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
    /// Every result.
    pub const ALL: [Self; 4] = [Self::Changed, Self::Unchanged, Self::Empty, Self::Failed];

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

/// Queries to the DNS responder, by [`DnsResult`].
#[derive(Debug, Default)]
pub struct DnsMetrics([Count; DnsResult::ALL.len()]);

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

impl Metrics {
    /// Nothing has been counted yet.
    pub fn new() -> Self {
        let counter = || IntCounter::new("process", "Read by `families`.").expect("a plain name is valid");
        let gauge = || IntGauge::new("process", "Read by `families`.").expect("a plain name is valid");
        let process = Process {
            unattributed: Arc::default(),
            intercepted: Arc::default(),
            dns: Arc::default(),
            downstream_connections: gauge(),
            access_log_lost: counter(),
            last_good_bytes: gauge(),
        };
        Self(Arc::new(Counted { process, services: Mutex::default() }))
    }

    /// The handles of one service; the same ones each time for the same name.
    pub fn service(&self, name: &str) -> ServiceMetrics {
        let by_name = &mut lock(&self.0.services).by_name;
        match by_name.get(name) {
            Some(own) if *own.label == *name => own.clone(),
            _ => {
                let own = ServiceMetrics(Arc::new(Series::of(name)));
                by_name.insert(name.into(), own.clone());
                own
            }
        }
    }

    /// The handles of a service that counts under a label which it shares with others. The series of the label stay when
    /// such a service is forgotten, until the label itself is.
    pub fn service_as(&self, name: &str, label: &str) -> ServiceMetrics {
        let Services { by_name, shared } = &mut *lock(&self.0.services);
        let shared = shared.entry(label.into()).or_insert_with(|| ServiceMetrics(Arc::new(Series::of(label))));
        by_name.insert(name.into(), shared.clone());
        shared.clone()
    }

    /// The handles that a service of this name has, whatever its label; its own where it has none yet.
    fn known(&self, name: &str) -> ServiceMetrics {
        let known = lock(&self.0.services).by_name.get(name).cloned();
        known.unwrap_or_else(|| self.service(name))
    }

    /// Drops every series of a service that is gone. What it counted under a label of others stays; the name of such a
    /// label drops that.
    pub fn forget(&self, name: &str) {
        let Services { by_name, shared } = &mut *lock(&self.0.services);
        by_name.remove(name);
        shared.remove(name);
    }

    /// The handles of every label, in the order of the labels, each once.
    fn by_label(&self) -> Vec<ServiceMetrics> {
        let services = lock(&self.0.services);
        let own = services.by_name.iter().filter(|(name, own)| *own.label == ***name).map(|(_, own)| own);
        let mut all: Vec<_> = own.chain(services.shared.values()).cloned().collect();
        all.sort_by(|one, other| one.label.cmp(&other.label));
        all.dedup_by(|one, other| Arc::ptr_eq(&one.0, &other.0));
        all
    }

    /// Counts one look at a service's source.
    pub fn discovery_look(&self, service: &str, source: SourceKind, result: LookResult) {
        self.known(service).looks[look_place(source, result)].inc();
    }

    /// Says when the certificate that a service shows expires. Services without one have no such series.
    pub fn certificate_expires(&self, service: &str, at: SystemTime) {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        // One of 1970 is as much expired as one of a second later.
        self.known(service).certificate_expiry.store(since_epoch.as_secs().max(1), Ordering::Relaxed);
    }

    /// Calls that no service can be blamed for, by outcome.
    pub fn unattributed_calls(&self) -> Arc<Unattributed> {
        self.0.process.unattributed.clone()
    }

    /// Intercepted connections, by [`Way`].
    pub fn intercepted(&self) -> Arc<Intercepted> {
        self.0.process.intercepted.clone()
    }

    /// Queries to the DNS responder, by [`DnsResult`].
    pub fn dns(&self) -> Arc<DnsMetrics> {
        self.0.process.dns.clone()
    }

    /// Open connections of apps.
    pub fn downstream_connections(&self) -> IntGauge {
        self.0.process.downstream_connections.clone()
    }

    /// Counts an active check of an endpoint.
    pub fn health_checked(&self, service: &str, good: bool) {
        self.known(service).health_checks[usize::from(!good)].inc();
    }

    /// Bytes of good answers that are kept.
    pub fn last_good_bytes(&self) -> IntGauge {
        self.0.process.last_good_bytes.clone()
    }

    /// Access log lines that were dropped.
    pub fn access_log_lost(&self) -> IntCounter {
        self.0.process.access_log_lost.clone()
    }

    /// Forgets what the gauges that mirror state show. Who calls it has every service say anew how it stands
    /// ([`Series::mirror`]), before anybody reads.
    pub fn clear_mirrors(&self) {
        self.by_label().iter().for_each(|series| series.clear_mirror());
    }

    /// Everything, in Prometheus' text format 0.0.4, a page at a time.
    pub fn pages(&self) -> Pages {
        Pages::of(self)
    }

    /// The same, at once.
    pub fn render(&self) -> Vec<u8> {
        self.pages().collect::<String>().into_bytes()
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

#[cfg(test)]
mod tests;
