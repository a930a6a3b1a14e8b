//! One worker's connections to one endpoint, and how more of them come to be.
//!
//! Over HTTP/1 whoever finds no idle connection opens one. Over HTTP/2 calls share: those that arrive while a
//! connection is being opened wait for that one, and as many are opened as it takes to hold them all. Such a
//! dial belongs to nobody: it goes on when the call that began it is cancelled, until the latest deadline of
//! those who have waited for it. Whoever waits keeps to its own deadline, and takes a place on an older
//! connection if one becomes free before.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::Body;
use tokio::{sync::Notify, time::timeout_at};

use super::{
    Connection, IDLE_LIMIT, IDLE_MAX, Open, Target, Wish, dial, http1,
    http2::{Stream, Trunk},
    now,
    pool::Pool,
};
use crate::net::{
    tcp::DialError,
    tls::{Chosen, Offer},
};

/// How long a dial may take for whoever has no deadline: as long as most kernels try to connect.
const UNHURRIED: Duration = Duration::from_secs(120);

/// How long an endpoint that knows no HTTP/2 is not asked again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// One worker's connections to one endpoint.
#[derive(Debug)]
pub(super) struct Link<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    target: Arc<Target>,
    idle: RefCell<Pool<http1::Connection<B>>>,
    /// Shared connections that may take streams.
    trunks: RefCell<Vec<Rc<Trunk>>>,
    /// How many are open, idle or in use.
    open: Rc<Cell<usize>>,
    dials: RefCell<Vec<Rc<Dial>>>,
    /// How many streams the last shared connection had room for.
    limit: Cell<usize>,
    /// Given the choice, the endpoint took HTTP/1.1, or knew nothing else; when that was.
    prefers_http1: Cell<Option<Instant>>,
    /// Told when a stream has ended.
    freed: Rc<Notify>,
}

/// A connection that is being opened for whoever needs it.
#[derive(Debug)]
struct Dial {
    wish: Wish,
    waiting: Cell<usize>,
    /// When the last of those who wait gives up.
    latest: Cell<Instant>,
    outcome: RefCell<Option<Result<Brought, DialError>>>,
    over: Notify,
}

/// What a dial has brought.
#[derive(Debug, Clone)]
enum Brought {
    /// A connection of one call's own; it is in the pool.
    Http1,
    /// A shared one.
    Http2(Rc<Trunk>),
}

/// What is opened.
enum Opened<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Http1(http1::Connection<B>),
    Http2(Rc<Trunk>),
}

/// One who waits for a dial.
struct Seat(Rc<Dial>);

impl Seat {
    fn take(dial: &Rc<Dial>, deadline: Instant) -> Self {
        dial.waiting.set(dial.waiting.get() + 1);
        dial.latest.set(dial.latest.get().max(deadline));
        Self(dial.clone())
    }

    /// Waits for the end of the dial.
    async fn outcome(&self) -> Result<Brought, DialError> {
        loop {
            let over = self.0.over.notified();
            if let Some(outcome) = &*self.0.outcome.borrow() {
                return match outcome {
                    Ok(brought) => Ok(brought.clone()),
                    Err(error) => Err(dial::copy(error)),
                };
            }
            over.await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl<B> Link<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            idle: RefCell::default(),
            trunks: RefCell::default(),
            open: Rc::default(),
            dials: RefCell::default(),
            limit: Cell::new(usize::MAX),
            prefers_http1: Cell::new(None),
            freed: Rc::default(),
        }
    }

    pub(super) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Counts one more connection as open.
    pub(super) fn count(&self) -> Open {
        Open::new(self.target.clone(), self.open.clone())
    }

    /// Whether anything is open.
    pub(super) fn is_open(&self) -> bool {
        self.open.get() > 0
    }

