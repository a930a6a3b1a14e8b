//! Active health checks: each endpoint of a service that wants it is asked now and then how it is.
//!
//! One task on the control thread keeps the time of all checks; each check is a task of its own, with a connection of
//! its own, and no more than [`AT_ONCE`] of them run together. What they find goes to the service, where it is one
//! more reason to be out of rotation, beside what the calls themselves find out (`policy::ejection`).

mod check;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    model::{Random, ServiceName},
    policy::health::{Record, Settings},
    service::{Live, Table, now},
    telemetry::Metrics,
};

/// How many checks run together.
const AT_ONCE: usize = 64;

/// How often to look which endpoints there are, when no check is due before.
const LOOK: Duration = Duration::from_millis(250);

/// Which endpoint of which service.
type Whom = (ServiceName, SocketAddr);

/// One endpoint under watch.
#[derive(Debug, Default)]
struct Watched {
    record: Record,
    /// When it is asked again; `None` while it is being asked.
    due: Option<Instant>,
}

/// Checks whatever the table says, for as long as it is polled.
pub async fn watch(table: Table, metrics: Metrics, seed: u64) {
    let mut watch = Watch { table, metrics, random: Random::seeded(seed), watched: HashMap::new() };
    let mut asking: JoinSet<(Whom, Result<(), String>)> = JoinSet::new();
    loop {
        let next = watch.look(&mut asking);
        tokio::select! {
            () = sleep_until(next.into()) => {}
            Some(Ok((whom, said))) = asking.join_next(), if !asking.is_empty() => watch.heard(whom, said),
        }
    }
}

struct Watch {
    table: Table,
    metrics: Metrics,
    random: Random,
    watched: HashMap<Whom, Watched>,
}

impl Watch {
    /// Asks whoever is due, takes in who is new and lets go of who is gone; when to look again.
    fn look(&mut self, asking: &mut JoinSet<(Whom, Result<(), String>)>) -> Instant {
        let (services, now) = (self.table.current(), now());
        let mut next = now + LOOK;
        let mut there = HashSet::new();
        for service in services.iter() {
            let Some(settings) = &service.config().policy.health_check else { continue };
            for live in service.endpoints().live() {
                let whom = (service.name().clone(), live.endpoint().addr);
                there.insert(whom.clone());
                let watched = self
                    .watched
                    .entry(whom.clone())
                    .or_insert_with(|| Watched { due: Some(now), ..Watched::default() });
                match watched.due {
                    Some(due) if due <= now && asking.len() < AT_ONCE => {
                        watched.due = None;
                        asking.spawn(ask(whom, settings.clone(), live.clone()));
                    }
                    Some(due) if due > now => next = next.min(due),
                    _ => {}
                }
            }
        }
        // Nobody checks them any more, so nobody could ever find them up again.
        for (name, addr) in self.watched.keys().filter(|whom| !there.contains(whom)) {
            if let Some(service) = services.named(name.as_str()) {
                service.checked(*addr, true, now);
            }
        }
        self.watched.retain(|whom, _| there.contains(whom));
        next
    }

    /// A check has ended.
    fn heard(&mut self, (name, addr): Whom, said: Result<(), String>) {
        let services = self.table.current();
        let Some(service) = services.named(name.as_str()) else { return };
        let Some(settings) = &service.config().policy.health_check else { return };
        let Some(watched) = self.watched.get_mut(&(name.clone(), addr)) else { return };
        let now = now();
        // A tenth more or less, so that many endpoints are not asked in one moment for ever.
        watched.due = Some(now + settings.every.mul_f64(0.9 + 0.2 * self.random.share()));
        self.metrics.health_checked(name.as_str(), said.is_ok());
        if let Some(up) = watched.record.record(settings, said.is_ok()) {
            if let Err(why) = &said {
                tracing::warn!(service = %name, endpoint = %addr, why, "health checks fail");
            }
            service.checked(addr, up, now);
        }
    }
}

async fn ask(whom: Whom, settings: Settings, live: Arc<Live>) -> (Whom, Result<(), String>) {
    let deadline = now() + settings.timeout;
    let said = match tokio::time::timeout_at(deadline.into(), check::check(&settings.probe, &live, deadline)).await {
        Ok(said) => said,
        Err(_) => Err(format!("no answer within {:?}", settings.timeout)),
    };
    (whom, said)
}
