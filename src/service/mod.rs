//! The shell round the policies: the live state of services and their endpoints.
//!
//! Policies are pure; here are their clocks, locks and metrics. A [`Service`] joins one service's
//! configuration with the state that must be one for all workers, so that a threshold means what the
//! operator wrote: its breaker, its bulkhead, its endpoints and their load. Each piece is an `Arc` of its
//! own, so that a reload keeps the state of whatever its change does not concern.
//!
//! What is lent out on the way of a call comes back when a guard drops, on every path: a
//! [`Permit`] of the bulkhead, a [`Trial`] of the breaker, a [`Slot`] at an endpoint.
//!
//! Discovery does not know this layer, nor this layer discovery: `app` carries sets of endpoints from the
//! one to the other.

mod addresses;
mod breaker;
mod bulkhead;
mod coalesce;
mod ejection;
mod endpoint;
mod fallback;
mod inbound;
mod last_good;
mod lifecycle;
mod made;
mod picture;
mod retry;
mod sample;
mod table;
mod tls;
pub mod view;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};

pub use breaker::{Breaker, BreakerOpen, Trial};
pub use bulkhead::{Bulkhead, BulkheadFull, Permit};
pub use coalesce::{Flights, Follower, Leader, News, Role};
use ejection::Ejections;
pub use endpoint::{Live, LiveSet, Slot};
pub use fallback::{Fallbacks, Place, Ready};
pub use inbound::Inbound;
pub use last_good::{Kept, Key, KeyBuilder, LastGood};
pub use lifecycle::{Lifecycle, Readiness};
pub use made::{Summons, Undecided, Wanted};
pub use retry::Retries;
pub use sample::Sample;
pub use table::{ForceError, Services, Table, Traffic};

use crate::{
    config,
    model::{EndpointSet, Random, ServiceName},
    net::tls::Client,
    policy::balance::Balancer,
    telemetry::{Metrics, ServiceMetrics},
};

/// The clock of every shell: tokio's, so that a test can pause it.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How a service's source is doing; told by discovery, shown by `explain`.
#[derive(Debug, Clone, Default)]
pub struct SourceStatus {
    /// When it last answered.
    pub last_answer: Option<Instant>,
    /// What is wrong with it, in words.
    pub problem: Option<Arc<str>>,
    /// When the last good set is dropped, while the source says that there are no endpoints.
    pub drop_at: Option<Instant>,
}

/// One service: its configuration and its live state.
#[derive(Debug)]
pub struct Service {
    config: Arc<config::Service>,
    metrics: ServiceMetrics,
    bulkhead: Option<Arc<Bulkhead>>,
    breaker: Option<Arc<Breaker>>,
    retries: Option<Arc<Retries>>,
    ejections: Arc<Ejections>,
    fallbacks: Fallbacks,
    flights: Option<Arc<Flights>>,
    endpoints: Arc<Endpoints>,
    tls: Option<Arc<Client>>,
    vip: Option<Ipv4Addr>,
    /// Whether it has been asked for since somebody last looked; of services that are made alone.
    asked_for: AtomicBool,
    /// One a worker, each locked by its own worker alone.
    balancers: Box<[Mutex<Balancer>]>,
}

/// What a service is made of, beside its configuration.
#[derive(Debug)]
pub struct Making<'a> {
    /// What its metrics call it: its name, unless it shares them.
    pub label: &'a str,
    /// TLS to its endpoints.
    pub tls: Option<Arc<Client>>,
    /// Its VIP.
    pub vip: Option<Ipv4Addr>,
    /// What is answered instead of its failures.
    pub fallbacks: Fallbacks,
}

/// Why no endpoint can be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPick {
    /// There are none.
    NoEndpoints,
    /// An operator has drained all of them.
    AllDraining,
    /// Each has as many attempts outstanding as the bulkhead's `per_endpoint` admits.
    AllFull,
}

/// The endpoints of a service and the way back to their source; kept over a reload that leaves the source alone.
struct Endpoints {
    live: ArcSwap<LiveSet>,
    link: Mutex<Option<Arc<dyn SourceLink>>>,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.live.load().fmt(f)
    }
}

