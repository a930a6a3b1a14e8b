//! DNS lookups, told apart finely enough that discovery can decide what an answer means.
//!
//! A general resolver folds "the name is gone", "it has no such record" and "the server is ill" into one
//! error, because a browser does not care. A pool of endpoints does: the first two may empty it, the
//! third must not. So this module keeps the [`Answer`] apart for each family, and leaves to hickory what
//! it does best: messages, random ids and ports, retransmission, TCP after a truncated answer.
//!
//! What is *ours*, and why:
//! - the order of servers ([`server`]): hickory stops at the first SERVFAIL; an operator who wrote
//!   two servers expects the second to be asked;
//! - the search list, by the rules of glibc ([`system`]);
//! - aliases (CNAME), also in front of SRV records;
//! - no cache: how long an answer is trusted is the business of the source that asked;
//! - no `/etc/hosts`: the sidecar's own lines for its VIPs may stand there, and would lead a lookup back
//!   to ourselves. `localhost` is answered here (RFC 6761 §6.3).
//!
//! Left out: DNSSEC validation, encrypted transports, mDNS.

mod server;
mod system;

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use tokio::{sync::Semaphore, time::Instant};

use self::server::{Reply, Roster};
pub use self::{server::Failure, system::System};
use crate::config;

/// Lookups that may be under way at once, so that a restart with thousands of services does not flood the
/// servers. A lookup is one or two queries at a time.
const IN_FLIGHT: usize = 64;
/// Aliases followed before an answer counts as a loop.
const MAX_ALIASES: usize = 16;
/// The TTL of an answer that never changes (`localhost`, an IP literal): more than any server can say.
pub const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Looks names up. Cheap to clone; clones share the servers and the limit on lookups in flight.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    timeout: Duration,
    servers: Vec<config::Nameserver>,
    system: System,
    roster: Mutex<Arc<Roster>>,
    in_flight: Semaphore,
}

/// What a lookup of one kind of record came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// These are the records.
    Found {
        /// At least one.
        records: Vec<T>,
        /// The lowest TTL on the way to them, unclamped.
        ttl: Duration,
    },
    /// The name is there and has no such record (NOERROR without an answer, RFC 2308 §2.2).
    NoRecords,
    /// The name is not there (NXDOMAIN, RFC 2308 §2.1).
    NoName,
    /// Nobody knows: SERVFAIL, REFUSED, silence, garbage.
    Failed(Failure),
}

impl<T> Answer<T> {
    /// Whether there are records.
    pub fn is_found(&self) -> bool {
        matches!(self, Self::Found { .. })
    }
}

/// The addresses of a host, by family: what one family came to says nothing of the other.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// From A records.
    pub v4: Answer<IpAddr>,
    /// From AAAA records.
    pub v6: Answer<IpAddr>,
}

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The lowest is used first.
    pub priority: u16,
    /// Its share within its priority, relative to its peers.
    pub weight: u16,
    /// Where the service listens.
    pub port: u16,
    /// The host, lower case, without its last dot; `.` means that the service is not offered (RFC 2782).
    pub host: Arc<str>,
}

/// What an SRV lookup came to.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The records.
    pub targets: Answer<Target>,
    /// Addresses that came with the answer, by host: a target found here needs no lookup of its own.
    pub glue: HashMap<Arc<str>, Vec<IpAddr>>,
}

/// A name that is asked for again and again.
///
/// It remembers under which of the names that the search list makes of it there was an answer last. While
/// that one cannot be asked, the ones behind it are not tried: they may be somebody else's.
#[derive(Debug, Clone)]
pub struct Question {
    host: Arc<str>,
    found_as: Option<Name>,
}

impl Question {
    /// A question for a host or a service name, as the config has it.
    pub fn new(host: &str) -> Self {
        Self { host: host.into(), found_as: None }
    }
}

/// Why a resolver cannot be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unusable {
    /// The settings name no server.
    #[error("no DNS server is configured")]
    NoServers,
    /// The DNS client could not be set up.
    #[error("the DNS client cannot be set up: {0}")]
    Client(String),
}

