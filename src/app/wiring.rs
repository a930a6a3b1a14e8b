//! From discovery to services: the one place where the two meet.

use std::collections::HashMap;

use tokio::{sync::watch, task::AbortHandle};

use crate::{
    config::Config,
    discovery::{Discovery, Nudge, Snapshot, Subscription},
    model::ServiceName,
    service::{SourceLink, SourceStatus, Table, now},
};

/// Who watches the sources of the services in the table.
#[derive(Debug)]
pub(super) struct Wiring {
    discovery: Discovery,
    table: Table,
    watched: HashMap<ServiceName, AbortHandle>,
}

impl Wiring {
    /// Watches nothing yet.
    pub(super) fn new(discovery: Discovery, table: Table) -> Self {
        Self { discovery, table, watched: HashMap::new() }
    }

    /// Watches every service of the config that is not watched yet.
    pub(super) fn watch(&mut self, config: &Config) {
        for (name, settings) in &config.services {
            if self.watched.contains_key(name) {
                continue;
            }
            let subscription = self.discovery.watch(name, &settings.source);
            if let Some(service) = self.table.current().find(name.as_str()) {
                let (nudge, snapshots) = (subscription.nudge.clone(), subscription.snapshots.clone());
                service.link(Link { nudge, snapshots });
            }
            let task = tokio::spawn(carry(self.table.clone(), name.clone(), subscription));
            self.watched.insert(name.clone(), task.abort_handle());
        }
    }

    /// Has other servers asked from now on: every source is watched anew.
    pub(super) fn replace_discovery(&mut self, discovery: Discovery) {
        self.discovery = discovery;
        self.watched.drain().for_each(|(_, task)| task.abort());
    }

    /// Stops watching a service.
    pub(super) fn forget(&mut self, name: &ServiceName) {
        if let Some(task) = self.watched.remove(name) {
            task.abort();
        }
    }
}

/// Carries what a source finds to its service, whichever version of that is current.
async fn carry(table: Table, name: ServiceName, mut subscription: Subscription) {
    loop {
        {
            let snapshot = subscription.snapshots.borrow_and_update();
            if let Some(service) = table.current().find(name.as_str()) {
                service.discovered(&snapshot.set, now());
            }
        }
        if subscription.snapshots.changed().await.is_err() {
            return;
        }
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
        SourceStatus {
            last_answer: status.last_answer,
            problem: status.problem.clone(),
            drop_at: status.drop_at,
        }
    }
}