/// A service's way back to its source; given by whoever watches that.
pub trait SourceLink: Send + Sync {
    /// Asks for an early look: an endpoint could not be connected to.
    fn look_early(&self);
    /// How the source is doing.
    fn status(&self) -> SourceStatus;
}

impl Service {
    /// A service with fresh state, or with as much of `old`'s as its new configuration leaves meaningful:
    /// endpoints while the source is the same, the count of a bulkhead and the state of a breaker whatever their
    /// new settings. `workers` is how many threads will pick endpoints.
    pub fn new(
        config: Arc<config::Service>,
        making: Making<'_>,
        metrics: &Metrics,
        workers: usize,
        old: Option<&Self>,
        now: Instant,
    ) -> Self {
        let Making { label, tls, vip, fallbacks } = making;
        let metrics = match label == config.name.as_str() {
            true => metrics.service(label),
            false => metrics.service_as(config.name.as_str(), label),
        };
        let policy = &config.policy;
        let bulkhead = policy.bulkhead.as_ref().map(|settings| {
            match old.and_then(|old| old.bulkhead.clone().zip(old.config.policy.bulkhead.as_ref())) {
                Some((bulkhead, before)) => {
                    if before != settings {
                        bulkhead.resize(settings.clone());
                    }
                    bulkhead
                }
                None => Arc::new(Bulkhead::new(settings.clone())),
            }
        });
        let breaker = policy.breaker.as_ref().map(|settings| {
            match old.and_then(|old| old.breaker.clone().zip(old.config.policy.breaker.as_ref())) {
                Some((breaker, before)) => {
                    if before != settings {
                        breaker.reconfigure(settings.clone(), now);
                    }
                    breaker
                }
                None => Arc::new(Breaker::new(config.name.clone(), settings.clone(), &metrics, now)),
            }
        });
        // Hedges are paid from the same budget, with or without retries.
        let settings = policy.retry.clone().or_else(|| policy.hedge.map(|_| Default::default()));
        let retries = settings.map(|settings| match old.and_then(|old| old.retries.clone()) {
            Some(retries) => {
                retries.reconfigure(settings);
                retries
            }
            None => Arc::new(Retries::new(settings, now)),
        });
        fallbacks.steps().iter().for_each(|ready| metrics.may_fall_back(ready.step.with.kind()));
        let flights = config.policy.coalesce.then(Arc::default);
        let ejections = old.map(|old| old.ejections.clone()).unwrap_or_default();
        let endpoints = match old.filter(|old| old.config.source == config.source) {
            Some(old) if same_tls(old.tls.as_ref(), tls.as_ref()) => old.endpoints.clone(),
            // Connections to the same endpoints, but of another kind.
            Some(old) => {
                let before = old.endpoints.live.load();
                let live = LiveSet::connected_anew(&before, &metrics, tls.as_ref());
                before.live().iter().for_each(|endpoint| endpoint.retire(now));
                let link = lock(&old.endpoints.link).clone();
                Arc::new(Endpoints { live: ArcSwap::from_pointee(live), link: Mutex::new(link) })
            }
            // Another source: the old one's endpoints serve until the new one has spoken.
            None => Arc::new(Endpoints {
                live: ArcSwap::new(
                    old.map_or_else(|| Arc::new(LiveSet::empty()), |old| old.endpoints.live.load_full()),
                ),
                link: Mutex::default(),
            }),
        };
        let balancers = (0..workers).map(|_| Mutex::new(Balancer::new(&config.policy.balance))).collect();
        Self {
            config,
            metrics,
            bulkhead,
            breaker,
            retries,
            ejections,
            fallbacks,
            flights,
            endpoints,
            tls,
            vip,
            asked_for: AtomicBool::new(true),
            balancers,
        }
    }

    /// Picks the endpoint of an attempt for a worker, and counts the attempt there. `key` is the hash of what
    /// the service balances by, where it does and the request has it.
    ///
    /// # Errors
    /// [`NoPick`] when none may be tried.
    pub fn pick(&self, worker: usize, key: Option<u64>, now: Instant, random: &mut Random) -> Result<Slot, NoPick> {
        self.pick_but(&[], worker, key, now, random)
    }

