//! The servers to ask, in order, and what to do with one that does not answer.
//!
//! A server that says it cannot answer (SERVFAIL, REFUSED, …) costs nothing: the next one is asked at
//! once. One that is silent costs time, so each gets a fair share of what is left of the lookup, and is
//! then asked last for a while: one dead server in resolv.conf must not slow every lookup of thousands
//! of services. When the while is over, a single lookup finds out whether it is back; the others go on
//! without it.
//!
//! A server that only asks us in turn is not asked at all for a while.

use std::{
    collections::HashSet,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolverOpts},
    net::{
        DnsError, NetError, NoRecords,
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle, FirstAnswer},
    },
    proto::{
        op::{DnsRequest, DnsRequestOptions, DnsResponse, Message, Query, ResponseCode},
        rr::{Name, Record, RecordType},
    },
};
use tokio::time::Instant;

use super::{
    Ourselves, Sent, Unusable,
    system::{Search, Stamp, System},
};
use crate::config::Nameserver;

/// How long a silent server is asked last.
const SUSPECT_FOR: Duration = Duration::from_secs(10);
/// How long a server is not asked that asks us in turn, and how old an answer of its own may be that tells against that.
const LOOP_FOR: Duration = Duration::from_secs(30);
/// Queries that may be outstanding on one TCP connection.
const PER_CONNECTION: usize = 256;

/// Why nobody is asked, and what to do about it.
const NOBODY: &str = "every DNS server that is configured is this sidecar's own responder: name others, as IP, in \
                      `resolver: { servers: [IP] }` and `dns: { forward: [IP] }`";

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
    pub(super) fn silent(why: impl Into<Arc<str>>) -> Self {
        Self { why: why.into(), silence: true }
    }
}

/// What a server is asked.
pub(super) struct Asked {
    pub(super) query: Query,
    pub(super) dnssec_ok: bool,
    pub(super) checking_disabled: bool,
    /// Whether it is somebody else's question.
    pub(super) relayed: bool,
    /// A server that must not be asked.
    pub(super) except: Option<Sent>,
}

impl Asked {
    /// For records of one kind.
    pub(super) fn lookup(name: &Name, kind: RecordType) -> Self {
        let query = Query::query(name.clone(), kind);
        Self { query, dnssec_ok: false, checking_disabled: false, relayed: false, except: None }
    }
}

/// What a server says of one name and kind of record.
pub(super) enum Reply {
    /// There are records, or aliases.
    Message(Message),
    /// None of the kind, with what the authority section says.
    NoRecords(Vec<Record>),
    /// No such name, with what the authority section says.
    NoName(Vec<Record>),
}

/// The servers to ask and the names to ask for.
pub(super) struct Roster {
    servers: Vec<Server>,
    search: Search,
    /// Whether nobody named a server, so that 127.0.0.1 is asked, or nobody where that is ourselves.
    guess: bool,
    /// The responder of this process, whose mark queries bear.
    ourselves: Option<Ourselves>,
    /// The resolv.conf that this was made from; `None` if it plays no part.
    made_from: Mutex<Option<Stamp>>,
}

struct Server {
    addr: SocketAddr,
    timeout: Duration,
    /// Replaced when the server was silent: one of its TCP connections may be stuck (the peer's machine is
    /// gone, a firewall has forgotten it), and hickory would go on using it until the kernel gives it up.
    pool: Mutex<Pool>,
    suspect_until: Mutex<Option<Instant>>,
    turns: Mutex<Turns>,
}

/// Whether a server asks us in turn, or has answers of its own.
#[derive(Default)]
struct Turns {
    last_answer: Option<Instant>,
    loop_until: Option<Instant>,
}

type Pool = NameServerPool<TokioRuntimeProvider>;

impl Roster {
    pub(super) fn assemble(servers: &[Nameserver], system: &System, timeout: Duration) -> Result<Self, Unusable> {
        let mut addrs = Vec::new();
        let mut search = Search::none();
        let mut made_from = None;
        let mut left_out = false;
        for server in servers {
            match server {
                Nameserver::At(addr) => addrs.push(*addr),
                Nameserver::System => {
                    made_from = Some(system.stamp());
                    let found = system.read()?;
                    addrs.extend(found.servers);
                    search = found.search;
                    left_out |= found.names_ourselves;
                }
            }
        }
        let mut seen = HashSet::new();
        let named = addrs.len();
        addrs.retain(|addr| !system.is_ourselves(*addr));
        left_out |= addrs.len() < named;
        addrs.retain(|addr| seen.insert(*addr));
        let guess = addrs.is_empty();
        if guess && !left_out {
            if made_from.is_none() {
                return Err(Unusable::NoServers);
            }
            addrs.push(system.by_default());
        }
        let servers = addrs.into_iter().map(|addr| Server::new(addr, timeout)).collect::<Result<_, _>>()?;
        let ourselves = system.ourselves.clone();
        Ok(Self { servers, search, guess, ourselves, made_from: Mutex::new(made_from) })
    }

    /// Whether nobody named a server.
    pub(super) fn is_guess(&self) -> bool {
        self.guess
    }

    /// Whether there is nobody to ask.
    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty()
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

