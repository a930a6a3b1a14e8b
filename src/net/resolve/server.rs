//! The servers to ask, in order, and what to do with one that does not answer.
//!
//! A server that says it cannot answer (SERVFAIL, REFUSED, …) costs nothing: the next one is asked at
//! once. One that is silent costs time, so each gets a fair share of what is left of the lookup, and is
//! then asked last for a while: one dead server in resolv.conf must not slow every lookup of thousands
//! of services. When the while is over, a single lookup finds out whether it is back; the others go on
//! without it.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverOpts},
    net::{
        DnsError, NetError,
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle, FirstAnswer},
    },
    proto::{
        op::{DnsRequestOptions, DnsResponse, Message, Query, ResponseCode},
        rr::{Name, RecordType},
    },
};
use tokio::time::Instant;

use super::{
    Unusable,
    system::{Search, Stamp, System},
};
use crate::config::Nameserver;

/// How long a silent server is asked last.
const SUSPECT_FOR: Duration = Duration::from_secs(10);
/// Queries that may be outstanding on one TCP connection.
const PER_CONNECTION: usize = 256;

/// Why a lookup could not be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Who said or did what, for an operator.
    pub why: Arc<str>,
    /// Whether some server was silent or out of reach, rather than unwilling.
    pub silence: bool,
}

impl Failure {
    /// There was an answer, but not a usable one.
    pub(super) fn answered(why: impl Into<Arc<str>>) -> Self {
        Self { why: why.into(), silence: false }
    }

    /// There was none.
    fn silent(why: impl Into<Arc<str>>) -> Self {
        Self { why: why.into(), silence: true }
    }
}

/// What a server says of one name and kind of record.
pub(super) enum Reply {
    /// There are records, or aliases.
    Message(Message),
    NoRecords,
    NoName,
}

/// The servers to ask and the names to ask for.
pub(super) struct Roster {
    servers: Vec<Server>,
    search: Search,
    /// The resolv.conf that this was made from; `None` if it plays no part.
    made_from: Mutex<Option<Stamp>>,
}

struct Server {
    addr: SocketAddr,
    pool: NameServerPool<TokioRuntimeProvider>,
    suspect_until: Mutex<Option<Instant>>,
}

impl Roster {
    pub(super) fn assemble(servers: &[Nameserver], system: &System, timeout: Duration) -> Result<Self, Unusable> {
        let mut addrs = Vec::new();
        let mut search = Search::none();
        let mut made_from = None;
        for server in servers {
            match server {
                Nameserver::At(addr) => addrs.push(*addr),
                Nameserver::System => {
                    made_from = Some(system.stamp());
                    let (servers, domains) = system.read()?;
                    addrs.extend(servers);
                    search = domains;
                }
            }
        }
        let mut seen = std::collections::HashSet::new();
        addrs.retain(|addr| seen.insert(*addr));
        if addrs.is_empty() {
            return Err(Unusable::NoServers);
        }
        let servers = addrs.into_iter().map(|addr| Server::new(addr, timeout)).collect::<Result<_, _>>()?;
        Ok(Self { servers, search, made_from: Mutex::new(made_from) })
    }

    pub(super) fn search(&self) -> &Search {
        &self.search
    }

    /// The new stamp of resolv.conf, if it is another one than this roster was made from.
    pub(super) fn outdated(&self, system: &System) -> Option<Stamp> {
        let made_from = self.made_from.lock().unwrap_or_else(PoisonError::into_inner);
        let old = made_from.as_ref()?;
        Some(system.stamp()).filter(|new| new != old)
    }

    /// Stays in use although resolv.conf says something else, until it changes again.
    pub(super) fn keep_in_spite_of(&self, stamp: Stamp) {
        *self.made_from.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
    }

    /// Asks one server after the other until one knows.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType, deadline: Instant) -> Result<Reply, Failure> {
        let order = self.order(Instant::now());
        let mut whys: Vec<String> = Vec::new();
        let mut silence = false;
        for (i, server) in order.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(order.len() - i).unwrap_or(u32::MAX);
            match server.ask(name, kind, share).await {
                Ok(reply) => {
                    server.trust();
                    return Ok(reply);
                }
                Err(failure) => {
                    if failure.silence {
                        server.suspect(Instant::now());
                    }
                    silence |= failure.silence;
                    whys.push(format!("{}: {}", server.addr, failure.why));
                }
            }
        }
        // Suspects change places; the text must not, or each look would seem to be another problem.
        whys.sort_unstable();
        Err(Failure { why: whys.join("; ").into(), silence })
    }

    /// The servers as configured, those that were silent of late behind the others.
    fn order(&self, now: Instant) -> Vec<&Server> {
        let (mut order, suspects): (Vec<_>, Vec<_>) = self.servers.iter().partition(|s| s.is_due(now));
        order.extend(suspects);
        order
    }
}

