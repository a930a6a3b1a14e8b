//! One connection of an app: who is at its other end, how its worker reaches it, and which HTTP it speaks.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
    time::Instant,
};

use tokio::net::TcpStream;

use super::{
    call::Call,
    http1, http2, inbound,
    intercept::{self, Received},
    listener::OpenConnection,
    sniff::{self, Rewound, Spoken},
    tcp::{self, Link},
    vip,
    wire::WireState,
    worker::Worker,
};
use crate::{
    config::Entry,
    model::ServiceName,
    net::{stream::Stream, tcp::reset_on_close, tls::Identity},
};

/// The app at the other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) addr: Option<SocketAddr>,
    pub(super) entry: Entry,
    /// What a call and the bytes of its connection tell each other over HTTP/1; over HTTP/2, where calls share
    /// a connection, there is nothing to tell.
    pub(super) wire: Option<Arc<WireState>>,
    /// Whose address it called, where its connection was redirected to us.
    pub(super) meant: Option<ServiceName>,
    /// Who the app is, on the receiving side.
    pub(super) identity: Identity,
    /// Counts the connection as open; a tunnel that it becomes holds on to this.
    pub(super) open: Rc<OpenConnection>,
}

impl Peer {
    /// The last of an answer has been handed over.
    pub(super) fn answer_ended(&self) {
        if let Some(wire) = &self.wire {
            wire.answer_ended();
        }
    }
}

/// How a worker reaches one of its connections.
#[derive(Debug)]
pub(super) struct Control {
    worker: Rc<Worker>,
    id: u64,
    waker: RefCell<Option<Waker>>,
    finishing: Cell<bool>,
    /// Calls whose answer has not begun.
    calls: Cell<u32>,
    /// When the connection was opened or its last answer began.
    since: Cell<Instant>,
}

/// A call is under way on a connection, until this drops.
#[derive(Debug)]
pub(super) struct Busy(Rc<Control>);

impl Control {
    pub(super) fn new(worker: Rc<Worker>, id: u64, now: Instant) -> Self {
        let (finishing, calls, since) = (Cell::new(false), Cell::new(0), Cell::new(now));
        Self { worker, id, waker: RefCell::default(), finishing, calls, since }
    }

    /// Remembers whom to wake when the worker's state changes.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Closes the connection when its calls have ended, or at once when it is idle.
    pub(super) fn finish(&self) {
        self.finishing.set(true);
        self.wake();
    }

    /// Whether it is to be closed.
    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.get()
    }

    /// Has the connection look at the state of its worker.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// A call has begun.
    pub(super) fn busy(self: &Rc<Self>) -> Busy {
        self.calls.set(self.calls.get() + 1);
        Busy(self.clone())
    }

    /// Since when there has been no call; `None` while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.calls.get() == 0).then(|| self.since.get())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.calls.set(self.0.calls.get() - 1);
        self.0.since.set(self.0.worker.recently());
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.worker.unregister(self.id);
    }
}

/// Serves one connection until either side has had enough.
pub(super) async fn serve(
    worker: Rc<Worker>,
    control: Rc<Control>,
    stream: TcpStream,
    entry: Entry,
    open: OpenConnection,
) {
    let entry = match vip::entry(&worker, &stream, entry).await {
        Some(entry) => entry,
        // As where nobody listens.
        None => return reset_on_close(&stream),
    };
    if let Some(service) = tcp::service(&worker, &entry) {
        // Boxed, so that a connection that carries HTTP need not have room for it.
        let note = tcp::note(&worker, &stream);
        let call = Call::begin(&worker, service, worker.now(), note);
        return Box::pin(tcp::serve(call, control, Stream::from(stream).into(), Link::OfService, open)).await;
    }
    let limits = worker.table.current().traffic().limits;
    let open = Rc::new(open);
    let (addr, identity) = (stream.peer_addr().ok(), Identity::default());
    let mut peer = Peer { addr, entry, wire: None, meant: None, identity, open };
    let stream: Rewound = match peer.entry {
        Entry::Inbound => match Box::pin(inbound::receive(&worker, &control, stream, limits.header_timeout)).await {
            Some(received) => {
                peer.identity = received.identity;
                received.stream.into()
            }
            None => return,
        },
        Entry::Intercepted => match Box::pin(intercept::receive(&worker, &control, stream)).await {
            Received::Http { stream, meant } => {
                peer.meant = meant;
                stream
            }
            Received::Bytes { stream, service } => {
                let note = tcp::note(&worker, &stream);
                let call = Call::begin(&worker, service, worker.now(), note);
                let app = Stream::from(stream).into();
                return Box::pin(tcp::serve(call, control, app, Link::OfService, peer.open)).await;
            }
            Received::Over => return,
        },
        Entry::Shared | Entry::Service(_) | Entry::Vips(_) | Entry::Vip(_) => Stream::from(stream).into(),
    };
    speak(worker, control, stream, peer).await;
}

/// Serves HTTP on a connection whose entry is known, whichever it is.
pub(super) async fn speak(worker: Rc<Worker>, control: Rc<Control>, stream: Rewound, peer: Peer) {
    let limits = worker.table.current().traffic().limits;
    match sniff::listen(&worker, &control, stream, limits.header_timeout).await {
        Spoken::Http1(stream) => http1::serve(worker, control, stream, peer, limits).await,
        // Boxed, as every connection would otherwise be as large as the larger of the two.
        Spoken::Http2(stream) => Box::pin(http2::serve(worker, control, stream, peer, limits)).await,
        Spoken::Nothing => {}
    }
}