    /// The same, for a call that has `tried` these endpoints in vain: another one where there is one.
    ///
    /// # Errors
    /// [`NoPick`] when none may be tried.
    pub fn pick_but(
        &self,
        tried: &[SocketAddr],
        worker: usize,
        key: Option<u64>,
        now: Instant,
        random: &mut Random,
    ) -> Result<Slot, NoPick> {
        let set = self.endpoints.live.load();
        let (live, generation) = (set.live(), set.generation());
        let limit = self.config.policy.bulkhead.as_ref().and_then(|bulkhead| bulkhead.per_endpoint);
        let usable = |i: usize| !live[i].is_draining() && limit.is_none_or(|limit| live[i].outstanding() < limit);
        let untried = |i: usize| !tried.contains(&live[i].endpoint().addr);
        let rotation = self.ejections.rotation(self.config.policy.ejection.as_ref(), now, random);
        if rotation.is_some()
            && let Some(probe) = live.iter().position(|live| live.record().is_out() && !live.is_draining())
            && let Some(slot) = (probe..live.len()).find_map(|i| probe_slot(live, i, &usable, &untried, limit, now))
        {
            return Ok(slot);
        }
        let in_turn = |i: usize| rotation.is_none_or(|rotation| rotation.has(&live[i]));
        let in_rotation = |i: usize| rotation.is_none() || !live[i].record().is_out();
        let mut balancer = lock(&self.balancers[worker % self.balancers.len()]);
        // From what is best to what there is: an ejected endpoint only where there is no other.
        let mut pick = || {
            let mut of = |fits: &dyn Fn(usize) -> bool| balancer.pick(generation, live, fits, key, now, random);
            of(&|i| usable(i) && untried(i) && in_turn(i))
                .or_else(|| rotation.and_then(|_| of(&|i| usable(i) && untried(i) && in_rotation(i))))
                .or_else(|| if tried.is_empty() { None } else { of(&|i| usable(i) && in_rotation(i)) })
                .or_else(|| {
                    let is_in = |live: &Arc<Live>| !live.record().is_out() && !live.is_draining();
                    rotation.filter(|_| !live.iter().any(is_in)).and_then(|_| of(&usable))
                })
        };
        while let Some(i) = pick() {
            // Another worker may have taken the last place meanwhile; then it is no longer usable.
            if let Some(slot) = live[i].begin(limit) {
                return Ok(slot);
            }
        }
        Err(match live {
            [] => NoPick::NoEndpoints,
            live if live.iter().all(|live| live.is_draining()) => NoPick::AllDraining,
            _ => NoPick::AllFull,
        })
    }

    /// Whether an endpoint is in rotation that is not among those `tried`.
    pub fn has_other(&self, tried: &[SocketAddr]) -> bool {
        let set = self.endpoints.live.load();
        set.live()
            .iter()
            .any(|live| !live.is_draining() && !live.record().is_out() && !tried.contains(&live.endpoint().addr))
    }

    /// Its configuration.
    pub fn config(&self) -> &config::Service {
        &self.config
    }

    /// Its name.
    pub fn name(&self) -> &ServiceName {
        &self.config.name
    }

    /// Its VIP, if it has one.
    pub fn vip(&self) -> Option<Ipv4Addr> {
        self.vip
    }

    /// Whether its metrics bear its own name.
    pub fn has_own_series(&self) -> bool {
        self.metrics.label() == self.config.name.as_str()
    }

    /// Whether its VIP listens on a port.
    pub fn listens_on(&self, vips: &config::Vip, port: u16) -> bool {
        vips.ports.contains(&port) || self.config.vip.ports.contains(&port)
    }

    /// Somebody has asked for it.
    pub fn ask_for(&self) {
        self.asked_for.store(true, Ordering::Relaxed);
    }

    /// Whether nobody has asked for it since this was last called, and nothing of it is in flight.
    pub fn is_idle(&self) -> bool {
        let asked_for = self.asked_for.swap(false, Ordering::Relaxed);
        !asked_for && self.endpoints().live().iter().all(|live| live.outstanding() == 0)
    }

    /// Its metric handles.
    pub fn metrics(&self) -> &ServiceMetrics {
        &self.metrics
    }

    /// Its bulkhead, unless that is off.
    pub fn bulkhead(&self) -> Option<&Arc<Bulkhead>> {
        self.bulkhead.as_ref()
    }

