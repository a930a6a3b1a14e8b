//! The live state of endpoints: what is outstanding at each, how fast it is, whether it is drained.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{ejection::Record, now};
use crate::{
    model::{Endpoint, EndpointSet},
    net::tls::Client,
    policy::balance::{Load, PeakEwma},
    telemetry::ServiceMetrics,
    upstream::Target,
};

/// One endpoint, as all workers see it. Relaxed atomics: each figure stands for itself, and a balancer that
/// sees one a moment late errs by one call.
#[derive(Debug)]
pub struct Live {
    endpoint: Endpoint,
    target: Arc<Target>,
    hash_id: u64,
    state: Arc<State>,
}

/// What is so however its source describes an instance.
#[derive(Debug)]
struct State {
    outstanding: AtomicU32,
    latency: AtomicU64,
    draining: AtomicBool,
    record: Record,
}

impl Live {
    fn new(endpoint: Endpoint, metrics: &ServiceMetrics, tls: Option<&Arc<Client>>) -> Arc<Self> {
        let target = target(&endpoint, metrics, tls);
        let hash_id = crate::policy::balance::hash_key(endpoint.addr.to_string().as_bytes());
        let state = Arc::new(State {
            outstanding: AtomicU32::new(0),
            latency: AtomicU64::new(PeakEwma::new(epoch()).pack()),
            draining: AtomicBool::new(false),
            record: Record::default(),
        });
        Arc::new(Self { endpoint, target, hash_id, state })
    }

    /// The same instance, with connections of another kind.
    fn connected_anew(&self, metrics: &ServiceMetrics, tls: Option<&Arc<Client>>) -> Arc<Self> {
        let (endpoint, target) = (self.endpoint.clone(), target(&self.endpoint, metrics, tls));
        Arc::new(Self { endpoint, target, hash_id: self.hash_id, state: self.state.clone() })
    }

    /// The same instance as its source describes it now: load, latency and connections are the same ones.
    fn described_anew(&self, endpoint: Endpoint) -> Arc<Self> {
        let (target, state) = (self.target.clone(), self.state.clone());
        Arc::new(Self { endpoint, target, hash_id: self.hash_id, state })
    }

    /// What its source says of it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What connections to it lead to.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Attempts outstanding.
    pub fn outstanding(&self) -> u32 {
        self.state.outstanding.load(Ordering::Relaxed)
    }

    /// Whether an operator has taken it out of rotation.
    pub fn is_draining(&self) -> bool {
        self.state.draining.load(Ordering::Relaxed)
    }

    /// Its record with ejection.
    pub(super) fn record(&self) -> &Record {
        &self.state.record
    }

    /// Takes it out of rotation; what is in flight finishes.
    pub fn drain(&self) {
        self.state.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn retire(&self, now: Instant) {
        self.target.retire(now);
    }

    /// Its latency as the balancer sees it.
    pub fn latency(&self, now: Instant) -> Duration {
        Duration::from_secs_f64(self.latency_us(now).max(0.0) / 1e6)
    }

    /// Counts an attempt as outstanding; `None` when `limit` are already.
    pub fn begin(self: &Arc<Self>, limit: Option<u32>) -> Option<Slot> {
        let before = self.state.outstanding.fetch_add(1, Ordering::Relaxed);
        if limit.is_some_and(|limit| before >= limit) {
            self.state.outstanding.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Slot { live: self.clone(), probe: false })
    }

    fn observe(&self, now: Instant, rtt: Duration) {
        let mut ewma = PeakEwma::unpack(epoch(), self.state.latency.load(Ordering::Relaxed));
        ewma.observe(now, rtt);
        // Two workers at once may lose one sample of two: the next one makes up for it.
        self.state.latency.store(ewma.pack(), Ordering::Relaxed);
    }
}

impl Load for Arc<Live> {
    fn weight(&self) -> u32 {
        self.endpoint.weight
    }

    fn priority(&self) -> u16 {
        self.endpoint.priority
    }

