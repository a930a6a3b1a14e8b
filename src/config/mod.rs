//! The configuration: one YAML file, in two types.
//!
//! `raw` is the file *as written*: which keys stand there, with their places. [`Config`] is the file *as
//! meant*: defaults filled in, cross-checked, nothing left to guess at run time. `resolve` leads from the
//! one to the other and gathers every [`Problem`] on the way, so that an operator sees all of them at once.
//! [`diff`] compares two configs and says what a reload has to do.
//!
//! Nothing here opens a socket or reads a clock; the only file read is the one that is asked for.
//!
//! | step | file |
//! |---|---|
//! | YAML → a tree with places, `${VARIABLES}` filled in | `raw`, `env` |
//! | the tree held against the tables of keys | `keys`, `shape`, `scalar`, `units`, `address`, `identity` |
//! | the tree → [`Config`] | `resolve`, `service`, `inbound`, `platform`, `layers`, `policies`, `fallback`, `provenance` |
//! | values held against each other | `pairs`, `cross`, `vips` |
//! | the way back: JSON Schema, effective values, changes | `schema`, `describe`, `diff` |

mod address;
mod cross;
mod describe;
mod diff;
#[cfg(test)]
mod drift;
mod env;
mod fallback;
mod identity;
mod inbound;
mod keys;
mod layers;
mod load;
mod pairs;
mod platform;
mod policies;
mod problem;
mod provenance;
mod raw;
mod resolve;
mod scalar;
mod schema;
mod service;
mod shape;
mod units;
mod vips;

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

pub use self::{
    describe::describe,
    diff::{Changes, Entry, Listener, Listeners, Part, diff},
    load::{Loaded, find, user},
    platform::{Dns, Intercept, ServiceVip, Vip, VipAddress, Wildcard, is_of_this_host},
    problem::{Problem, Problems, Severity, Snippet},
    provenance::{Provenance, Provenances},
    schema::schema,
};
use crate::{
    model::{ServiceName, SourceKind},
    policy::{balance, breaker, bulkhead, deadline, ejection, failure_if, health, retry},
};

/// The whole configuration, as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the sidecar listens.
    pub listen: Listen,
    /// Suffix under which each service has a VIP name, without a leading dot; `vip.internal` by default.
    pub domain: Arc<str>,
    /// The services' VIPs, where they have some.
    pub vip: Option<Vip>,
    /// What the DNS responder says to whom.
    pub dns: Dns,
    /// How an app's connections are intercepted, where they are.
    pub intercept: Option<Intercept>,
    /// How names are looked up.
    pub resolver: Resolver,
    /// Threads that carry traffic; `None` is one a core.
    pub workers: Option<NonZeroUsize>,
    /// What one app may ask of us at most.
    pub limits: Limits,
    /// What is logged, and where to.
    pub log: Log,
    /// After this time the sidecar is ready although services have no endpoints yet; `None` waits for all. Default 30 s.
    pub ready_limit: Option<Duration>,
    /// How a stop proceeds.
    pub drain: Drain,
    /// The services, by name.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// What a name that no service bears is taken for.
    pub wildcard: Option<Arc<Wildcard>>,
    /// The receiving side: what stands before our own app.
    pub inbound: Option<Inbound>,
}

/// Addresses and the socket the sidecar listens on; a service's own port is the service's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The shared port: any service, by Host or absolute URI. Default 127.0.0.1:8470.
    pub http: SocketAddr,
    /// The observe port: read-only. Default 127.0.0.1:8471.
    pub observe: SocketAddr,
    /// The DNS responder, where there is one.
    pub dns: Option<SocketAddr>,
    /// Whether a request may name its service by `x-outrigger-service`. Default off.
    pub override_header: bool,
    /// The admin socket. Default /run/outrigger/admin.sock for root, else `$XDG_RUNTIME_DIR/outrigger.sock`.
    pub admin: PathBuf,
}

/// How names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    /// Whom to ask, in order.
    pub servers: Vec<Nameserver>,
    /// Answers are trusted for no less than this, whatever their TTL. Default 1 s.
    pub ttl_min: Duration,
    /// Answers are trusted for no longer than this, whatever their TTL. Default 5 s.
    pub ttl_max: Duration,
    /// How long the last good set is kept when the name is gone (NXDOMAIN, no records). Default 30 s.
    pub hold: Duration,
    /// How long one lookup may take in all. Default 2 s.
    pub timeout: Duration,
}

/// A DNS server to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nameserver {
    /// The ones in resolv.conf.
    System,
    /// This one.
    At(SocketAddr),
}

/// What one app may ask of us at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections from apps, over all listeners. Default 10,000.
    pub connections: usize,
    /// Bytes of a request's head. Default 64 KiB; 8 KiB to 1 MiB.
    pub header_bytes: usize,
    /// Header lines of a request. Default 100.
    pub headers: usize,
    /// From the first byte of a head to its last. Default 10 s.
    pub header_timeout: Duration,
    /// Bytes of good answers kept for fallbacks, over all services. Default 64 MiB.
    pub last_good: usize,
}

/// What is logged, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where a JSON line a call goes; `None` is nowhere, the default.
    pub access: Option<AccessLog>,
    /// What the process log says. Default info.
    pub level: Level,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// A file, appended to; opened anew on SIGHUP, so that it can be rotated.
    File(PathBuf),
}

/// How much the process log says: each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Somebody must act.
    Error,
    /// Somebody should look.
    Warn,
    /// What changed.
    Info,
    /// Why it changed.
    Debug,
    /// Everything.
    Trace,
}

/// How a stop proceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long a stop waits for calls in flight, and a removed endpoint's connections for theirs. Default 30 s.
    pub limit: Duration,
    /// What ends a stop earlier.
    pub until: Until,
}

