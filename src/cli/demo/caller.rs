//! A caller at a steady rate: the app of the demo.
//!
//! It is an open loop: calls fall due by the clock, whether or not the last one has returned, as they
//! do for a service with many users. A closed loop would slow down together with a slow upstream and
//! hide what it wants to measure. For the same reason a call that was sent over ten milliseconds after
//! it fell due counts as late, and its latency runs from when it was due. So many calls may be
//! outstanding and no more; what falls due beyond that is not sent, and is counted too.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    cast::is_grpc,
    client::{self, Client, ClientError, To},
    grpc,
    statistics::{Ended, NoAnswer, Statistics},
};

/// Calls outstanding at once, over all services: below the 1,024 descriptors that a shell commonly grants.
pub(crate) const OUTSTANDING: usize = 500;
/// What the timer's own coarseness may cost before a call counts as late.
const LATE: Duration = Duration::from_millis(10);
/// A call that is as late as this is not sent at all: the machine was asleep, or is hopelessly busy.
const TOO_LATE: Duration = Duration::from_secs(1);
/// How long the app itself waits.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whom to call, through what, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    /// The sidecar; without it services are called by their names alone.
    pub via: Option<SocketAddr>,
    /// The services, in the order of the statistics.
    pub services: Vec<String>,
    /// Calls per second to each service.
    pub rate: u32,
    /// Calls that may be outstanding at once, over all services.
    pub outstanding: usize,
}

impl Calls {
    /// When the `number`th call (from 0) is due, since the start: evenly spaced, services in turn.
    fn due(&self, number: u64) -> Duration {
        let per_second = u128::from(self.rate) * self.services.len() as u128;
        let nanos = u128::from(number) * 1_000_000_000 / per_second.max(1);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Calls and counts until it is dropped; `start` is the statistics' zero.
    pub(crate) async fn make(self, start: Instant, statistics: Arc<Mutex<Statistics>>) {
        // By name, each has connections of its own.
        let clients: Vec<_> = match self.via {
            Some(via) => {
                let shared = Arc::new(Client::new(via));
                self.services.iter().map(|_| shared.clone()).collect()
            }
            None => self.services.iter().map(|_| Arc::new(Client::to(To::Name))).collect(),
        };
        let grpc = self.via.map(|via| Arc::new(grpc::Client::new(via)));
        let mut outstanding = JoinSet::new();
        for number in 0u64.. {
            let due = start + self.due(number);
            wait_until(due, &mut outstanding).await;
            let service = (number % self.services.len().max(1) as u64) as usize;
            let Some(name) = self.services.get(service).cloned() else { return };
            let now = Instant::now();
            let lateness = now - due;
            if outstanding.len() >= self.outstanding || lateness >= TOO_LATE {
                lock(&statistics).unsent(service, now - start);
                continue;
            }
            let late = lateness >= LATE;
            let began = if late { due } else { now };
            let (client, grpc, statistics) = (Arc::clone(&clients[service]), grpc.clone(), Arc::clone(&statistics));
            outstanding.spawn(async move {
                let answer = timeout(PATIENCE, async {
                    if let Some(grpc) = grpc.filter(|_| is_grpc(&name)) {
                        let answer = grpc.call(&name).await?;
                        return Ok((grpc::status(&answer), answer.into_parts().0.headers));
                    }
                    let answer = client.get(&name, "/").await?;
                    Ok::<_, ClientError>((answer.status(), answer.into_parts().0.headers))
                });
                let (outcome, instance) = match answer.await {
                    Ok(Ok((status, headers))) => (Ok(client::outcome(status, &headers)), client::instance(&headers)),
                    Ok(Err(_)) | Err(_) => (Err(NoAnswer), None),
                };
                let end = Instant::now();
                let call = Ended { service, at: end - start, took: end - began, late, outcome, instance };
                lock(&statistics).ended(&call);
            });
        }
    }
}

/// Clears ended calls away until it is time for the next.
async fn wait_until(due: Instant, outstanding: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            biased;
            Some(_) = outstanding.join_next() => {}
            () = sleep_until(due) => return,
        }
    }
}

/// The statistics; whoever panicked with them in hand left counts that are at worst one short.
pub(crate) fn lock(statistics: &Mutex<Statistics>) -> std::sync::MutexGuard<'_, Statistics> {
    statistics.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::demo::{character::Character, upstream::Upstream};

    fn calls(via: SocketAddr, services: &[&str], rate: u32) -> Calls {
        Calls {
            via: Some(via),
            services: services.iter().map(|&name| name.to_owned()).collect(),
            rate,
            outstanding: OUTSTANDING,
        }
    }

    #[test]
    fn calls_are_due_evenly_however_long_it_runs() {
        let calls = calls("127.0.0.1:1".parse().unwrap(), &["a", "b", "c"], 100);
        assert_eq!(calls.due(0), Duration::ZERO);
        assert_eq!(calls.due(1), Duration::from_nanos(3_333_333));
        assert_eq!(calls.due(300 * 86_400), Duration::from_secs(86_400), "no drift in a day");
        assert_eq!(calls.due(u64::MAX), Duration::from_nanos(u64::MAX), "and no overflow ever");
    }

    /// Runs the caller until so many calls have ended.
    async fn until(calls: Calls, ended: u64) -> Statistics {
        let statistics = Arc::new(Mutex::new(Statistics::new(calls.services.iter().map(String::as_str))));
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        tokio::select! {
            () = calls.make(Instant::now(), Arc::clone(&statistics)) => panic!("it stopped calling"),
            () = async {
                while lock(&statistics).services.iter().map(|service| service.total.calls).sum::<u64>() < ended {
                    looks.tick().await;
                }
            } => {}
        }
        lock(&statistics).clone()
    }

    #[tokio::test]
    async fn every_service_is_called_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let via = listener.local_addr().unwrap();
        let upstream = Arc::new(Upstream::new("any", "any-1", Character::Steady, Instant::now()));
        tokio::spawn(upstream.serve(listener));
        let statistics = until(calls(via, &["a", "b"], 500), 40).await;
        for service in &statistics.services {
            assert!(service.total.calls >= 15, "{} was called {} times", service.name, service.total.calls);
            assert_eq!(service.total.ok(), service.total.calls);
            assert_eq!(service.total.instances.iter().map(|name| &**name).collect::<Vec<_>>(), ["any-1"]);
        }
    }

    #[tokio::test]
    async fn a_sidecar_that_is_not_there_is_no_answer() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let statistics = until(calls(gone, &["a"], 500), 10).await;
        assert_eq!(statistics.services[0].total.no_answer, statistics.services[0].total.calls);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_sent_is_counted_and_memory_stays_bounded() {
        // It takes connections and never answers, so every call stays outstanding.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let calls = Calls { outstanding: 10, ..calls(listener.local_addr().unwrap(), &["a"], 10_000) };
        let statistics = Arc::new(Mutex::new(Statistics::new(["a"])));
        let counted = Arc::clone(&statistics);
        tokio::select! {
            () = calls.make(Instant::now(), counted) => panic!("it stopped calling"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        let total = lock(&statistics).services[0].total.clone();
        assert!((180..=191).contains(&total.unsent), "{} of 200 calls were not sent", total.unsent);
        assert_eq!(total.calls, 0);
    }
}
