//! From a message to its reply: the shell round the decisions, with their clock, their locks and their counters.
//!
//! Everything runs on one thread, so that no lock is ever waited for. What can be answered at once is; a question that
//! must be passed on is a task of its own, one a question and not one a client.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use hickory_resolver::proto::op::{Message, ResponseCode};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    Settings,
    answer::{self, Rules, Verdict},
    cache::Cache,
    client::Client,
    filter::{self, Known},
    flights::{Boarded, Flights},
    message::{self, Read},
    rate::{Admission, Rates},
    udp::Udp,
    zone::Zone,
};
use crate::{
    config::is_of_this_host,
    model::ServiceName,
    net::resolve::{Ourselves, Relay, Resolver},
    service::{Services, Table, Undecided, now},
    telemetry::{DnsMetrics, metrics::DnsResult},
};

/// Services that are being made at once.
const SUMMONING: usize = 256;
/// How long a service may take to be made; a client waits no longer.
const SUMMON: Duration = Duration::from_secs(5);

/// What a responder goes by, until it is told otherwise.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) settings: Settings,
    /// Who is asked for other names; `None` where they are refused.
    pub(super) resolver: Option<Resolver>,
    /// Whether it has been said that there is nobody to ask.
    pub(super) told: AtomicBool,
}

/// All of a responder but its loops.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) table: Table,
    pub(super) setup: ArcSwap<Setup>,
    pub(super) ourselves: Ourselves,
    pub(super) metrics: Arc<DnsMetrics>,
    pub(super) udp: Udp,
    pub(super) state: State,
}

/// What a responder remembers.
#[derive(Debug)]
pub(super) struct State {
    zone: Mutex<Option<Arc<Zone>>>,
    rates: Mutex<Rates>,
    cache: Mutex<Cache>,
    flights: Mutex<Flights<Waiting>>,
    summoning: Arc<Semaphore>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            zone: Mutex::default(),
            rates: Mutex::default(),
            cache: Mutex::default(),
            flights: Mutex::default(),
            summoning: Arc::new(Semaphore::new(SUMMONING)),
        }
    }
}

/// Who waits for the answer to a question that is passed on.
#[derive(Debug)]
struct Waiting {
    query: Message,
    client: Client,
}

impl Server {
    /// The socket for datagrams.
    pub(super) fn udp(&self) -> &Udp {
        &self.udp
    }

    /// Goes by other settings from now on.
    pub(super) fn reconfigure(&self, setup: Setup) {
        let forgets = self.setup.load().settings.dns.forward != setup.settings.dns.forward;
        self.setup.store(Arc::new(setup));
        if forgets {
            lock(&self.state.cache).clear();
        }
    }

    /// Answers a message, at once or later, or not at all.
    pub(super) fn handle(self: &Arc<Self>, bytes: &[u8], client: Client) {
        let setup = self.setup.load();
        let admission = match client.may_be_forged() {
            true => lock(&self.state.rates).admit(client.address(), setup.settings.dns.rate, now()),
            false => Admission::Answer,
        };
        match (admission, message::read(bytes)) {
            (Admission::Answer, Read::Query(query)) => {
                self.decide(query, client, &setup, setup.settings.summon.is_some())
            }
            (Admission::Answer, Read::Bad(reply)) => {
                self.metrics.query_ended(DnsResult::Malformed);
                client.send(reply.to_vec(), &self.udp);
            }
            (Admission::Answer, Read::Nothing) => self.metrics.query_ended(DnsResult::Malformed),
            (Admission::Truncate, Read::Query(query)) => {
                self.end(&query, client, &message::truncated(&query), DnsResult::Limited);
            }
            (Admission::Truncate | Admission::Drop, _) => self.metrics.query_ended(DnsResult::Limited),
        }
    }

    fn decide(self: &Arc<Self>, query: Message, client: Client, setup: &Setup, wildcard: bool) {
        let services = self.table.current();
        let zone = self.zone(&services);
        let rules = self.rules(&zone, &services, setup, &client, wildcard);
        match answer::answer(&query, &rules) {
            Verdict::Reply(reply, result) => self.end(&query, client, &reply, result),
            Verdict::Forward(relay) => self.forward(relay, query, client),
            Verdict::Summon(name) => self.summon(name, query, client),
            Verdict::Loop(sent) => {
                if let Some(resolver) = &setup.resolver {
                    resolver.looped(sent);
                }
                self.end(&query, client, &message::failure(&query, ResponseCode::Refused), DnsResult::Refused);
            }
        }
    }

