//! The service `*`: services that are made when their names are asked for, and forgotten when nobody calls them.
//!
//! To make one is to look its name up first: a name without endpoints gets no service, no address and no metrics, so
//! that asking for names at random costs an attacker more than it costs us. Looks under way, names that were refused
//! and services are each limited in number. Everything happens on the control thread, one step at a time.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep_until, timeout},
};

use super::control::Running;
use crate::{
    discovery::Subscription,
    model::ServiceName,
    service::{Service, Services, Summons, Wanted, now},
};

/// Names that may be looked up at once.
const LOOKS: usize = 32;
/// Callers that may wait for one name.
const WAITING: usize = 1024;
/// How long a name without endpoints is not looked up again.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// Names that are known to have no endpoints.
const REFUSED: usize = 4096;
/// How much longer than a look-up a look may take: it has to be carried here.
const MARGIN: Duration = Duration::from_millis(500);
/// How often to look for services that nobody calls, at most and at least.
const SWEEP: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Makes services and forgets them.
pub(super) struct Maker {
    asked: mpsc::Receiver<Summons>,
    looks: JoinSet<Found>,
    pending: HashMap<ServiceName, Vec<Reply>>,
    refused: HashMap<ServiceName, Instant>,
    /// Since when nobody has called a service.
    idle: HashMap<ServiceName, Instant>,
    sweep_at: Instant,
    complained: bool,
}

type Reply = oneshot::Sender<Option<Arc<Service>>>;

/// What a look at a name came to.
pub(super) struct Found {
    name: ServiceName,
    /// The configuration by which it was made.
    reloads: u64,
    subscription: Option<Subscription>,
}

/// Something to do for the maker.
pub(super) enum Event {
    /// Somebody has asked for a service.
    Asked(Summons),
    /// A look has ended.
    Looked(Found),
    /// It is time to look for idle services.
    Sweep,
}

impl Maker {
    /// A maker, and where services are asked for.
    pub(super) fn new() -> (Self, mpsc::Sender<Summons>) {
        let (ask, asked) = mpsc::channel(256);
        let maker = Self {
            asked,
            looks: JoinSet::new(),
            pending: HashMap::new(),
            refused: HashMap::new(),
            idle: HashMap::new(),
            sweep_at: now(),
            complained: false,
        };
        (maker, ask)
    }

