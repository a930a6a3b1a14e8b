//! Connections to endpoints: one [`Upstreams`] a worker, shared with nobody.
//!
//! A worker asks for an idle connection ([`Upstreams::idle`]) or opens one ([`Upstreams::connect`]),
//! exchanges one request for one answer over it ([`Connection::exchange`]), and gives it back when the
//! answer's body has ended ([`Upstreams::give_back`]). Because everything lives on one thread there is no
//! lock, no waiting list and no hand-off: who finds no idle connection opens another, and the bulkhead is
//! what bounds their number.
//!
//! An idle connection is closed when it is older than the peer is likely to keep it, or when its endpoint
//! is gone. Connections in use outlive a removed endpoint until their call has ended, or for the drain
//! limit at most; [`Upstreams::sweep`], called once a second, sees to both.
//!
//! This layer knows no policy: whether a failed exchange may be repeated is told by facts
//! ([`ExchangeError`]), and decided elsewhere.

mod bell;
mod connection;
mod pool;
mod stream;

use std::{
    cell::{Cell, RefCell},
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
use prometheus::IntGauge;

use crate::net::tcp::{self, DialError};

pub use connection::{Connection, ExchangeError, Open};
use pool::Pool;

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
    retired: OnceLock<Instant>,
    cut: AtomicBool,
    connections: IntGauge,
}

impl Target {
    /// A target at this address; `connections` counts the open ones.
    pub fn new(addr: SocketAddr, connections: IntGauge) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            addr,
            retired: OnceLock::new(),
            cut: AtomicBool::new(false),
            connections,
        }
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
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

/// One worker's connections to all endpoints. `B` is the body of requests.
#[derive(Debug)]
pub struct Upstreams<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    links: RefCell<HashMap<u64, Link<B>, foldhash::fast::RandomState>>,
}

/// One worker's connections to one endpoint.
#[derive(Debug)]
struct Link<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    target: Arc<Target>,
    idle: Pool<Connection<B>>,
    /// How many are open, idle or in use.
    open: Rc<Cell<usize>>,
}

impl<B> Upstreams<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// No connections yet.
    pub fn new() -> Rc<Self> {
        Rc::new(Self { links: RefCell::default() })
    }

    /// The idle connection that was used last, if there is one: the least likely to be closed by now.
    pub fn idle(&self, target: &Target, now: Instant) -> Option<Connection<B>> {
        let mut links = self.links.borrow_mut();
        let link = links.get_mut(&target.id)?;
        link.idle.take(now, IDLE_LIMIT, |connection| !connection.is_closed())
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The endpoint refused, or `deadline` passed.
    pub async fn connect(
        self: &Rc<Self>,
        target: &Arc<Target>,
        deadline: Option<Instant>,
    ) -> Result<Connection<B>, DialError> {
        let stream = tcp::dial(target.addr, deadline).await?;
        Connection::open(stream, self.count(target)).await
    }

    /// Counts one more connection as open, until the guard drops. To be asked for by who takes a connection's
    /// socket away from it (an upgrade): it is still open, and to be cut with the others.
    pub fn count(&self, target: &Arc<Target>) -> Open {
        let mut links = self.links.borrow_mut();
        let link = links.entry(target.id).or_insert_with(|| Link {
            target: target.clone(),
            idle: Pool::default(),
            open: Rc::default(),
        });
        Open::new(target.clone(), link.open.clone())
    }

    /// Takes back a connection whose exchange has ended well; it may be used again.
    pub fn give_back(&self, connection: Connection<B>, now: Instant) {
        if !connection.is_reusable() {
            return;
        }
        if let Some(link) = self.links.borrow_mut().get_mut(&connection.target().id) {
            connection.rest();
            link.idle.put(connection, now, IDLE_MAX);
        }
    }

    /// Closes what is idle for too long, and what leads to an endpoint that is gone: at once when idle,
    /// after `limit` when in use. Tells whether exchanges under way have to look at [`Target::is_cut`].
    /// Cheap; meant to be called every second.
    pub fn sweep(&self, now: Instant, limit: Duration) -> bool {
        let mut cut = false;
        self.links.borrow_mut().retain(|_, link| {
            match link.target.retired() {
                Some(since) => {
                    link.idle.clear();
                    if now.saturating_duration_since(since) >= limit && link.open.get() > 0 {
                        link.target.cut.store(true, Ordering::Relaxed);
                        cut = true;
                    }
                }
                None => link.idle.expire(now, IDLE_LIMIT),
            }
            link.open.get() > 0
        });
        cut
    }

    /// Closes every idle connection, for a stop.
    pub fn close_idle(&self) {
        self.links.borrow_mut().values_mut().for_each(|link| link.idle.clear());
    }
}
