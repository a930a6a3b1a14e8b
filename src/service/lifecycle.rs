//! Where the process is in its life: whether it is ready, and why not; whether it has been asked to stop.
//!
//! Ready is: discovery is warm, or has had `ready.limit` to become so, and no stop has begun. A service is warm once
//! it has had an endpoint. Once is enough: a service that loses its endpoints later answers `no_endpoints`; to restart
//! the sidecar for that, as container platforms do with what is not ready, would take the others down too. For the same
//! reason the wait has a limit: one name that does not resolve must not keep an app down that could do most of its
//! work.
//!
//! How a stop proceeds is not told here but in `app`.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{Table, lock, now};

/// Where the process is in its life. Shared by everybody, cheap to clone.
#[derive(Debug, Clone)]
pub struct Lifecycle(Arc<State>);

#[derive(Debug)]
struct State {
    table: Table,
    phase: AtomicU8,
    warmth: Mutex<Warmth>,
    stop: Notify,
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
    /// The life of a process that starts now, with the services of this table. It waits `limit` for their endpoints;
    /// `None` waits for all of them.
    pub fn new(table: Table, limit: Option<Duration>) -> Self {
        let cold = table.current().iter().map(|service| service.name().to_string()).collect();
        let warmth = Mutex::new(Warmth { started: now(), limit, cold });
        Self(Arc::new(State { table, phase: AtomicU8::new(RUNNING), warmth, stop: Notify::new() }))
    }

    /// Whether calls are welcome. Who asks first after the limit has passed has it logged which services are cold.
    pub fn readiness(&self) -> Readiness {
        match self.0.phase.load(Ordering::Relaxed) {
            DRAINING => return Readiness::NotReady(vec!["draining".into()]),
            STOPPING => return Readiness::NotReady(vec!["stopping".into()]),
            _ => {}
        }
        let services = self.0.table.current();
        let why_cold = |name: &str| {
            let service = services.named(name).filter(|service| service.endpoints().set().endpoints().is_empty())?;
            Some(match service.source_status().problem {
                Some(problem) => format!("{name}: no endpoints yet ({problem})"),
                None => format!("{name}: no endpoints yet"),
            })
        };
        match lock(&self.0.warmth).look(now(), why_cold) {
            Verdict::Warm => Readiness::Ready,
            Verdict::GivenUp(why) => {
                tracing::warn!(
                    services = why.len(),
                    why = why.join("; "),
                    "ready after ready.limit, with services that have no endpoints"
                );
                Readiness::Ready
            }
            Verdict::Cold(why) => Readiness::NotReady(why),
        }
    }

    /// Waits for endpoints so long from the start on; `None` waits for all. What is ready stays so.
    pub fn set_limit(&self, limit: Option<Duration>) {
        lock(&self.0.warmth).limit = limit;
    }

