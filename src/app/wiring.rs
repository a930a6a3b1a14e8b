//! From discovery to services: the one place where the two meet.

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    config::{self, Config, Wildcard},
    discovery::{Discovery, Guard, Nudge, Snapshot, Subscription},
    model::ServiceName,
    service::{Service, SourceLink, SourceStatus, Table, now},
};

/// Who watches the sources of the services in the table.
#[derive(Debug)]
pub(super) struct Wiring {
    discovery: Discovery,
    table: Table,
    watched: HashMap<ServiceName, JoinHandle<()>>,
}

impl Wiring {
    /// Watches nothing yet.
    pub(super) fn new(discovery: Discovery, table: Table) -> Self {
        Self { discovery, table, watched: HashMap::new() }
    }

    /// Watches every service that is not watched yet: those of the config, and those that were made.
    pub(super) fn watch(&mut self, config: &Config) {
        let services = self.table.current().clone();
        let declared = services.declared().map(|service| (service, false));
        for (service, undeclared) in declared.chain(services.made().iter().map(|service| (service, true))) {
            if self.watched.contains_key(service.name()) {
                continue;
            }
            let guard = Guard { vips: config.vip.as_ref().map(|vip| vip.range), undeclared };
            let label = service.metrics().label();
            let subscription = self.discovery.watch_guarded(service.name(), label, &service.config().source, guard);
            self.adopt(service, subscription, config.resolver.hold);
        }
    }

    /// Begins to look at the source of a service that is not there yet.
    pub(super) fn look(&self, config: &config::Service, vip: Option<&config::Vip>) -> Subscription {
        let guard = Guard { vips: vip.map(|vip| vip.range), undeclared: true };
        self.discovery.watch_guarded(&config.name, Wildcard::NAME, &config.source, guard)
    }

    /// Watches a service by a subscription that is there already.
    pub(super) fn adopt(&mut self, service: &Service, subscription: Subscription, hold: Duration) {
        let (nudge, snapshots) = (subscription.nudge.clone(), subscription.snapshots.clone());
        service.link(Link { nudge, snapshots });
        let name = service.name().clone();
        let carry = Carry { table: self.table.clone(), name: name.clone(), hold };
        if let Some(before) = self.watched.insert(name, tokio::spawn(carry.run(subscription))) {
            before.abort();
        }
    }

    /// Has other servers asked from now on: every source is watched anew.
    pub(super) fn replace_discovery(&mut self, discovery: Discovery) {
        self.discovery = discovery;
        self.watched.drain().for_each(|(_, task)| task.abort());
    }

    /// Stops watching a service; when this returns, nothing is looked at or counted for it any more.
    pub(super) async fn forget(&mut self, name: &ServiceName) {
        if let Some(task) = self.watched.remove(name) {
            task.abort();
            let _ = task.await;
        }
    }
}

/// Carries what a source finds to its service, whichever version of that is current.
struct Carry {
    table: Table,
    name: ServiceName,
    hold: Duration,
}

impl Carry {
    async fn run(self, mut subscription: Subscription) {
        // A service whose source was changed by a reload still has the endpoints of the one before. Should the
        // new one answer that it has none, they are held as long as endpoints are that their own source denies.
        let mut inherited_until = None;
        loop {
            {
                let snapshot = subscription.snapshots.borrow_and_update();
                let found = snapshot.set.revision() > 0;
                let denied = !found && snapshot.status.last_answer.is_some();
                inherited_until = inherited_until.or_else(|| now().checked_add(self.hold)).filter(|_| denied);
                if let Some(service) = self.table.current().named(self.name.as_str()) {
                    service.discovered(&snapshot.set, now());
                }
            }
            tokio::select! {
                changed = subscription.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = until(inherited_until) => {
                    if let Some(service) = self.table.current().named(self.name.as_str()) {
                        service.none_discovered(now());
                    }
                    if subscription.snapshots.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

async fn until(time: Option<std::time::Instant>) {
    match time {
        Some(time) => sleep_until(Instant::from_std(time)).await,
        None => std::future::pending().await,
    }
}

/// What a service knows of its source.
struct Link {
    nudge: Nudge,
    snapshots: watch::Receiver<Snapshot>,
}

impl SourceLink for Link {
    fn look_early(&self) {
        self.nudge.now();
    }

    fn status(&self) -> SourceStatus {
        let status = &self.snapshots.borrow().status;
        SourceStatus { last_answer: status.last_answer, problem: status.problem.clone(), drop_at: status.drop_at }
    }
}
