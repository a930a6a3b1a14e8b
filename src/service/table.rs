//! The table of services: every name that leads somewhere, swapped whole on a reload.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::mpsc;

use super::{
    Fallbacks, Inbound, LastGood, Making, Service, Summons,
    addresses::Addresses,
    made::{Made, Mould},
    now,
    tls::{self, Clients},
    view::ServiceView,
};
use crate::{
    config::{self, Config, Limits, Wildcard},
    model::ServiceName,
    net::{tcp, tls::FileError},
    policy::breaker::Forced,
    telemetry::{AccessLog, Metrics},
};

/// The services of one configuration, by every name that they answer to, and those that were made since. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Services {
    pub(super) by_host: Arc<HashMap<Box<str>, Arc<Service>, foldhash::fast::RandomState>>,
    by_vip: Arc<HashMap<Ipv4Addr, Arc<Service>, foldhash::fast::RandomState>>,
    by_address: Arc<Addresses>,
    vips: Option<Arc<config::Vip>>,
    listeners: Arc<[SocketAddr]>,
    pub(super) list: Arc<[Arc<Service>]>,
    pub(super) made: Arc<Made>,
    pub(super) mould: Option<Mould>,
    pub(super) inbound: Option<Arc<Inbound>>,
    pub(super) clients: Arc<Clients>,
    override_header: bool,
    shared: SocketAddr,
    pub(super) domain: Arc<str>,
    traffic: Traffic,
    last_good: Arc<LastGood>,
}

/// What holds for all traffic, whatever the service.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// What an app may ask of us at most.
    pub limits: Limits,
    /// How long an endpoint that is gone keeps the connections that are in use.
    pub drain: Duration,
    /// Where calls are logged.
    pub access_log: Option<AccessLog>,
}

/// The longest Host that can name a service: a name, and a dot that some resolvers leave at its end.
const LONGEST_HOST: usize = 254;

impl Services {
    /// Builds the table of a configuration for so many workers, carrying over from `old` what it leaves alone. `vips`
    /// are the services' addresses.
    ///
    /// # Errors
    /// Certificates that the configuration names cannot be read.
    pub fn new(
        config: &Config,
        metrics: &Metrics,
        access_log: Option<AccessLog>,
        workers: usize,
        vips: &HashMap<ServiceName, Ipv4Addr>,
        old: Option<&Self>,
        now: Instant,
    ) -> Result<Self, FileError> {
        let mut clients = Clients::default();
        let mut by_host = HashMap::default();
        let mut by_vip = HashMap::default();
        let mut list = Vec::with_capacity(config.services.len());
        for settings in config.services.values() {
            let before = old.and_then(|old| old.find(settings.name.as_str())).filter(|s| *s.name() == settings.name);
            let client = settings.policy.tls.as_ref().map(|tls| clients.get(tls, old.map(|old| &*old.clients)));
            let client =
                client.transpose().map_err(|error| tls::at(&format!("services.{}.tls", settings.name), &error))?;
            let before = before.map(|service| &**service);
            let fallbacks = Fallbacks::new(&settings.policy.fallback)
                .map_err(|error| tls::at(&format!("services.{}", settings.name), &error))?;
            let vip = vips.get(&settings.name).copied();
            let making = Making { label: settings.name.as_str(), tls: client, vip, fallbacks };
            let service = Service::new(settings.clone(), making, metrics, workers, before, now);
            let service = Arc::new(service);
            by_vip.extend(vip.map(|vip| (vip, service.clone())));
            for name in std::iter::once(&settings.name).chain(&settings.aliases) {
                by_host.insert(name.as_str().into(), service.clone());
                by_host.insert(format!("{name}.{}", config.domain).into(), service.clone());
            }
            list.push(service);
        }
        let mut inbound = None;
        if let Some(settings) = &config.inbound {
            let before = old.and_then(|old| old.inbound.as_deref());
            let of_before = before.map(|inbound| &**inbound.service());
            let fallbacks = Fallbacks::default();
            let making = Making { label: config::Inbound::NAME, tls: None, vip: None, fallbacks };
            let service = Arc::new(Service::new(settings.service.clone(), making, metrics, workers, of_before, now));
            list.push(service.clone());
            inbound = Some(Arc::new(Inbound::new(settings, service, before)?));
        }
        let mut mould = None;
        if let Some(wildcard) = &config.wildcard {
            let tls = wildcard.policy().tls.as_ref().map(|tls| clients.get(tls, old.map(|old| &*old.clients)));
            let tls = tls.transpose().map_err(|error| tls::at("services.*.tls", &error))?;
            Fallbacks::new(&wildcard.policy().fallback).map_err(|error| tls::at("services.*", &error))?;
            // What is looked up before there is a service counts with those that share.
            metrics.service_as(Wildcard::NAME, Wildcard::NAME);
            mould = Some(Mould { wildcard: wildcard.clone(), tls, workers });
        }
        let traffic = Traffic { limits: config.limits, drain: config.drain.limit, access_log };
        let (shared, domain) = (config.listen.http, config.domain.clone());
        let last_good = old.map(|old| old.last_good.clone());
        let last_good = last_good.unwrap_or_else(|| Arc::new(LastGood::counted(metrics.last_good_bytes())));
        last_good.limit(config.limits.last_good);
        let listeners = config.listeners().into_iter().map(|listener| listener.addr);
        let listeners = listeners.chain([config.listen.observe]).chain(config.listen.dns).collect();
        let mut services = Self {
            by_host: Arc::new(by_host),
            by_vip: Arc::new(by_vip),
            by_address: Arc::default(),
            vips: config.vip.clone().map(Arc::new),
            listeners,
            list: list.into(),
            made: Arc::default(),
            mould,
            inbound,
            clients: Arc::new(clients),
            override_header: config.listen.override_header,
            shared,
            domain,
            traffic,
            last_good,
        };
        if let Some(old) = old {
            services.inherit_made(old, vips, metrics);
        }
        Ok(services)
    }

