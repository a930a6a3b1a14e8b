//! DNS lookups, told apart finely enough that discovery can decide what an answer means.
//!
//! A general resolver folds "the name is gone", "it has no such record" and "the server is ill" into one
//! error, because a browser does not care. A pool of endpoints does: the first two may empty it, the
//! third must not. So this module keeps the [`Answer`] apart for each family, and leaves to hickory what
//! it does best: messages, random ids and ports, retransmission, TCP after a truncated answer.
//!
//! What is *ours*, and why:
//! - the order of servers (`server`): hickory stops at the first SERVFAIL; an operator who wrote
//!   two servers expects the second to be asked;
//! - the search list, by the rules of glibc (`system`);
//! - aliases (CNAME), also in front of SRV records;
//! - no cache: how long an answer is trusted is the business of the source that asked;
//! - no `/etc/hosts`: the sidecar's own lines for its VIPs may stand there, and would lead a lookup back
//!   to ourselves. `localhost` is answered here (RFC 6761 §6.3);
//! - a responder in this process is not asked, on no way (`ourselves`).
//!
//! That responder passes questions on through here, too (`relay`), by the same order of servers.
//!
//! Left out: DNSSEC validation, encrypted transports, mDNS.

mod answer;
mod ourselves;
mod relay;
mod server;
mod system;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{sync::Semaphore, time::Instant};

pub use self::{
    answer::{Addresses, Answer, Target, Targets},
    ourselves::{Ourselves, Sent},
    relay::{Relay, Relayed},
    server::Failure,
    system::System,
};
use self::{
    answer::{Followed, addresses_in, follow, targets_in},
    server::{Asked, Reply, Roster},
};
use crate::config;

/// Lookups that may be under way at once, so that a restart with thousands of services does not flood the
/// servers. A lookup is one or two queries at a time.
const IN_FLIGHT: usize = 64;
/// No lookup takes longer, whatever the config says.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
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
        let timeout = settings.timeout.min(MAX_TIMEOUT);
        let roster = Arc::new(Roster::assemble(&settings.servers, &system, timeout)?);
        Ok(Self(Arc::new(Shared {
            timeout,
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
        // Boxed: of the thousands that wait for their turn none needs the room of a lookup.
        Box::pin(self.ask_for_addresses(question)).await
    }

    async fn ask_for_addresses(&self, question: &mut Question) -> Addresses {
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
        Box::pin(self.ask_for_targets(question)).await
    }

    async fn ask_for_targets(&self, question: &mut Question) -> Targets {
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
                // Half-written, or gone for a moment: servers that were there are better than a guess, or than none.
                Ok(fresh) if fresh.is_guess() && !roster.is_empty() => roster.keep_in_spite_of(stamp),
                // Docker writes the file anew whenever a container joins, to say what it said before.
                Ok(fresh) if fresh.says_the_same(&roster) => roster.keep_in_spite_of(stamp),
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
        let mut message = match roster.ask(&Asked::lookup(&name, kind), deadline).await {
            Ok(Reply::Message(message)) => message,
            Ok(Reply::NoRecords(_)) => return Err(Answer::NoRecords),
            Ok(Reply::NoName(_)) => return Err(Answer::NoName),
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
