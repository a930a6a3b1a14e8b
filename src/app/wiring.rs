//! From discovery to services: the one place where the two meet.

use std::collections::HashMap;

use tokio::task::AbortHandle;

use crate::{
    config::Config,
    discovery::{Discovery, Snapshot, Subscription},
    model::ServiceName,
    service::{Service, SourceStatus, Table, now},
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
                let nudge = subscription.nudge.clone();
                service.on_connect_failure(move || nudge.now());
            }
            let task = tokio::spawn(carry(self.table.clone(), name.clone(), subscription));
            self.watched.insert(name.clone(), task.abort_handle());
        }
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
                hand_over(service, &snapshot);
            }
        }
        if subscription.snapshots.changed().await.is_err() {
            return;
        }
    }
}

fn hand_over(service: &Service, snapshot: &Snapshot) {
    let status = SourceStatus {
        last_answer: snapshot.status.last_answer,
        problem: snapshot.status.problem.clone(),
        drop_at: snapshot.status.drop_at,
    };
    service.discovered(&snapshot.set, status, now());
}