    /// The next thing to do.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                Some(summons) = self.asked.recv() => return Event::Asked(summons),
                Some(look) = self.looks.join_next() => {
                    if let Ok(found) = look {
                        return Event::Looked(found);
                    }
                }
                () = sleep_until(self.sweep_at.into()) => return Event::Sweep,
            }
        }
    }

    /// Does it.
    pub(super) async fn handle(&mut self, event: Event, running: &mut Running) {
        match event {
            Event::Asked(summons) => self.asked(summons, running),
            Event::Looked(Found { name, reloads, .. }) if reloads != running.reloads => self.look(name, running),
            Event::Looked(Found { name, subscription, .. }) => {
                let Some(subscription) = subscription else {
                    self.answer(&name, None);
                    return self.refuse(name);
                };
                match self.take_in(&name, subscription, running).await {
                    Some(made) => self.answer(&name, Some(&made)),
                    None => drop(self.pending.remove(&name)),
                }
            }
            Event::Sweep => self.sweep(running).await,
        }
    }

    fn asked(&mut self, Summons { wanted, reply }: Summons, running: &Running) {
        let services = running.table.current().clone();
        let name = match wanted {
            Wanted::Named(name) => Some(name),
            Wanted::AtVip(vip) => remembered(vip, running),
        };
        let name = name.and_then(|name| services.summonable(name.as_str()));
        let Some(name) = name else { return drop(reply.send(None)) };
        if let Some(service) = services.find(name.as_str()) {
            // Whoever asks for it has yet to call it.
            service.ask_for();
            return drop(reply.send(Some(service.clone())));
        }
        if let Some(waiting) = self.pending.get_mut(&name) {
            if waiting.len() < WAITING {
                waiting.push(reply);
            }
            return;
        }
        if self.refused.get(&name).is_some_and(|until| now() < *until) {
            return drop(reply.send(None));
        }
        if self.looks.len() >= LOOKS {
            return;
        }
        self.pending.insert(name.clone(), vec![reply]);
        self.look(name, running);
    }

    /// Begins to look a name up, or to do so again where a reload has changed what is to be looked at.
    fn look(&mut self, name: ServiceName, running: &Running) {
        let services = running.table.current().clone();
        let there = services.find(name.as_str());
        let config = services.wildcard().filter(|_| there.is_none()).and_then(|wildcard| wildcard.service(&name));
        let Some(config) = config else { return self.answer(&name, there) };
        let subscription = running.wiring.look(&config, running.config.vip.as_ref());
        let limit = running.config.resolver.timeout + MARGIN;
        let reloads = running.reloads;
        self.looks.spawn(async move {
            let subscription = timeout(limit, settle(subscription)).await.unwrap_or_default();
            Found { name, reloads, subscription }
        });
    }

    /// Makes a service of a name that has endpoints, if there is room. Only now: names without any must not drive out
    /// services that are there.
    async fn take_in(
        &mut self,
        name: &ServiceName,
        subscription: Subscription,
        running: &mut Running,
    ) -> Option<Arc<Service>> {
        let services = running.table.current().clone();
        let limit = services.wildcard()?.services;
        if services.made().len() >= limit && services.find(name.as_str()).is_none() && !self.make_room(running).await {
            if !std::mem::replace(&mut self.complained, true) {
                tracing::warn!(service = %name, limit, "`*` has as many services as it may (limits.wildcard.services)");
            }
            return None;
        }
        make(name, subscription, running)
    }

    /// Answers all who wait for a name.
    fn answer(&mut self, name: &ServiceName, service: Option<&Arc<Service>>) {
        for reply in self.pending.remove(name).unwrap_or_default() {
            // Who has gone away needs no answer.
            let _ = reply.send(service.cloned());
        }
    }

    fn refuse(&mut self, name: ServiceName) {
        let now = now();
        if self.refused.len() >= REFUSED {
            self.refused.retain(|_, until| now < *until);
        }
        if self.refused.len() < REFUSED {
            self.refused.insert(name, now + REFUSED_FOR);
        }
    }

    /// Forgets services that nobody has called for long enough.
    async fn sweep(&mut self, running: &mut Running) {
        let now = now();
        let services = running.table.current().clone();
        let wildcard = services.wildcard().cloned();
        let pause = wildcard.as_ref().map_or(SWEEP.1, |wildcard| (wildcard.idle / 4).clamp(SWEEP.0, SWEEP.1));
        self.sweep_at = now + pause;
        let Some(wildcard) = wildcard else { return self.idle.clear() };
        self.note_idle(&services, now);
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= wildcard.idle;
        let over: Vec<_> = self.idle.iter().filter(|(_, since)| is_over(since)).map(|(name, _)| name.clone()).collect();
        self.forget(&over, running).await;
        self.complained &= services.made().len() >= wildcard.services;
    }

    fn note_idle(&mut self, services: &Services, now: Instant) {
        let mut before = std::mem::take(&mut self.idle);
        for service in services.made().iter().filter(|service| service.is_idle()) {
            let since = before.remove(service.name()).unwrap_or(now);
            self.idle.insert(service.name().clone(), since);
        }
    }

    /// Forgets the service that nobody has called for longest, if there is one that nobody calls.
    async fn make_room(&mut self, running: &mut Running) -> bool {
        let services = running.table.current().clone();
        self.note_idle(&services, now());
        let longest = self.idle.iter().min_by_key(|(_, since)| **since).map(|(name, _)| name.clone());
        let Some(name) = longest else { return false };
        self.forget(&[name], running).await;
        true
    }

    async fn forget(&mut self, names: &[ServiceName], running: &mut Running) {
        if names.is_empty() {
            return;
        }
        let services = running.table.current().clone();
        running.table.replace(services.without_made(names));
        for name in names {
            self.idle.remove(name);
            running.forget_made(&services, name).await;
            tracing::debug!(service = %name, "forgot a service of `*` that nobody calls");
        }
    }
}

impl Running {
    /// Lets go of what belonged to a service that was made and is in the table no more.
    pub(super) async fn forget_made(&mut self, old: &Services, name: &ServiceName) {
        self.wiring.forget(name).await;
        if let Some(vips) = &mut self.vips {
            vips.release(name);
        }
        if let Some(service) = old.find(name.as_str()) {
            service.retire_endpoints(now());
            self.metrics.forget(name.as_str());
        }
    }
}

/// The name that had an address, of those that no service has now.
fn remembered(vip: Ipv4Addr, running: &Running) -> Option<ServiceName> {
    running.vips.as_ref()?.last_of(vip).cloned()
}

/// Waits until a source has said something; the subscription only if it has found endpoints.
async fn settle(mut subscription: Subscription) -> Option<Subscription> {
    loop {
        {
            let snapshot = subscription.snapshots.borrow_and_update();
            if !snapshot.set.endpoints().is_empty() {
                break;
            }
            if snapshot.status.last_answer.is_some() || snapshot.status.problem.is_some() {
                return None;
            }
        }
        subscription.snapshots.changed().await.ok()?;
    }
    Some(subscription)
}

/// Puts a service into the table whose endpoints have been found.
fn make(name: &ServiceName, subscription: Subscription, running: &mut Running) -> Option<Arc<Service>> {
    let services = running.table.current().clone();
    if let Some(service) = services.find(name.as_str()) {
        return Some(service.clone());
    }
    let vip = match &mut running.vips {
        Some(vips) if running.config.has_vips_of_wildcard() && running.listeners.serve_any_vip() => vips.add(name).ok(),
        _ => None,
    };
    let (services, service) = services.with_made(name, vip, &running.metrics)?;
    service.discovered(&subscription.snapshots.borrow().set, now());
    running.table.replace(services);
    running.wiring.adopt(&service, subscription, running.config.resolver.hold);
    tracing::debug!(service = %name, ?vip, "made a service of `*`");
    Some(service)
}