    /// What can take one more exchange now.
    pub(super) fn idle(&self, wish: Wish, now: Instant) -> Option<Connection<B>> {
        if wish != Wish::Http1
            && let stream @ Some(_) = self.lease(now)
        {
            return stream;
        }
        let serves = match wish {
            Wish::Http1 => true,
            Wish::Http2 => false,
            Wish::PreferHttp2 => self.prefers_http1(now),
        };
        if !serves {
            return None;
        }
        let mut idle = self.idle.borrow_mut();
        idle.take(now, IDLE_LIMIT, |connection| !connection.is_closed()).map(Connection::Http1)
    }

    /// Whether it is of no use to try HTTP/2. Under TLS each new connection tells; in plain text somebody has to
    /// try again some time, since another server may have its address by then.
    fn prefers_http1(&self, now: Instant) -> bool {
        let since = self.prefers_http1.get();
        since.is_some_and(|since| self.target.tls.is_some() || now.saturating_duration_since(since) < REMEMBERED)
    }

    /// A place on a shared connection.
    fn lease(&self, now: Instant) -> Option<Connection<B>> {
        if self.target.retired().is_some() {
            self.retire_trunks();
            return None;
        }
        let mut spent = false;
        let lease = self.trunks.borrow().iter().find_map(|trunk| {
            let lease = trunk.lease(now);
            spent |= lease.is_none() && !trunk.is_usable();
            lease
        });
        if spent {
            self.trunks.borrow_mut().retain(|trunk| trunk.is_usable());
        }
        lease.map(|lease| Connection::Http2(Stream::new(lease)))
    }

    /// A connection, sooner or later.
    pub(super) async fn connect(
        self: &Rc<Self>,
        wish: Wish,
        deadline: Option<Instant>,
    ) -> Result<Connection<B>, DialError> {
        if wish == Wish::Http1 {
            return self.connect_alone(wish, deadline).await;
        }
        let give_up = deadline.unwrap_or_else(|| now() + UNHURRIED);
        loop {
            if let Some(connection) = self.idle(wish, now()) {
                return Ok(connection);
            }
            if wish == Wish::PreferHttp2 && self.prefers_http1(now()) {
                return self.connect_alone(wish, deadline).await;
            }
            let seat = self.join(wish, give_up);
            let brought = tokio::select! {
                biased;
                outcome = timeout_at(give_up.into(), seat.outcome()) => outcome.map_err(|_| DialError::Timeout)??,
                () = self.freed.notified() => continue,
            };
            let Brought::Http2(trunk) = brought else { continue };
            if let Some(lease) = trunk.lease(now()) {
                return Ok(Connection::Http2(Stream::new(lease)));
            }
            if !trunk.is_usable() {
                let detail = "the endpoint closed the connection at once";
                return Err(DialError::Refused(std::io::Error::new(std::io::ErrorKind::ConnectionReset, detail)));
            }
            // Others were first, and it is full.
        }
    }

    /// A connection that this call does not share, at least not before it has it.
    async fn connect_alone(&self, wish: Wish, deadline: Option<Instant>) -> Result<Connection<B>, DialError> {
        match self.open(wish, deadline).await? {
            Opened::Http1(connection) => Ok(Connection::Http1(connection)),
            Opened::Http2(trunk) => {
                self.add(&trunk);
                let gone = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                let lease = trunk.lease(now()).ok_or_else(|| DialError::Refused(gone()))?;
                Ok(Connection::Http2(Stream::new(lease)))
            }
        }
    }

    /// A seat at a dial that has room for one more; if there is none, a dial begins.
    fn join(self: &Rc<Self>, wish: Wish, give_up: Instant) -> Seat {
        let mut dials = self.dials.borrow_mut();
        let limit = self.limit.get().max(1);
        if let Some(dial) = dials.iter().find(|dial| dial.wish == wish && dial.waiting.get() < limit) {
            return Seat::take(dial, give_up);
        }
        let dial = Rc::new(Dial {
            wish,
            waiting: Cell::new(0),
            latest: Cell::new(give_up),
            outcome: RefCell::new(None),
            over: Notify::new(),
        });
        let seat = Seat::take(&dial, give_up);
        dials.push(dial.clone());
        tokio::task::spawn_local(self.clone().carry_out(dial));
        seat
    }