    fn outstanding(&self) -> u32 {
        Live::outstanding(self)
    }

    fn latency_us(&self, now: Instant) -> f64 {
        Live::latency_us(self, now)
    }

    fn hash_id(&self) -> u64 {
        self.hash_id
    }
}

impl Live {
    fn latency_us(&self, now: Instant) -> f64 {
        PeakEwma::unpack(epoch(), self.state.latency.load(Ordering::Relaxed)).read(now)
    }
}

/// What connections to an endpoint lead to.
fn target(endpoint: &Endpoint, metrics: &ServiceMetrics, tls: Option<&Arc<Client>>) -> Arc<Target> {
    let host = host(&endpoint.authority).into();
    Arc::new(Target::new(endpoint.addr, host, tls.cloned(), metrics.clone()))
}

/// The host of `host:port`, without an IPv6 address's brackets.
fn host(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// What latencies are counted from; the same for all.
pub(super) fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(now)
}

/// One attempt's place at an endpoint; it is free again when this drops.
#[derive(Debug)]
pub struct Slot {
    live: Arc<Live>,
    /// The attempt finds out whether an ejected endpoint is back.
    probe: bool,
}

impl Slot {
    /// The endpoint.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Makes its attempt the endpoint's probe.
    pub(super) fn begin_probe(&mut self) {
        self.probe = true;
    }

    /// Whether its attempt was the endpoint's probe; asked once.
    pub(super) fn take_probe(&mut self) -> bool {
        std::mem::take(&mut self.probe)
    }

    /// Tells the balancer how long the endpoint took to begin its answer.
    pub fn observe(&self, now: Instant, rtt: Duration) {
        self.live.observe(now, rtt);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.live.state.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The endpoints of a service with their live state, in the order of their [`EndpointSet`].
#[derive(Debug)]
pub struct LiveSet {
    set: EndpointSet,
    generation: u64,
    live: Vec<Arc<Live>>,
}

impl LiveSet {
    pub(super) fn empty() -> Self {
        Self { set: EndpointSet::empty(), generation: 0, live: Vec::new() }
    }

    /// The state for a new set: endpoints that were there before keep theirs.
    pub(super) fn succeeding(
        before: &Self,
        set: EndpointSet,
        metrics: &ServiceMetrics,
        tls: Option<&Arc<Client>>,
    ) -> Self {
        let known: HashMap<SocketAddr, &Arc<Live>> =
            before.live.iter().map(|live| (live.endpoint.addr, live)).collect();
        let live = set
            .endpoints()
            .iter()
            .map(|endpoint| match known.get(&endpoint.addr) {
                Some(live) if live.endpoint == *endpoint => (*live).clone(),
                Some(live) => live.described_anew(endpoint.clone()),
                None => Live::new(endpoint.clone(), metrics, tls),
            })
            .collect();
        Self { set, generation: before.generation + 1, live }
    }

    /// The same endpoints, with connections of another kind.
    pub(super) fn connected_anew(before: &Self, metrics: &ServiceMetrics, tls: Option<&Arc<Client>>) -> Self {
        let live = before.live.iter().map(|live| live.connected_anew(metrics, tls)).collect();
        Self { set: before.set.clone(), generation: before.generation + 1, live }
    }

    /// The endpoints that `after` holds no more.
    pub(super) fn gone_in<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = &'a Arc<Live>> {
        let kept: std::collections::HashSet<_> = after.live.iter().map(|live| live.endpoint.addr).collect();
        self.live.iter().filter(move |live| !kept.contains(&live.endpoint.addr))
    }

    /// The set they belong to.
    pub fn set(&self) -> &EndpointSet {
        &self.set
    }

    /// Counts the sets that the service has had. Unlike the revision, which each watch of a source counts for
    /// itself, it never stands for two sets: it is what a balancer knows its layout by.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The endpoints with their state.
    pub fn live(&self) -> &[Arc<Live>] {
        &self.live
    }
}