    /// These services, with other ones made.
    pub(super) fn with(&self, made: Made) -> Self {
        Self { made: Arc::new(made), by_address: Arc::default(), ..self.clone() }
    }

    /// The receiving side.
    pub fn inbound(&self) -> Option<&Inbound> {
        self.inbound.as_deref()
    }

    /// Whether this is our own app, and not a service that merely bears the same name.
    fn is_inbound(&self, service: &Arc<Service>) -> bool {
        self.inbound.as_ref().is_some_and(|inbound| Arc::ptr_eq(inbound.service(), service))
    }

    /// The service of this name, our own app's included, which no host leads to.
    pub fn named(&self, name: &str) -> Option<&Arc<Service>> {
        let inbound =
            || self.inbound.as_deref().map(Inbound::service).filter(|service| service.name().as_str() == name);
        self.find(name).or_else(inbound)
    }

    /// The service that a host names: its name, an alias, or either under the VIP domain; in any letter
    /// case, without a port. A look-up costs the same for three services and for thousands.
    pub fn find(&self, host: &str) -> Option<&Arc<Service>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.len() > LONGEST_HOST {
            return None;
        }
        if !host.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.by_host.get(host).or_else(|| self.made.find(host));
        }
        let mut folded = [0; LONGEST_HOST];
        let folded = &mut folded[..host.len()];
        folded.copy_from_slice(host.as_bytes());
        folded.make_ascii_lowercase();
        let folded = std::str::from_utf8(folded).ok()?;
        self.by_host.get(folded).or_else(|| self.made.find(folded))
    }

    /// The service that has this VIP.
    pub fn at_vip(&self, vip: Ipv4Addr) -> Option<&Arc<Service>> {
        self.by_vip.get(&vip).or_else(|| self.made.at_vip(vip))
    }

    /// The service that has this address: as its VIP's, or as an endpoint. Where several have the endpoint it is the
    /// first one, by name.
    pub fn at(&self, address: SocketAddr) -> Option<Arc<Service>> {
        let vip = match address.ip() {
            IpAddr::V4(ip) => self.at_vip(ip),
            IpAddr::V6(_) => None,
        };
        let others = || self.by_address.find(address, self.iter().filter(|service| !self.is_inbound(service)));
        vip.cloned().or_else(others)
    }

    /// Whether a connection to this address would come to this sidecar, by a port that the configuration gives.
    pub fn is_listener(&self, address: SocketAddr) -> bool {
        let is_reached = |listener: &SocketAddr| match listener.ip() {
            ip if ip.is_unspecified() => tcp::is_of_this_host(address.ip()),
            ip => ip == address.ip(),
        };
        address.port() != 0
            && self.listeners.iter().any(|listener| listener.port() == address.port() && is_reached(listener))
    }

    /// What holds for all VIPs, where there are some.
    pub fn vips(&self) -> Option<&config::Vip> {
        self.vips.as_deref()
    }

    /// Whether a request may name its service by a header.
    pub fn takes_override(&self) -> bool {
        self.override_header
    }

    /// Every service, by name; then those that were made.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.list.iter().chain(&self.made.list)
    }

    /// The services of the configuration, by name.
    pub fn declared(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.list.iter()
    }

    fn picture(&self, service: &Arc<Service>, shared: SocketAddr) -> ServiceView {
        let made = self.made.list.iter().any(|made| Arc::ptr_eq(made, service));
        let view = service.picture(shared, self.vips(), self.domain(), self.is_inbound(service), now());
        ServiceView { made, ..view }
    }

    /// What holds for all traffic.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The good answers that are kept for bad times.
    pub fn last_good(&self) -> &Arc<LastGood> {
        &self.last_good
    }

    /// The suffix of VIP names.
    pub fn domain(&self) -> &str {
        &self.domain
    }
}