    /// Whether another roster asks the same servers for the same names.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let servers = |roster: &Self| roster.servers.iter().map(|server| server.addr).collect::<Vec<_>>();
        self.search == other.search && servers(self) == servers(other)
    }

    /// Stays in use although resolv.conf says something else, until it changes again.
    pub(super) fn keep_in_spite_of(&self, stamp: Stamp) {
        *self.made_from.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
    }

    /// Asks one server after the other until one knows.
    pub(super) async fn ask(&self, asked: &Asked, deadline: Instant) -> Result<Reply, Failure> {
        let mut order = self.order(Instant::now());
        order.retain(|server| !asked.except.is_some_and(|except| except.is_to(server.addr)));
        if order.is_empty() {
            return Err(Failure::answered(match self.servers.is_empty() {
                true => NOBODY,
                false => "every DNS server that is configured asks this sidecar in turn",
            }));
        }
        let mut whys: Vec<String> = Vec::new();
        let mut silence = false;
        let servers = u32::try_from(order.len()).unwrap_or(u32::MAX);
        for (server, not_asked) in order.iter().zip((1..=servers).rev()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / not_asked;
            match server.ask(asked, self.ourselves.as_ref(), share).await {
                Ok(reply) => {
                    server.trust(Instant::now());
                    return Ok(reply);
                }
                Err(failure) => {
                    // The end of the lookup's time is no sign of a silent server.
                    if failure.silence && share * 2 * servers >= server.timeout {
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

    /// The server that a query was sent to asks us in turn.
    pub(super) fn looped(&self, sent: Sent, now: Instant) {
        self.servers.iter().filter(|server| sent.is_to(server.addr)).for_each(|server| server.looped(now));
    }

    /// The servers as configured, those that were silent of late behind the others, and without those that ask us.
    fn order(&self, now: Instant) -> Vec<&Server> {
        let askable = self.servers.iter().filter(|server| !server.is_loop(now));
        let (mut order, suspects): (Vec<_>, Vec<_>) = askable.partition(|s| s.is_due(now));
        order.extend(suspects);
        order
    }
}

impl Server {
    fn new(addr: SocketAddr, timeout: Duration) -> Result<Self, Unusable> {
        let pool = Mutex::new(pool(addr, timeout)?);
        Ok(Self { addr, timeout, pool, suspect_until: Mutex::default(), turns: Mutex::default() })
    }

    async fn ask(&self, asked: &Asked, ourselves: Option<&Ourselves>, share: Duration) -> Result<Reply, Failure> {
        let exchange = async {
            let answer = self.exchange(asked, ourselves, true).await;
            match answer {
                // A server from before EDNS says so, or claims not to understand (RFC 6891 §7).
                Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::FormErr | ResponseCode::NotImp))) => {
                    self.exchange(asked, ourselves, false).await
                }
                answer => answer,
            }
        };
        match tokio::time::timeout(share, exchange).await {
            Ok(answer) => read(answer),
            Err(_) => Err(Failure::silent("no answer in time")),
        }
    }

    async fn exchange(
        &self,
        asked: &Asked,
        ourselves: Option<&Ourselves>,
        edns: bool,
    ) -> Result<DnsResponse, NetError> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = edns;
        options.edns_set_dnssec_ok = asked.dnssec_ok;
        let mut request = DnsRequest::from_query(asked.query.clone(), options);
        request.metadata.checking_disabled = asked.checking_disabled;
        if let (Some(edns), Some(ourselves)) = (&mut request.edns, ourselves) {
            edns.options_mut().insert(ourselves.mark(Sent::to(self.addr, asked.relayed)));
        }
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pool.send(request).first_answer().await
    }

    /// A query to it has come back to us.
    fn looped(&self, now: Instant) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.last_answer.is_none_or(|at| at + LOOP_FOR <= now) {
            if turns.loop_until.is_none() {
                tracing::warn!(server = %self.addr, "this DNS server asks us for what we ask it; it is left out for a while");
            }
            turns.loop_until = Some(now + LOOP_FOR);
        }
    }

    fn is_loop(&self, now: Instant) -> bool {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.loop_until.is_some_and(|until| now < until)
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
        match pool(self.addr, self.timeout) {
            Ok(fresh) => *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = fresh,
            Err(error) => tracing::warn!(server = %self.addr, %error, "old connections are kept"),
        }
        *self.suspect_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + SUSPECT_FOR);
    }

    fn trust(&self, now: Instant) {
        *self.suspect_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.turns.lock().unwrap_or_else(PoisonError::into_inner) = Turns { last_answer: Some(now), loop_until: None };
    }
}

/// One server's connections, none of them open yet.
fn pool(addr: SocketAddr, timeout: Duration) -> Result<Pool, Unusable> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = addr.port();
        connection
    });
    let mut options = ResolverOpts::default();
    options.timeout = timeout;
    options.max_active_requests = PER_CONNECTION;
    let tls = TlsConfig::new().map_err(|e| Unusable::Client(e.to_string()))?;
    Ok(NameServerPool::from_config(
        [NameServerConfig::new(addr.ip(), true, connections.into())],
        Arc::new(PoolContext::new(options, tls)),
        TokioRuntimeProvider::default(),
    ))
}

/// What an answer means; hickory hands "nothing there" over as an error.
fn read(answer: Result<DnsResponse, NetError>) -> Result<Reply, Failure> {
    match answer {
        Ok(response) => match response.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(Reply::Message(response.into_message())),
            code => Err(Failure::answered(word(code))),
        },
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain => Ok(Reply::NoName(authorities(&none))),
            // Only pointers to other servers: it does not look further for us, and knows nothing itself.
            ResponseCode::NoError if none.ns.is_some() && none.soa.is_none() => {
                Err(Failure::answered("refers to other servers"))
            }
            ResponseCode::NoError => Ok(Reply::NoRecords(authorities(&none))),
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

fn authorities(none: &NoRecords) -> Vec<Record> {
    none.authorities.iter().flat_map(|records| records.iter().cloned()).collect()
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
mod tests;