/// What ends a stop before its limit. New calls are taken until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Until {
    /// No call is in flight any more. The default.
    #[default]
    Calls,
    /// Nothing: the limit is the time that it takes.
    Time,
    /// The app has ended: the one that `outrigger run` has started, else the one behind the receiving side.
    App,
}

/// One service, as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name, in lower case.
    pub name: ServiceName,
    /// Other names it answers to.
    pub aliases: Vec<ServiceName>,
    /// A port of its own.
    pub listen: Option<SocketAddr>,
    /// Its virtual IP, where services have some.
    pub vip: ServiceVip,
    /// Where its endpoints come from.
    pub source: Source,
    /// The rules its calls obey.
    pub policy: Policy,
    /// Where each policy value came from, by its key (`timeout.request`); for `explain`.
    pub provenance: Provenances,
}

impl Service {
    /// The names that lead to its VIP: with the domain and without, in turn.
    pub fn names(&self, domain: &str) -> Vec<String> {
        let names = std::iter::once(&self.name).chain(&self.aliases);
        names.flat_map(|name| [format!("{name}.{domain}"), name.to_string()]).collect()
    }
}

/// Where a service's endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// These addresses.
    Static(Vec<SocketAddr>),
    /// The entries of this file.
    File(PathBuf),
    /// The A and AAAA records of a name, all at one port.
    Dns {
        /// The name to look up.
        host: Arc<str>,
        /// The port of every endpoint.
        port: u16,
    },
    /// The SRV records of a name.
    Srv {
        /// The name to look up: `_service._proto.name`.
        name: Arc<str>,
    },
}

impl Source {
    /// Which kind of source this is.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Static(_) => SourceKind::Static,
            Self::File(_) => SourceKind::File,
            Self::Dns { .. } => SourceKind::Dns,
            Self::Srv { .. } => SourceKind::Srv,
        }
    }
}

/// The rules a service's calls obey. `None` is a policy that is off.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Limits on time.
    pub timeout: deadline::Settings,
    /// Limit on outstanding calls.
    pub bulkhead: Option<bulkhead::Settings>,
    /// The circuit breaker.
    pub breaker: Option<breaker::Settings>,
    /// How an endpoint is chosen.
    pub balance: balance::Settings,
    /// What is spoken to the endpoints.
    pub protocol: Protocol,
    /// TLS to the endpoints.
    pub tls: Option<Tls>,
    /// Which web pages may call.
    pub cors: Option<Cors>,
    /// Further attempts.
    pub retry: Option<retry::Settings>,
    /// A second attempt beside a slow first.
    pub hedge: Option<retry::Hedge>,
    /// Which endpoints are left out for a while.
    pub ejection: Option<ejection::Settings>,
    /// Active checks of the endpoints.
    pub health_check: Option<health::Settings>,
    /// What is answered instead of a failure; tried in this order.
    pub fallback: Arc<[crate::policy::fallback::Step]>,
    /// Whether identical calls at the same moment share one.
    pub coalesce: bool,
    /// What of an answer makes it a failure, beside its status.
    pub failure_if: Option<failure_if::Settings>,
}

/// What is spoken to the endpoints of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// What the app speaks; gRPC-Web becomes gRPC over HTTP/2. The default.
    #[default]
    Auto,
    /// HTTP/1.1, whatever the app speaks.
    Http1,
    /// HTTP/2, whatever the app speaks: by prior knowledge, or under TLS by ALPN.
    Http2,
    /// Bytes, as they come.
    Tcp,
}

/// TLS to the endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Whom to trust: a file of PEM certificates; `None` is the system's roots.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, shown to endpoints that ask for one.
    pub identity: Option<KeyPair>,
    /// Whom the endpoint's certificate must be for; `None` is the host that the source names.
    pub name: Option<PeerName>,
    /// The oldest version that is spoken. Default 1.2.
    pub min_version: TlsVersion,
    /// Nothing about the endpoint's certificate is verified. Never the default, and warned of at each start.
    pub unverified: bool,
}

/// A certificate (with its chain) and its private key: two PEM files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPair {
    /// The certificate, then the rest of its chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl KeyPair {
    fn of((cert, key): (&str, &str)) -> Self {
        Self { cert: cert.into(), key: key.into() }
    }
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerName {
    /// A DNS name or an IP address among its subject alternative names.
    Host(Arc<str>),
    /// A URI among its subject alternative names: a SPIFFE ID.
    Uri(Arc<str>),
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// Which web pages may call a service (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The origins of these pages: `https://shop.example`. `*` is any.
    pub origins: Vec<Arc<str>>,
    /// Whether a page may send the user's cookies. Default off; not together with `*`.
    pub credentials: bool,
    /// How long a browser may remember what it was told. Default 1 h.
    pub max_age: Duration,
}

/// The receiving side: what stands before our own app.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// Where callers come in.
    pub listen: SocketAddr,
    /// TLS with the callers; `None` is plain text.
    pub tls: Option<InboundTls>,
    /// The identities (URI or DNS names of a certificate) that may call; `None` is whoever has a good certificate.
    pub allow: Option<Vec<Arc<str>>>,
    /// The app, as a service with the one endpoint, and the rules of calls to it. Its name is `inbound`.
    pub service: Arc<Service>,
}

impl Inbound {
    /// The name of its service; a service of the user's cannot have it beside an inbound.
    pub const NAME: &'static str = "inbound";
}

/// TLS with callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundTls {
    /// Our certificate and its key.
    pub identity: KeyPair,
    /// Whose certificates callers must show; `None` asks for none.
    pub ca: Option<PathBuf>,
    /// The oldest version that is spoken. Default 1.2.
    pub min_version: TlsVersion,
}