/// The current table, shared by everybody. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Table(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    current: ArcSwap<Services>,
    /// The shared port as bound: the config may have said port 0.
    bound: OnceLock<SocketAddr>,
    /// Where services are asked for that are not there.
    summoner: OnceLock<mpsc::Sender<Summons>>,
}

/// Why a breaker could not be forced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForceError {
    /// No service bears the name.
    #[error("no service bears this name")]
    UnknownService,
    /// The service has no breaker.
    #[error("the service's breaker is off")]
    BreakerIsOff,
}

impl Table {
    /// A table that starts with these services.
    pub fn new(services: Services) -> Self {
        Self(Arc::new(Shared {
            current: ArcSwap::from_pointee(services),
            bound: OnceLock::new(),
            summoner: OnceLock::new(),
        }))
    }

    /// The services of the current configuration.
    pub fn current(&self) -> Guard<Arc<Services>> {
        self.0.current.load()
    }

    /// Puts another configuration's services in place, whole. Calls in flight keep the ones they started with.
    pub fn replace(&self, services: Services) {
        self.0.current.store(Arc::new(services));
    }

    /// Says who makes services.
    pub fn summons_go_to(&self, summoner: mpsc::Sender<Summons>) {
        let _ = self.0.summoner.set(summoner);
    }

    pub(super) fn summoner(&self) -> Option<&mpsc::Sender<Summons>> {
        self.0.summoner.get()
    }

    /// Says where the shared port really is.
    pub fn bound_to(&self, shared: SocketAddr) {
        let _ = self.0.bound.set(shared);
    }

    fn shared_port(&self, services: &Services) -> SocketAddr {
        // A port 0 of the config is where the kernel put it; any other may be changed by a reload.
        let bound = self.0.bound.get().copied();
        bound.filter(|_| services.shared.port() == 0).unwrap_or(services.shared)
    }

    /// The picture of every service, each taken when it is asked for: pictures of thousands of services are megabytes.
    pub fn views(&self) -> impl Iterator<Item = ServiceView> + Send + use<> {
        let services = self.current().clone();
        let shared = self.shared_port(&services);
        let all: Vec<_> = services.iter().cloned().collect();
        all.into_iter().map(move |service| services.picture(&service, shared))
    }

    /// The picture of the service of this name or alias.
    pub fn view(&self, name: &str) -> Option<ServiceView> {
        let services = self.current();
        let shared = self.shared_port(&services);
        services.named(name).map(|service| services.picture(service, shared))
    }

    /// Sets the gauges that mirror state; whoever renders the metrics calls it first.
    pub fn update_gauges(&self, metrics: &Metrics) {
        let now = now();
        metrics.clear_mirrors();
        self.current().iter().for_each(|service| service.update_gauges(now));
    }

    /// Forces a service's breaker open or closed, or lets it decide again.
    ///
    /// # Errors
    /// No service bears the name, or its breaker is off.
    pub fn force_breaker(&self, name: &str, forced: Forced) -> Result<(), ForceError> {
        let services = self.current();
        let service = services.find(name).ok_or(ForceError::UnknownService)?;
        service.breaker().ok_or(ForceError::BreakerIsOff)?.force(forced, now());
        Ok(())
    }

    /// Takes an endpoint out of rotation in every service that has it; returns how many have.
    pub fn drain(&self, endpoint: SocketAddr) -> usize {
        let services = self.current();
        let live = services.iter().filter_map(|service| {
            service.endpoints().live().iter().find(|live| live.endpoint().addr == endpoint).cloned()
        });
        live.inspect(|live| live.drain()).count()
    }
}
