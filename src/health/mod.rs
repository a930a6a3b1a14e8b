//! Active health checks: each endpoint of a service that wants it is asked now and then how it is.
//!
//! One task on the control thread keeps the time of all checks; each check is a task of its own, with a connection of
//! its own, and no more than [`AT_ONCE`] of them run together. What they find goes to the service, where it is one
//! more reason to be out of rotation, beside what the calls themselves find out (`policy::ejection`). That an endpoint
//! is up is said once. That it is down is said again with each check: it may have had to stay because others were
//! out, and must go when they are back.

mod check;
mod rota;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};

use crate::{
    model::{Random, ServiceName},
    policy::health::Record,
    service::{Live, Table, now},
    telemetry::Metrics,
};
use check::Check;
use rota::Rota;

/// How many checks run together.
const AT_ONCE: usize = 64;

/// How often to look which endpoints there are.
const LOOK: Duration = Duration::from_millis(250);

/// Which endpoint of which service.
type Whom = (ServiceName, SocketAddr);

/// Checks that run, each with what it will have found.
type Asking = JoinSet<(Whom, Result<(), String>)>;

/// One endpoint under watch.
#[derive(Debug)]
struct Watched {
    record: Record,
    live: Arc<Live>,
}

/// Checks whatever the table says, for as long as it is polled.
pub async fn watch(table: Table, metrics: Metrics, seed: u64) {
    let (random, rota) = (Random::seeded(seed), Rota::default());
    let mut watch = Watch { table, metrics, random, watched: HashMap::new(), rota };
    let mut asking = Asking::new();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = watch.ask(&mut asking);
        tokio::select! {
            _ = look.tick() => watch.look(),
            () = sleep_until(next.into()) => {}
            Some(Ok((whom, said))) = asking.join_next(), if !asking.is_empty() => watch.heard(whom, &said),
        }
    }
}

struct Watch {
    table: Table,
    metrics: Metrics,
    random: Random,
    watched: HashMap<Whom, Watched>,
    /// When each of those under watch is asked again, unless it is being asked.
    rota: Rota<Whom>,
}

impl Watch {
    /// Takes in who is new, to be asked at once, and lets go of who is gone.
    fn look(&mut self) {
        let (services, now) = (self.table.current(), now());
        let mut before = std::mem::take(&mut self.watched);
        for service in services.iter().filter(|service| service.config().policy.health_check.is_some()) {
            for live in service.endpoints().live() {
                let (whom, live) = ((service.name().clone(), live.endpoint().addr), live.clone());
                let watched = match before.remove(&whom) {
                    Some(Watched { record, .. }) => Watched { record, live },
                    None => {
                        self.rota.set(whom.clone(), now);
                        Watched { record: Record::default(), live }
                    }
                };
                self.watched.insert(whom, watched);
            }
        }
        for whom in before.into_keys() {
            self.rota.strike(&whom);
            // Nobody checks it any more, so nobody could ever find it up again.
            if let Some(service) = services.named(whom.0.as_str()) {
                service.checked(whom.1, true, now);
            }
        }
    }

    /// Asks those who are due, as far as there are places; when to see to that again.
    fn ask(&mut self, asking: &mut Asking) -> Instant {
        let (services, now) = (self.table.current(), now());
        while asking.len() < AT_ONCE
            && let Some(whom) = self.rota.next(now)
        {
            let Some(watched) = self.watched.get(&whom) else { continue };
            let Some(check) = services.named(whom.0.as_str()).and_then(|service| Check::of(service.config())) else {
                // A reload has just ended its checks; the next look will let go of it.
                self.rota.set(whom, now + LOOK);
                continue;
            };
            let live = watched.live.clone();
            asking.spawn(async move { (whom, check.run(&live).await) });
        }
        // Where no place is left, the end of a check wakes us.
        let due = self.rota.first().filter(|_| asking.len() < AT_ONCE);
        due.unwrap_or(now + LOOK)
    }

    /// A check has ended.
    fn heard(&mut self, whom: Whom, said: &Result<(), String>) {
        let (services, now) = (self.table.current(), now());
        let (name, addr) = &whom;
        let Some(Watched { record, .. }) = self.watched.get_mut(&whom) else { return };
        let service = services.named(name.as_str());
        let Some((service, settings)) = service.and_then(|s| Some((s, s.config().policy.health_check.as_ref()?)))
        else {
            self.rota.set(whom, now + LOOK);
            return;
        };
        self.metrics.health_checked(name.as_str(), said.is_ok());
        let change = record.record(settings, said.is_ok());
        if let (Some(false), Err(why)) = (change, said) {
            tracing::warn!(service = %name, endpoint = %addr, why, "health checks fail");
        }
        if change.is_some() || record.is_down() {
            service.checked(*addr, !record.is_down(), now);
        }
        // A tenth more or less, so that many endpoints are not asked in one moment for ever.
        let pause = settings.every.mul_f64(0.9 + 0.2 * self.random.share());
        self.rota.set(whom, now + pause);
    }
}
