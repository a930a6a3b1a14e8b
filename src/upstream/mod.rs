//! Connections to endpoints: one [`Upstreams`] a worker, shared with nobody.
//!
//! A worker asks for an idle connection ([`Upstreams::idle`]) or opens one ([`Upstreams::connect`]),
//! exchanges one request for one answer over it ([`Connection::exchange`]), and gives it back when the
//! answer's body has ended ([`Upstreams::give_back`]). Because everything lives on one thread there is no
//! lock and no hand-off. Over HTTP/1 who finds no idle connection opens another, and the bulkhead is what
//! bounds their number; over HTTP/2 calls share one ([`http2`]).
//!
//! An idle connection is closed when it is older than the peer is likely to keep it, or when its endpoint
//! is gone. Connections in use outlive a removed endpoint until their call has ended, or for the drain
//! limit at most; [`Upstreams::sweep`], called once a second, sees to both.
//!
//! This layer knows no policy: whether a failed exchange may be repeated is told by facts
//! ([`ExchangeError`]), and decided elsewhere.

mod bell;
mod connection;
mod dial;
mod http1;
mod http2;
mod link;
mod payload;
mod pool;
mod stream;

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::Body;

use crate::{
    net::{tcp::DialError, tls},
    telemetry::ServiceMetrics,
};

pub use connection::{Connection, ExchangeError, OnContinue, Open, Version};
pub use dial::{dial, open};
use link::Link;
pub use payload::{Payload, PayloadError, is_malformed};

/// How long an idle connection is kept: under the five seconds after which common servers (Node.js) close
/// theirs, since a request that meets a closing connection is lost when it may not be repeated.
const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// Idle connections kept for one endpoint by one worker; what is over it is closed when given back.
const IDLE_MAX: usize = 256;

/// What a connection leads to: one endpoint, for as long as discovery names it.
///
/// An endpoint that goes and comes back is another target: connections are never shared between the two.
#[derive(Debug)]
pub struct Target {
    id: u64,
    addr: SocketAddr,
    /// The endpoint's own host, as its source names it; what its certificate is for.
    host: Arc<str>,
    tls: Option<Arc<tls::Client>>,
    retired: OnceLock<Instant>,
    cut: AtomicBool,
    metrics: ServiceMetrics,
}

impl Target {
    /// A target at this address, whose source names it `host` (without a port); open connections count in `metrics`.
    pub fn new(addr: SocketAddr, host: Arc<str>, tls: Option<Arc<tls::Client>>, metrics: ServiceMetrics) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            addr,
            host,
            tls,
            retired: OnceLock::new(),
            cut: AtomicBool::new(false),
            metrics,
        }
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// TLS with it, if it is to be spoken.
    pub fn tls(&self) -> Option<&Arc<tls::Client>> {
        self.tls.as_ref()
    }

    /// Marks it as gone: no connection to it is kept, those in use may finish.
    pub fn retire(&self, now: Instant) {
        let _ = self.retired.set(now);
    }

    /// Whether exchanges with it must end now: it has been gone for longer than they were given.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Since when it is gone.
    pub fn retired(&self) -> Option<Instant> {
        self.retired.get().copied()
    }
}

/// Which HTTP an exchange is to be spoken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// HTTP/1.1, and nothing else.
    Http1,
    /// HTTP/2, and nothing else.
    Http2,
    /// HTTP/2, or HTTP/1.1 with an endpoint that prefers it (under TLS) or turns out to know nothing else.
    PreferHttp2,
}

/// One worker's connections to all endpoints. `B` is the body of requests.
#[derive(Debug)]
pub struct Upstreams<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    links: RefCell<HashMap<u64, Rc<Link<B>>, foldhash::fast::RandomState>>,
}

impl<B> Upstreams<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// No connections yet.
    pub fn new() -> Rc<Self> {
        Rc::new(Self { links: RefCell::default() })
    }

    /// A connection that can take one more exchange now, if there is one. Over HTTP/1 that is the idle one that
    /// was used last: the least likely to be closed by now. Over HTTP/2 it is one more stream of a shared one.
    pub fn idle(&self, target: &Target, wish: Wish, now: Instant) -> Option<Connection<B>> {
        self.links.borrow().get(&target.id)?.idle(wish, now)
    }

    /// Opens a connection. Over HTTP/2 that may mean to wait for one which another call is opening, or for a
    /// stream that ends on one which is full.
    ///
    /// # Errors
    /// The endpoint refused, or does not speak what it has to, or `deadline` passed.
    pub async fn connect(
        self: &Rc<Self>,
        target: &Arc<Target>,
        wish: Wish,
        deadline: Option<Instant>,
    ) -> Result<Connection<B>, DialError> {
        let link = self.link(target);
        link.connect(wish, deadline).await
    }

    /// Counts one more connection as open, until the guard drops. To be asked for by who takes a connection's
    /// socket away from it (an upgrade): it is still open, and to be cut with the others.
    pub fn count(&self, target: &Arc<Target>) -> Open {
        self.link(target).count()
    }

    fn link(&self, target: &Arc<Target>) -> Rc<Link<B>> {
        let mut links = self.links.borrow_mut();
        links.entry(target.id).or_insert_with(|| Rc::new(Link::new(target.clone()))).clone()
    }

    /// Takes back a connection whose exchange has ended well; it may be used again.
    pub fn give_back(&self, connection: Connection<B>, now: Instant) {
        match connection {
            Connection::Http1(connection) if connection.is_reusable() => {
                if let Some(link) = self.links.borrow().get(&connection.target().id) {
                    link.put(connection, now);
                }
            }
            Connection::Http1(_) => {}
            Connection::Http2(stream) => stream.finish(),
        }
    }

    /// Closes what is idle for too long or too old, and what leads to an endpoint that is gone: at once when
    /// idle, after `limit` when in use. Tells whether exchanges under way have to look at [`Target::is_cut`].
    /// Cheap; meant to be called every second.
    pub fn sweep(&self, now: Instant, limit: Duration) -> bool {
        let mut cut = false;
        self.links.borrow_mut().retain(|_, link| {
            let target = link.target();
            match target.retired() {
                Some(since) => {
                    link.retire();
                    if now.saturating_duration_since(since) >= limit && link.is_open() {
                        target.cut.store(true, Ordering::Relaxed);
                        cut = true;
                    }
                }
                None => link.expire(now),
            }
            // Whoever is about to open a connection holds the link.
            link.is_open() || Rc::strong_count(link) > 1
        });
        cut
    }

    /// Closes every idle connection, for a stop.
    pub fn close_idle(&self) {
        self.links.borrow().values().for_each(|link| link.close_idle());
    }
}

/// What tokio's clock says: tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
