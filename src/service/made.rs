//! Services that are made when somebody asks for their names: what the entry `*` of the configuration stands for.
//!
//! Whoever meets a name that no service bears asks for it by [`Table::summon`]; the control thread, which alone has
//! to do with discovery and addresses, looks whether there are endpoints behind it, and puts the service into the
//! table. Nobody else changes the table, so a snapshot with one service more is a copy of the few handles that it
//! consists of.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use tokio::sync::oneshot;

use super::{Making, Service, Services, Table, now};
use crate::{
    config::{self, Wildcard},
    model::ServiceName,
    net::tls::Client,
    telemetry::Metrics,
};

/// The services that were made.
#[derive(Debug, Clone, Default)]
pub(super) struct Made {
    by_host: HashMap<Box<str>, Arc<Service>>,
    by_vip: HashMap<Ipv4Addr, Arc<Service>>,
    pub(super) list: Vec<Arc<Service>>,
}

/// What services are made of.
#[derive(Debug, Clone)]
pub(super) struct Mould {
    pub(super) wildcard: Arc<Wildcard>,
    pub(super) tls: Option<Arc<Client>>,
    pub(super) workers: usize,
}

/// Somebody needs a service that is not there.
#[derive(Debug)]
pub struct Summons {
    /// Which one.
    pub wanted: Wanted,
    /// Takes the service, or `None` where there is no such service. Dropped, it says neither.
    pub reply: oneshot::Sender<Option<Arc<Service>>>,
}

/// Whether there is such a service was not found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecided;

/// Which service somebody needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The one of this name.
    Named(ServiceName),
    /// The one that has this VIP, or had it when it was last there.
    AtVip(Ipv4Addr),
}

impl Made {
    pub(super) fn find(&self, host: &str) -> Option<&Arc<Service>> {
        self.by_host.get(host)
    }

    pub(super) fn at_vip(&self, vip: Ipv4Addr) -> Option<&Arc<Service>> {
        self.by_vip.get(&vip)
    }

    fn add(&mut self, service: Arc<Service>, domain: &str) {
        let name = service.name();
        self.by_host.insert(name.as_str().into(), service.clone());
        self.by_host.insert(format!("{name}.{domain}").into(), service.clone());
        self.by_vip.extend(service.vip().map(|vip| (vip, service.clone())));
        self.list.push(service);
    }
}

impl Services {
    /// The name that a host asks for, if it is one that `*` can stand for: without the domain, and no address.
    pub fn summonable(&self, host: &str) -> Option<ServiceName> {
        self.mould.as_ref()?;
        let host = host.strip_suffix('.').unwrap_or(host);
        let name = ServiceName::parse(host).ok()?;
        let without_domain =
            |name: &str| name.strip_suffix(&*self.domain).and_then(|rest| rest.strip_suffix('.')).map(str::to_owned);
        let name = match without_domain(name.as_str()) {
            Some(rest) => ServiceName::parse(&rest).ok()?,
            None => name,
        };
        // A service `orders.vip.internal` would get the calls for `orders`.
        if without_domain(name.as_str()).is_some() {
            return None;
        }
        let last = name.as_str().rsplit('.').next().unwrap_or_default();
        let is_address = last.bytes().all(|b| b.is_ascii_digit());
        let is_ours = name.as_str() == &*self.domain || name.as_str() == config::Inbound::NAME;
        (!is_address && !is_ours).then_some(name)
    }

    /// The names of the services that were made.
    pub fn made_names(&self) -> Vec<ServiceName> {
        self.made.list.iter().map(|service| service.name().clone()).collect()
    }

    /// The services that were made.
    pub fn made(&self) -> &[Arc<Service>] {
        &self.made.list
    }

    /// What services are made of, where there is a `*`.
    pub fn wildcard(&self) -> Option<&Arc<Wildcard>> {
        self.mould.as_ref().map(|mould| &mould.wildcard)
    }

    /// These services and one more, with this VIP; `None` where the configuration has no `*` or its source cannot be
    /// made of the name.
    pub fn with_made(
        &self,
        name: &ServiceName,
        vip: Option<Ipv4Addr>,
        metrics: &Metrics,
    ) -> Option<(Self, Arc<Service>)> {
        let service = Arc::new(self.make(name, vip, metrics, None)?);
        let mut made = Made::clone(&self.made);
        made.add(service.clone(), &self.domain);
        Some((self.with(made), service))
    }

    /// These services, but for some that were made.
    pub fn without_made(&self, names: &[ServiceName]) -> Self {
        let mut made = Made::default();
        for service in self.made.list.iter().filter(|service| !names.contains(service.name())) {
            made.add(service.clone(), &self.domain);
        }
        self.with(made)
    }

    /// Those of another table that were made go on in this one, under the rules that hold now; but for names that
    /// services bear now.
    pub(super) fn inherit_made(&mut self, old: &Self, vips: &HashMap<ServiceName, Ipv4Addr>, metrics: &Metrics) {
        let mut made = Made::default();
        for before in old.made.list.iter().filter(|before| !self.by_host.contains_key(before.name().as_str())) {
            let vip = vips.get(before.name()).copied();
            if let Some(service) = self.make(before.name(), vip, metrics, Some(before)) {
                made.add(Arc::new(service), &self.domain);
            }
        }
        self.made = Arc::new(made);
    }

    fn make(
        &self,
        name: &ServiceName,
        vip: Option<Ipv4Addr>,
        metrics: &Metrics,
        old: Option<&Service>,
    ) -> Option<Service> {
        let Mould { wildcard, tls, workers } = self.mould.as_ref()?;
        let config = Arc::new(wildcard.service(name)?);
        let has_own = match old {
            // For life: what its parts count elsewhere would be lost, and a reload would give series to all.
            Some(old) => old.has_own_series(),
            None => self.made.list.iter().filter(|service| service.has_own_series()).count() < wildcard.series,
        };
        let label = if has_own { name.as_str() } else { Wildcard::NAME };
        let fallbacks = super::Fallbacks::new(&config.policy.fallback)
            .inspect_err(|error| tracing::error!(service = %name, %error, "a fallback of `*` cannot be used"))
            .ok()?;
        let making = Making { label, tls: tls.clone(), vip, fallbacks };
        Some(Service::new(config.clone(), making, metrics, *workers, old, now()))
    }
}

impl Table {
    /// Has a service made that is not there, and waits for it. `None` when there are no endpoints behind the name.
    ///
    /// # Errors
    /// [`Undecided`] when that was not found out: too much is asked for at once, there are as many services as there
    /// may be, or the sidecar stops.
    pub async fn summon(&self, wanted: Wanted) -> Result<Option<Arc<Service>>, Undecided> {
        let (reply, replied) = oneshot::channel();
        let Some(summoner) = self.summoner() else { return Ok(None) };
        summoner.try_send(Summons { wanted, reply }).map_err(|_| Undecided)?;
        replied.await.map_err(|_| Undecided)
    }

    /// Whether a stop is so far that nobody makes services any more.
    pub fn makes_no_more(&self) -> bool {
        self.summoner().is_some_and(tokio::sync::mpsc::Sender::is_closed)
    }
}