impl Resolver {
    /// A resolver that asks as the config says.
    ///
    /// Search domains and `ndots` are taken from resolv.conf if its servers are among those asked; a
    /// server that the config names is otherwise asked for a name as it is written.
    ///
    /// # Errors
    /// [`Unusable`] if there is no server to ask.
    pub fn new(settings: &config::Resolver) -> Result<Self, Unusable> {
        Self::with_system(settings, System::default())
    }

    /// Like [`new`](Self::new), with resolv.conf in another place.
    ///
    /// # Errors
    /// [`Unusable`] if there is no server to ask.
    pub fn with_system(settings: &config::Resolver, system: System) -> Result<Self, Unusable> {
        let roster = Arc::new(Roster::assemble(&settings.servers, &system, settings.timeout)?);
        Ok(Self(Arc::new(Shared {
            timeout: settings.timeout,
            servers: settings.servers.clone(),
            system,
            roster: Mutex::new(roster),
            in_flight: Semaphore::new(IN_FLIGHT),
        })))
    }

    /// The addresses of a host; A and AAAA are asked for together.
    ///
    /// An IP literal and `localhost` need no lookup. Takes no longer than the resolver's time-out, not
    /// counting the wait for its turn.
    pub async fn addresses(&self, question: &mut Question) -> Addresses {
        if let Some(known) = without_lookup(&question.host) {
            return known;
        }
        let _turn = self.turn().await;
        let deadline = Instant::now() + self.0.timeout;
        let roster = self.roster();
        let names = match roster.search().names(&question.host) {
            Ok(names) => names,
            Err(failure) => {
                return Addresses { v4: Answer::Failed(failure.clone()), v6: Answer::Failed(failure) };
            }
        };
        let mut v4 = Fold::new();
        let mut v6 = Fold::new();
        for name in names {
            let (a, aaaa) = tokio::join!(
                find(&roster, &name, RecordType::A, deadline),
                find(&roster, &name, RecordType::AAAA, deadline)
            );
            let (a, aaaa) = (addresses_in(a), addresses_in(aaaa));
            if a.is_found() || aaaa.is_found() {
                question.found_as = Some(name);
                return Addresses { v4: a, v6: aaaa };
            }
            let stop = v4.takes(a) | v6.takes(aaaa);
            if stop || (v4.failed() || v6.failed()) && question.found_as.as_ref() == Some(&name) {
                break;
            }
        }
        Addresses { v4: v4.end(), v6: v6.end() }
    }

    /// The SRV records of a name.
    ///
    /// Takes no longer than the resolver's time-out, not counting the wait for its turn.
    pub async fn targets(&self, question: &mut Question) -> Targets {
        let _turn = self.turn().await;
        let deadline = Instant::now() + self.0.timeout;
        let roster = self.roster();
        let mut fold = Fold::new();
        let names = match roster.search().names(&question.host) {
            Ok(names) => names,
            Err(failure) => return Targets { targets: Answer::Failed(failure), glue: HashMap::new() },
        };
        for name in names {
            match find(&roster, &name, RecordType::SRV, deadline).await {
                Ok((message, ttl)) => {
                    question.found_as = Some(name);
                    return targets_in(&message, ttl);
                }
                Err(answer) => {
                    let stop = fold.takes(answer);
                    if stop || fold.failed() && question.found_as.as_ref() == Some(&name) {
                        break;
                    }
                }
            }
        }
        Targets { targets: fold.end(), glue: HashMap::new() }
    }

    async fn turn(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.0.in_flight.acquire().await.expect("the semaphore is never closed")
    }

    /// The servers to ask, made anew when resolv.conf has changed: containers and laptops change networks.
    fn roster(&self) -> Arc<Roster> {
        let mut roster = self.0.roster.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stamp) = roster.outdated(&self.0.system) {
            match Roster::assemble(&self.0.servers, &self.0.system, self.0.timeout) {
                Ok(fresh) => {
                    tracing::info!(path = %self.0.system.path.display(), "resolv.conf has changed");
                    *roster = Arc::new(fresh);
                }
                Err(error) => {
                    tracing::warn!(%error, "resolv.conf has changed and cannot be used; the old one is kept");
                    roster.keep_in_spite_of(stamp);
                }
            }
        }
        Arc::clone(&roster)
    }
}