    /// Opens a connection for whoever waits for it.
    async fn carry_out(self: Rc<Self>, dial: Rc<Dial>) {
        let mut opening = Box::pin(self.open(dial.wish, None));
        let opened = loop {
            let latest = dial.latest.get();
            match timeout_at(latest.into(), opening.as_mut()).await {
                Ok(opened) => break opened,
                // Somebody who has more time has joined meanwhile.
                Err(_) if dial.latest.get() > latest => {}
                Err(_) => break Err(DialError::Timeout),
            }
        };
        drop(opening);
        let outcome = opened.map(|opened| match opened {
            Opened::Http1(connection) => {
                self.put(connection, now());
                Brought::Http1
            }
            Opened::Http2(trunk) => {
                self.add(&trunk);
                Brought::Http2(trunk)
            }
        });
        self.dials.borrow_mut().retain(|other| !Rc::ptr_eq(other, &dial));
        dial.outcome.replace(Some(outcome));
        dial.over.notify_waiters();
    }

    /// Opens a connection of the kind that is wished for.
    async fn open(&self, wish: Wish, deadline: Option<Instant>) -> Result<Opened<B>, DialError> {
        let offer = match wish {
            Wish::Http1 => Offer::Http1,
            Wish::Http2 => Offer::Http2,
            Wish::PreferHttp2 => Offer::Either,
        };
        let (stream, chosen) = dial::open(&self.target, offer, deadline).await?;
        let plain = self.target.tls.is_none();
        let open = self.count();
        let known = plain && wish == Wish::PreferHttp2 && self.prefers_http1(now());
        if wish != Wish::Http1 && !known && (plain || chosen == Chosen::Http2) {
            let opening = Trunk::open(stream, open, self.freed.clone());
            let opened = match deadline {
                Some(deadline) => timeout_at(deadline.into(), opening).await.map_err(|_| DialError::Timeout)?,
                None => opening.await,
            };
            if plain && wish == Wish::PreferHttp2 && matches!(opened, Err(DialError::Protocol(_))) {
                // It has seen nothing but a preface: an app that speaks HTTP/2 need not know that this one does not.
                self.prefers_http1.set(Some(now()));
                let (stream, _) = dial::open(&self.target, offer, deadline).await?;
                return http1::Connection::open(stream, self.count()).await.map(Opened::Http1);
            }
            self.prefers_http1.set(None);
            return opened.map(Opened::Http2);
        }
        if wish == Wish::Http2 {
            let detail = "the endpoint does not speak HTTP/2 (ALPN): set `protocol: http1`, or `auto`";
            return Err(DialError::Protocol(detail.into()));
        }
        if wish == Wish::PreferHttp2 && !known {
            self.prefers_http1.set(Some(now()));
        }
        http1::Connection::open(stream, open).await.map(Opened::Http1)
    }

    fn add(&self, trunk: &Rc<Trunk>) {
        self.limit.set(trunk.limit());
        self.trunks.borrow_mut().push(trunk.clone());
    }

    /// Keeps an idle connection.
    pub(super) fn put(&self, connection: http1::Connection<B>, now: Instant) {
        connection.rest();
        self.idle.borrow_mut().put(connection, now, IDLE_MAX);
    }

    /// Closes what has been idle for too long, or is too old.
    pub(super) fn expire(&self, now: Instant) {
        self.idle.borrow_mut().expire(now, IDLE_LIMIT);
        self.trunks.borrow_mut().retain(|trunk| trunk.sweep(now));
    }

    /// Closes what is idle.
    pub(super) fn close_idle(&self) {
        self.idle.borrow_mut().clear();
        self.trunks.borrow_mut().retain(|trunk| {
            if trunk.is_idle() {
                trunk.retire();
            }
            trunk.is_usable()
        });
    }

    /// Closes what is idle, and lets what is in use take no more streams.
    pub(super) fn retire(&self) {
        self.idle.borrow_mut().clear();
        self.retire_trunks();
    }

    fn retire_trunks(&self) {
        self.trunks.take().iter().for_each(|trunk| trunk.retire());
    }
}