impl Server {
    fn new(addr: SocketAddr, timeout: Duration) -> Result<Self, Unusable> {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = addr.port();
            connection
        });
        let server = NameServerConfig::new(addr.ip(), true, connections.into());
        let mut options = ResolverOpts::default();
        options.timeout = timeout;
        options.attempts = 0; // what is tried again, and when, is decided here
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = PER_CONNECTION;
        let tls = TlsConfig::new().map_err(|e| Unusable::Client(e.to_string()))?;
        let pool = NameServerPool::from_config(
            [server],
            Arc::new(PoolContext::new(options, tls)),
            TokioRuntimeProvider::default(),
        );
        Ok(Self { addr, pool, suspect_until: Mutex::new(None) })
    }

    async fn ask(&self, name: &Name, kind: RecordType, share: Duration) -> Result<Reply, Failure> {
        let exchange = async {
            let answer = self.exchange(name, kind, true).await;
            match answer {
                // A server from before EDNS says so, or claims not to understand (RFC 6891 §7).
                Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::FormErr | ResponseCode::NotImp))) => {
                    self.exchange(name, kind, false).await
                }
                answer => answer,
            }
        };
        match tokio::time::timeout(share, exchange).await {
            Ok(answer) => read(answer),
            Err(_) => Err(Failure::silent("no answer in time")),
        }
    }

    async fn exchange(&self, name: &Name, kind: RecordType, edns: bool) -> Result<DnsResponse, NetError> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = edns;
        self.pool.lookup(Query::query(name.clone(), kind), options).first_answer().await
    }

    /// Whether the server takes its place in the order. A suspect whose time is over does so for one
    /// lookup; until that has ended, it stays a suspect to all others.
    fn is_due(&self, now: Instant) -> bool {
        let mut until = self.suspect_until.lock().unwrap_or_else(PoisonError::into_inner);
        match *until {
            None => true,
            Some(over) if over <= now => {
                *until = Some(now + SUSPECT_FOR);
                true
            }
            Some(_) => false,
        }
    }

    fn suspect(&self, now: Instant) {
        *self.suspect_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + SUSPECT_FOR);
    }

    fn trust(&self) {
        *self.suspect_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What an answer means; hickory hands "nothing there" over as an error.
fn read(answer: Result<DnsResponse, NetError>) -> Result<Reply, Failure> {
    match answer {
        Ok(response) => match response.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(Reply::Message(response.into_message())),
            code => Err(Failure::answered(word(code))),
        },
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain => Ok(Reply::NoName),
            // Only pointers to other servers: it does not look further for us, and knows nothing itself.
            ResponseCode::NoError if none.ns.is_some() && none.soa.is_none() => {
                Err(Failure::answered("refers to other servers"))
            }
            ResponseCode::NoError => Ok(Reply::NoRecords),
            code => Err(Failure::answered(word(code))),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(Failure::answered(word(code))),
        Err(NetError::Timeout) => Err(Failure::silent("no answer in time")),
        Err(error @ (NetError::Io(_) | NetError::NoConnections | NetError::Busy)) => {
            Err(Failure::silent(error.to_string()))
        }
        Err(error) => Err(Failure::answered(error.to_string())),
    }
}

/// The word that operators know a response code by (RFC 1035 §4.1.1, RFC 2136 §2.2).
fn word(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        other => format!("{other}"),
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|s| s.addr)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_server_is_asked_last_until_one_lookup_has_tried_it_again() {
        let at = |text: &str| Nameserver::At(text.parse().unwrap());
        let servers = [at("192.0.2.1:53"), at("192.0.2.2:53")];
        let roster = Roster::assemble(&servers, &System::default(), Duration::from_secs(2)).unwrap();
        let first = |now| roster.order(now)[0].addr.ip().to_string();
        let start = Instant::now();
        assert_eq!(first(start), "192.0.2.1");
        roster.servers[0].suspect(start);
        assert_eq!(first(start), "192.0.2.2");
        let later = start + SUSPECT_FOR;
        assert_eq!(first(later), "192.0.2.1", "one lookup tries it");
        assert_eq!(first(later), "192.0.2.2", "the next one does not wait for that");
        roster.servers[0].trust();
        assert_eq!(first(later), "192.0.2.1");
    }
}