/// What several names of a search list come to when none of them had records.
///
/// As in glibc's `res_search`: a name that is not there, or a server that says it cannot answer, leads on
/// to the next name; silence ends the search. Unlike it, one failure outweighs all the "no"s, since the
/// name that could not be asked may be the one that is meant.
struct Fold<T> {
    worst: Answer<T>,
}

impl<T> Fold<T> {
    fn new() -> Self {
        Self { worst: Answer::NoName }
    }

    /// Takes in an answer without records; true if the search must end.
    fn takes(&mut self, answer: Answer<T>) -> bool {
        let silence = matches!(&answer, Answer::Failed(Failure { silence: true, .. }));
        match (&self.worst, &answer) {
            (Answer::Failed(_), _) | (Answer::NoRecords, Answer::NoName) => {}
            _ => self.worst = answer,
        }
        silence
    }

    fn failed(&self) -> bool {
        matches!(self.worst, Answer::Failed(_))
    }

    fn end(self) -> Answer<T> {
        self.worst
    }
}

/// Hosts that need no DNS: IP literals (also in brackets), and `localhost` with all below it.
fn without_lookup(host: &str) -> Option<Addresses> {
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let found = |addr: IpAddr| Answer::Found { records: vec![addr], ttl: FOREVER };
    match literal.parse() {
        Ok(addr @ IpAddr::V4(_)) => Some(Addresses { v4: found(addr), v6: Answer::NoRecords }),
        Ok(addr @ IpAddr::V6(_)) => Some(Addresses { v4: Answer::NoRecords, v6: found(addr) }),
        Err(_) if is_localhost(host) => {
            Some(Addresses { v4: found(Ipv4Addr::LOCALHOST.into()), v6: found(Ipv6Addr::LOCALHOST.into()) })
        }
        Err(_) => None,
    }
}

/// Whether a host is `localhost` or below it, which never leaves the machine (RFC 6761 §6.3).
pub fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    last.eq_ignore_ascii_case("localhost")
}

/// The records of a kind at one full name, with aliases followed: a message whose answers are these records
/// alone, and the lowest TTL on the way. The error is an answer without records.
async fn find<T>(
    roster: &Roster,
    name: &Name,
    kind: RecordType,
    deadline: Instant,
) -> Result<(Message, Duration), Answer<T>> {
    let mut name = name.clone();
    let mut ttl = u32::MAX;
    for _ in 0..MAX_ALIASES {
        let mut message = match roster.ask(&name, kind, deadline).await {
            Ok(Reply::Message(message)) => message,
            Ok(Reply::NoRecords) => return Err(Answer::NoRecords),
            Ok(Reply::NoName) => return Err(Answer::NoName),
            Err(failure) => return Err(Answer::Failed(failure)),
        };
        match follow(&message, &name, kind) {
            Followed::To(end, until) => {
                message.answers.retain(|r| r.name == end && r.record_type() == kind);
                return Ok((message, Duration::from_secs(ttl.min(until).into())));
            }
            Followed::Onward(alias, until) => {
                // An authority that sent its SOA along has answered for the alias too (RFC 2308 §2.2).
                if message.metadata.response_code == ResponseCode::NXDomain {
                    return Err(Answer::NoName);
                }
                if message.authorities.iter().any(|r| r.record_type() == RecordType::SOA) {
                    return Err(Answer::NoRecords);
                }
                ttl = ttl.min(until);
                name = alias;
            }
            Followed::Nowhere if message.metadata.response_code == ResponseCode::NXDomain => {
                return Err(Answer::NoName);
            }
            Followed::Nowhere => return Err(Answer::NoRecords),
            Followed::Loop => break,
        }
    }
    Err(Answer::Failed(Failure::answered(format!("{name} is an alias that leads nowhere"))))
}

/// Where the aliases of one message lead, with the lowest TTL on the way.
enum Followed {
    /// To a name that has records in this message.
    To(Name, u32),
    /// To a name that has none here.
    Onward(Name, u32),
    /// There is neither record nor alias for the name.
    Nowhere,
    /// In a circle.
    Loop,
}