    fn rules<'a>(
        &'a self,
        zone: &'a Zone,
        services: &'a Services,
        setup: &Setup,
        client: &Client,
        wildcard: bool,
    ) -> Rules<'a> {
        let dns = &setup.settings.dns;
        let address = client.address().to_canonical();
        let is_trusted = is_of_this_host(address) || dns.recursion.iter().any(|net| net.contains(&address));
        Rules {
            zone,
            services,
            bare: dns.bare,
            ttl: u32::try_from(dns.ttl.as_secs()).unwrap_or(u32::MAX).min(i32::MAX as u32),
            // To make a service is to ask for somebody else's name, too.
            wildcard: wildcard && is_trusted,
            recursion: setup.resolver.is_some() && is_trusted,
            ourselves: &self.ourselves,
        }
    }

    /// Our names, made anew when there are other services.
    fn zone(&self, services: &Arc<Services>) -> Arc<Zone> {
        let mut zone = lock(&self.state.zone);
        if let Some(zone) = zone.as_ref().filter(|zone| zone.is_of(services)) {
            return zone.clone();
        }
        let fresh = Arc::new(Zone::new(services));
        if zone.as_ref().is_some_and(|zone| !zone.claims_as(&fresh)) {
            // What is kept was held against other names of ours.
            lock(&self.state.cache).clear();
        }
        zone.insert(fresh).clone()
    }

    fn end(&self, query: &Message, client: Client, reply: &Message, result: DnsResult) {
        self.metrics.query_ended(result);
        client.reply(query, reply, &self.udp);
    }

    fn forward(self: &Arc<Self>, relay: Relay, query: Message, client: Client) {
        if let Some((known, age)) = lock(&self.state.cache).get(&relay, now()) {
            self.tell(&query, client, &known, age, DnsResult::Cached);
            return;
        }
        let boarded = lock(&self.state.flights).board(&relay, Waiting { query, client });
        match boarded {
            Boarded::First => drop(tokio::spawn(self.clone().fly(relay))),
            Boarded::Along => {}
            Boarded::Full(Waiting { query, client }) => {
                let failure = message::failure(&query, ResponseCode::ServFail);
                self.end(&query, client, &failure, DnsResult::Failed);
            }
        }
    }

    /// Passes a question on, and tells all who wait for it.
    async fn fly(self: Arc<Self>, relay: Relay) {
        let mut flight =
            Flight { server: &self, relay: &relay, known: Arc::new(Known::failure(ResponseCode::ServFail)) };
        let known = flight.server.ask(&relay).await;
        flight.known = Arc::new(known);
    }

    async fn ask(&self, relay: &Relay) -> Known {
        let setup = self.setup.load_full();
        let Some(resolver) = setup.resolver.as_ref().filter(|resolver| resolver.has_servers()) else {
            if !setup.told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "names of others are refused: the only DNS server of this system is this responder itself; \
                     name one to ask, as `dns: {{ forward: [IP] }}`"
                );
            }
            return Known::failure(ResponseCode::Refused);
        };
        match resolver.relay(relay).await {
            Ok(relayed) => {
                let zone = self.zone(&self.table.current());
                filter::believed(relay, relayed, &zone)
            }
            Err(failure) => {
                tracing::debug!(question = %relay.query, why = %failure.why, "no forwarder has answered");
                Known::failure(ResponseCode::ServFail)
            }
        }
    }

    /// Tells a client what is known of its question, since so long.
    fn tell(&self, query: &Message, client: Client, known: &Known, age: Duration, result: DnsResult) {
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let mut reply = message::failure(query, known.code);
        reply.metadata.recursion_available = known.code != ResponseCode::Refused;
        reply.answers.clone_from(&known.answers);
        reply.authorities.clone_from(&known.authorities);
        for record in reply.answers.iter_mut().chain(&mut reply.authorities) {
            record.decrement_ttl(age);
        }
        let result = match known.code {
            ResponseCode::ServFail => DnsResult::Failed,
            ResponseCode::Refused => DnsResult::Refused,
            _ => result,
        };
        self.end(query, client, &reply, result);
    }

    fn summon(self: &Arc<Self>, name: ServiceName, query: Message, client: Client) {
        let setup = self.setup.load_full();
        let place = self.state.summoning.clone().try_acquire_owned();
        let (Some(summon), Ok(place)) = (setup.settings.summon.clone(), place) else {
            let failure = message::failure(&query, ResponseCode::ServFail);
            self.end(&query, client, &failure, DnsResult::Failed);
            return;
        };
        let server = self.clone();
        tokio::spawn(async move {
            let _place = place;
            let made = timeout(SUMMON, summon.ask(name)).await;
            let setup = server.setup.load_full();
            match made {
                Ok(Ok(Some(service))) => {
                    let services = server.table.current();
                    let zone = server.zone(&services);
                    let rules = server.rules(&zone, &services, &setup, &client, true);
                    if let Verdict::Reply(reply, result) = answer::summoned(&query, &service, &rules) {
                        server.end(&query, client, &reply, result);
                    }
                }
                Ok(Ok(None)) => server.decide(query, client, &setup, false),
                // "There is no such name" would be kept, for a name that may well be there.
                Ok(Err(Undecided)) | Err(_) => {
                    let failure = message::failure(&query, ResponseCode::ServFail);
                    server.end(&query, client, &failure, DnsResult::Failed);
                }
            }
        });
    }
}

/// A question that is being passed on. When it is dropped, however that comes about, nobody waits for it any more.
struct Flight<'a> {
    server: &'a Server,
    relay: &'a Relay,
    known: Arc<Known>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let waiting = lock(&self.server.state.flights).land(self.relay);
        lock(&self.server.state.cache).put(self.relay, &self.known, now());
        for Waiting { query, client } in waiting {
            self.server.tell(&query, client, &self.known, Duration::ZERO, DnsResult::Forwarded);
        }
    }
}

/// Locks, whatever happened to the last holder: the critical sections here leave nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
