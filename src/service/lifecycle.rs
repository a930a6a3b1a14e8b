//! Whether the sidecar is ready, and why not.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
};

use super::{Table, lock};

/// Where the process is in its life. Shared by everybody, cheap to clone.
#[derive(Debug, Clone)]
pub struct Lifecycle(Arc<State>);

#[derive(Debug)]
struct State {
    table: Table,
    phase: AtomicU8,
    /// Services that have not had an endpoint yet, of those that the process started with.
    cold: Mutex<BTreeSet<String>>,
}

const RUNNING: u8 = 0;
const DRAINING: u8 = 1;
const STOPPING: u8 = 2;

/// The answer to a readiness probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Calls can be served.
    Ready,
    /// Not yet, or no more; a sentence each for a person.
    NotReady(Vec<String>),
}

impl Lifecycle {
    /// The life of a process that starts with the services of this table.
    pub fn new(table: Table) -> Self {
        let cold = table.current().iter().map(|service| service.name().to_string()).collect();
        Self(Arc::new(State { table, phase: AtomicU8::new(RUNNING), cold: Mutex::new(cold) }))
    }

    /// Ready is: not draining, and each service that the process started with has had an endpoint once.
    ///
    /// Once is enough. A service that loses its endpoints later answers `no_endpoints`; to restart the
    /// sidecar for that, as container platforms do with what is not ready, would take the others down too.
    pub fn readiness(&self) -> Readiness {
        match self.0.phase.load(Ordering::Relaxed) {
            DRAINING => return Readiness::NotReady(vec!["draining".into()]),
            STOPPING => return Readiness::NotReady(vec!["stopping".into()]),
            _ => {}
        }
        let mut cold = lock(&self.0.cold);
        let services = self.0.table.current();
        cold.retain(|name| {
            services.named(name).is_some_and(|service| service.endpoints().set().endpoints().is_empty())
        });
        if cold.is_empty() {
            return Readiness::Ready;
        }
        let why = cold.iter().map(|name| {
            let problem = services.named(name).and_then(|service| service.source_status().problem);
            match problem {
                Some(problem) => format!("{name}: no endpoints yet ({problem})"),
                None => format!("{name}: no endpoints yet"),
            }
        });
        Readiness::NotReady(why.collect())
    }

    /// Not ready from now on, while calls go on.
    pub fn start_draining(&self) {
        let _ = self.0.phase.compare_exchange(RUNNING, DRAINING, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Not ready from now on, for good.
    pub fn start_stopping(&self) {
        self.0.phase.store(STOPPING, Ordering::Relaxed);
    }
}