fn follow(message: &Message, from: &Name, kind: RecordType) -> Followed {
    let mut name = from.clone();
    let mut ttl = u32::MAX;
    for _ in 0..MAX_ALIASES {
        let lowest = message.answers.iter().filter(|r| r.name == name && r.record_type() == kind).map(ttl_of).min();
        if let Some(lowest) = lowest {
            return Followed::To(name, ttl.min(lowest));
        }
        let alias = message.answers.iter().filter(|r| r.name == name).find_map(|r| match &r.data {
            RData::CNAME(alias) => Some((alias.0.clone(), ttl_of(r))),
            _ => None,
        });
        match alias {
            Some((next, t)) => {
                ttl = ttl.min(t);
                name = next;
            }
            None if &name == from => return Followed::Nowhere,
            None => return Followed::Onward(name, ttl),
        }
    }
    Followed::Loop
}

fn addresses_in(found: Result<(Message, Duration), Answer<IpAddr>>) -> Answer<IpAddr> {
    let (message, ttl) = match found {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let records: Vec<IpAddr> = message.answers.iter().filter_map(|r| address(&r.data)).collect();
    if records.is_empty() { Answer::NoRecords } else { Answer::Found { records, ttl } }
}

/// A record's TTL in seconds; 32 bits are a TTL of 0 (RFC 2181 §8).
fn ttl_of(record: &Record) -> u32 {
    if record.ttl > i32::MAX as u32 { 0 } else { record.ttl }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}

fn targets_in(message: &Message, mut ttl: Duration) -> Targets {
    let mut records = Vec::new();
    for record in &message.answers {
        if let RData::SRV(srv) = &record.data {
            let host = host_of(&srv.target);
            records.push(Target { priority: srv.priority, weight: srv.weight, port: srv.port, host });
        }
    }
    let hosts: HashSet<Arc<str>> = records.iter().map(|t| Arc::clone(&t.host)).collect();
    let mut glue: HashMap<Arc<str>, Vec<IpAddr>> = HashMap::new();
    for record in &message.additionals {
        let Some(addr) = address(&record.data) else { continue };
        let host = host_of(&record.name);
        if hosts.contains(&host) {
            ttl = ttl.min(Duration::from_secs(ttl_of(record).into()));
            glue.entry(host).or_default().push(addr);
        }
    }
    let targets = if records.is_empty() { Answer::NoRecords } else { Answer::Found { records, ttl } };
    Targets { targets, glue }
}

fn host_of(name: &Name) -> Arc<str> {
    let text = name.to_ascii().to_ascii_lowercase();
    match text.strip_suffix('.') {
        Some("") | None => text.into(),
        Some(host) => host.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_lookup_gets_none() {
        let v4 = without_lookup("10.1.2.3").unwrap();
        assert!(v4.v4.is_found() && !v4.v6.is_found());
        let v6 = without_lookup("[fd00::1]").unwrap();
        assert!(!v6.v4.is_found() && v6.v6.is_found());
        for host in ["localhost", "LocalHost.", "a.localhost"] {
            let both = without_lookup(host).unwrap();
            assert!(both.v4.is_found() && both.v6.is_found(), "{host}");
        }
        for host in ["orders", "localhost.lan", "notlocalhost", "10.1.2", "[orders]"] {
            assert!(without_lookup(host).is_none(), "{host}");
        }
    }

    #[test]
    fn a_failure_outweighs_every_no() {
        let failed = |silence| Answer::<IpAddr>::Failed(Failure { why: "x".into(), silence });
        let fold = |answers: Vec<Answer<IpAddr>>| {
            let mut fold = Fold::new();
            let stopped = answers.into_iter().any(|a| fold.takes(a));
            (fold.end(), stopped)
        };
        assert_eq!(fold(vec![Answer::NoName, Answer::NoName]), (Answer::NoName, false));
        assert_eq!(fold(vec![Answer::NoRecords, Answer::NoName]), (Answer::NoRecords, false));
        assert_eq!(fold(vec![failed(false), Answer::NoName]), (failed(false), false));
        assert_eq!(fold(vec![Answer::NoRecords, failed(true), Answer::NoName]), (failed(true), true));
    }
}