    /// Not ready from now on, while calls go on.
    pub fn start_draining(&self) {
        let _ = self.0.phase.compare_exchange(RUNNING, DRAINING, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Not ready from now on, for good.
    pub fn start_stopping(&self) {
        self.0.phase.store(STOPPING, Ordering::Relaxed);
    }

    /// Asks whoever runs the sidecar to stop it, which is not ready from now on. To ask again changes nothing.
    pub fn ask_to_stop(&self) {
        self.start_draining();
        self.0.stop.notify_one();
    }

    /// Waits until somebody has asked for a stop. For one who waits: a question that has been heard is gone.
    pub async fn stop_asked(&self) {
        self.0.stop.notified().await;
    }
}

/// Services that have not had an endpoint yet, of those that the process started with, and how long that matters.
#[derive(Debug)]
struct Warmth {
    started: Instant,
    limit: Option<Duration>,
    cold: BTreeSet<String>,
}

/// What a look at the services came to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// None is cold, or it does not matter any more.
    Warm,
    /// These are, and may have more time.
    Cold(Vec<String>),
    /// These are, and their time is over; said once.
    GivenUp(Vec<String>),
}

impl Warmth {
    /// `why_cold` tells of a service why it has no endpoints; `None` when it has some, or is no service any more.
    fn look(&mut self, now: Instant, why_cold: impl Fn(&str) -> Option<String>) -> Verdict {
        let mut why = Vec::new();
        self.cold.retain(|name| match why_cold(name) {
            Some(reason) => {
                why.push(reason);
                true
            }
            None => false,
        });
        let is_over = self.limit.is_some_and(|limit| now.saturating_duration_since(self.started) >= limit);
        match (why.is_empty(), is_over) {
            (true, _) => Verdict::Warm,
            (false, false) => Verdict::Cold(why),
            (false, true) => {
                self.cold.clear();
                // Who does not want to wait at all needs no warning that nothing was waited for.
                if self.limit == Some(Duration::ZERO) { Verdict::Warm } else { Verdict::GivenUp(why) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{
        config::Config,
        model::{Endpoint, EndpointSet, Origin, SourceKind},
        service::Services,
        telemetry::Metrics,
    };

    /// Services without endpoints.
    fn table(names: &[&str]) -> Table {
        let services: String = names.iter().map(|name| format!("{name}: {{dns: '{name}:80'}}, ")).collect();
        let config = Config::parse("t.yaml", &format!("services: {{{services}}}"), &|_| None).unwrap().config;
        Table::new(Services::new(&config, &Metrics::new(), None, 1, &HashMap::new(), None, now()).unwrap())
    }

    fn warm(table: &Table, name: &str) {
        let endpoint = Endpoint {
            addr: ([10, 0, 0, 1], 80).into(),
            weight: 1,
            priority: 0,
            authority: "a:80".into(),
            origin: Origin { kind: SourceKind::Static, detail: "config".into() },
        };
        table.current().named(name).unwrap().discovered(&EndpointSet::new(1, vec![endpoint]), now());
    }

    fn why(life: &Lifecycle) -> Vec<String> {
        match life.readiness() {
            Readiness::Ready => Vec::new(),
            Readiness::NotReady(why) => why,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ready_is_when_each_service_has_had_an_endpoint_once() {
        let table = table(&["a", "b"]);
        let life = Lifecycle::new(table.clone(), None);
        assert_eq!(why(&life), ["a: no endpoints yet", "b: no endpoints yet"]);
        warm(&table, "a");
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(why(&life), ["b: no endpoints yet"], "without a limit there is no hurry");
        table.current().named("a").unwrap().none_discovered(now());
        warm(&table, "b");
        assert_eq!(life.readiness(), Readiness::Ready, "once is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_it_is_ready_for_good() {
        let life = Lifecycle::new(table(&["a"]), Some(Duration::from_secs(30)));
        tokio::time::advance(Duration::from_millis(29_999)).await;
        assert_eq!(why(&life).len(), 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(life.readiness(), Readiness::Ready);
        life.set_limit(None);
        assert_eq!(life.readiness(), Readiness::Ready, "what was ready does not become cold by a reload");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_changes_the_limit_either_way() {
        let life = Lifecycle::new(table(&["a"]), Some(Duration::from_secs(10)));
        life.set_limit(Some(Duration::from_secs(60)));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(why(&life).len(), 1);
        life.set_limit(Some(Duration::from_secs(20)));
        assert_eq!(life.readiness(), Readiness::Ready, "it counts from the start");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_not_ready_whatever_is_warm() {
        let life = Lifecycle::new(table(&[]), None);
        assert_eq!(life.readiness(), Readiness::Ready);
        life.start_draining();
        assert_eq!(why(&life), ["draining"]);
        life.start_stopping();
        life.start_draining();
        assert_eq!(why(&life), ["stopping"], "there is no way back");
    }

    #[tokio::test(start_paused = true)]
    async fn to_ask_for_a_stop_is_heard_by_who_waits_later_too() {
        let life = Lifecycle::new(table(&[]), None);
        life.ask_to_stop();
        assert_eq!(why(&life), ["draining"], "whoever has been answered sees it");
        life.ask_to_stop();
        life.stop_asked().await;
        assert!(tokio::time::timeout(Duration::from_secs(1), life.stop_asked()).await.is_err());
    }

    #[test]
    fn who_was_cold_at_the_limit_is_told_once() {
        let started = now();
        let mut warmth =
            Warmth { started, limit: Some(Duration::from_secs(5)), cold: ["a".to_owned(), "b".to_owned()].into() };
        let only_b = |name: &str| (name == "b").then(|| "b: SERVFAIL".to_owned());
        assert_eq!(warmth.look(started, only_b), Verdict::Cold(vec!["b: SERVFAIL".into()]));
        let late = started + Duration::from_secs(5);
        assert_eq!(warmth.look(late, only_b), Verdict::GivenUp(vec!["b: SERVFAIL".into()]));
        assert_eq!(warmth.look(late, only_b), Verdict::Warm);
    }

    #[test]
    fn who_does_not_wait_is_not_warned() {
        let mut warmth = Warmth { started: now(), limit: Some(Duration::ZERO), cold: ["a".to_owned()].into() };
        assert_eq!(warmth.look(now(), |_| Some("cold".into())), Verdict::Warm);
    }
}