    /// Its breaker, unless that is off.
    pub fn breaker(&self) -> Option<&Arc<Breaker>> {
        self.breaker.as_ref()
    }

    /// What its retries and hedges share, unless both are off.
    pub fn retries(&self) -> Option<&Arc<Retries>> {
        self.retries.as_ref()
    }

    /// Its calls that are the same at the same moment, if they share.
    pub fn flights(&self) -> Option<&Arc<Flights>> {
        self.flights.as_ref()
    }

    /// What is answered instead of its failures.
    pub fn fallbacks(&self) -> &Fallbacks {
        &self.fallbacks
    }

    /// Its endpoints, right now.
    pub fn endpoints(&self) -> Guard<Arc<LiveSet>> {
        self.endpoints.live.load()
    }

    /// How its source is doing.
    pub fn source_status(&self) -> SourceStatus {
        let link = lock(&self.endpoints.link).clone();
        link.map(|link| link.status()).unwrap_or_default()
    }

    /// Takes over what discovery found. Endpoints that are still there keep their load and connections;
    /// those that are gone are retired.
    pub fn discovered(&self, set: &EndpointSet, now: Instant) {
        let before = self.endpoints.live.load();
        let has_spoken = set.revision() > 0;
        if !has_spoken || (before.set().revision() == set.revision() && before.set().same_endpoints(set)) {
            return;
        }
        let after = LiveSet::succeeding(&before, set.clone(), &self.metrics, self.tls.as_ref());
        let gone: Vec<_> = before.gone_in(&after).cloned().collect();
        self.endpoints.live.store(Arc::new(after));
        addresses::changed();
        gone.iter().for_each(|endpoint| endpoint.retire(now));
    }

    /// Gives up endpoints that another watch had found: the one that holds now has known of none for long enough.
    pub fn none_discovered(&self, now: Instant) {
        let before = self.endpoints.live.load();
        let after = LiveSet::succeeding(&before, EndpointSet::empty(), &self.metrics, self.tls.as_ref());
        self.endpoints.live.store(Arc::new(after));
        addresses::changed();
        before.live().iter().for_each(|endpoint| endpoint.retire(now));
    }

    /// Joins it to whoever watches its source.
    pub fn link(&self, link: impl SourceLink + 'static) {
        *lock(&self.endpoints.link) = Some(Arc::new(link));
    }

    /// Reports that an endpoint could not be connected to: the source may know better by now.
    pub fn connect_failed(&self) {
        let link = lock(&self.endpoints.link).clone();
        if let Some(link) = link {
            link.look_early();
        }
    }

    /// Retires every endpoint, for a service that is gone or has another source now.
    pub fn retire_endpoints(&self, now: Instant) {
        self.endpoints.live.load().live().iter().for_each(|endpoint| endpoint.retire(now));
    }

    /// An answer began so long after its request went out.
    pub fn answered(&self, took: Duration) {
        if let (Some(retries), Some(crate::policy::retry::Hedge::Percentile(_))) =
            (&self.retries, self.config.policy.hedge)
        {
            retries.answered(took);
        }
    }

    /// Counts a call that ended.
    pub fn call_ended(&self, outcome: crate::model::Outcome, took: Duration) {
        self.metrics.call_ended(outcome, took);
    }
}

#[cfg(test)]
mod tests;

/// A slot at an ejected endpoint whose time has come, as its probe.
fn probe_slot(
    live: &[Arc<Live>],
    i: usize,
    usable: &impl Fn(usize) -> bool,
    untried: &impl Fn(usize) -> bool,
    limit: Option<u32>,
    now: Instant,
) -> Option<Slot> {
    if !(usable(i) && untried(i) && live[i].record().probe(now)) {
        return None;
    }
    let slot = live[i].begin(limit);
    match slot {
        Some(mut slot) => {
            slot.begin_probe();
            Some(slot)
        }
        None => {
            live[i].record().give_up_probe(now);
            None
        }
    }
}

/// Whether connections of the one kind serve as the other.
fn same_tls(a: Option<&Arc<Client>>, b: Option<&Arc<Client>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// Locks, whatever happened to the last holder: the critical sections here leave nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
