//! One connection that many exchanges share, and the leases on it.
//!
//! A trunk takes streams while its peer wants them: not after a GOAWAY, not once it is too old, and not while
//! there is reason to think that nobody is there any more. One that takes none any more is let go of: h2 closes
//! it when its last stream has ended.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use super::{
    CONNECTION_WINDOW, FRAME_BUDGET, HEADER_LIST_MAX, IDLE_LIMIT, MAX_AGE, RESET_MEMORY, RESET_STREAMS, SEND_BUFFER,
    STREAM_WINDOW, driver,
    fault::never_agreed,
    traffic::{Traffic, Watched},
};
use crate::{
    model::Random,
    net::tcp::DialError,
    upstream::{connection::Open, now, stream::Patient},
};

/// A shorter silence says nothing about a peer, whoever has given up a call meanwhile.
const SUSPICIOUS: Duration = Duration::from_millis(50);

/// A shared connection.
#[derive(Debug)]
pub(in crate::upstream) struct Trunk {
    /// `None` once it takes no more streams.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    pub(super) traffic: Rc<Traffic>,
    streams: Cell<usize>,
    /// How often the peer had been heard, and when the first call since then began.
    unheard: Cell<(u64, Instant)>,
    idle_since: Cell<Option<Instant>>,
    expires: Instant,
    /// How often the peer had been heard when a call on it was given up as lost.
    suspected: Cell<Option<u64>>,
    /// Heads, pieces and trailers that streams have got.
    answers: Cell<u64>,
    /// Payload that apps have taken since it was last looked at, in bytes.
    taken: Cell<usize>,
    epitaph: Cell<Option<&'static str>>,
    freed: Rc<Notify>,
    /// Wakes the driver: h2 does so only as long as it can write.
    driver: RefCell<Waker>,
}

impl Trunk {
    /// Speaks HTTP/2 over a fresh transport, and waits until the peer has said how many streams it takes: only
    /// then is it known to speak HTTP/2 at all, and nothing has been sent that could not be sent again. `freed`
    /// is told whenever there is room for one more stream.
    ///
    /// # Errors
    /// The peer closed, or speaks something else.
    pub(in crate::upstream) async fn open<T>(transport: T, open: Open, freed: Rc<Notify>) -> Result<Rc<Self>, DialError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let traffic = Rc::<Traffic>::default();
        let transport = Patient::new(Watched::new(transport, traffic.clone()));
        let shaken = builder().handshake(transport).await;
        let (sender, mut connection) = shaken.map_err(|error| never_agreed(Some(&error), &traffic))?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Err(never_agreed(ended.err().as_ref(), &traffic))),
            Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let now = now();
        let trunk = Rc::new(Self {
            sender: RefCell::new(Some(sender)),
            traffic,
            streams: Cell::new(0),
            unheard: Cell::new((0, now)),
            idle_since: Cell::new(None),
            expires: now + lifetime(),
            suspected: Cell::default(),
            answers: Cell::default(),
            taken: Cell::default(),
            epitaph: Cell::default(),
            freed,
            driver: RefCell::new(Waker::noop().clone()),
        });
        tokio::task::spawn_local(driver::drive(connection, trunk.clone(), open));
        Ok(trunk)
    }

    /// A place for one stream, if there is one.
    pub(in crate::upstream) fn lease(self: &Rc<Self>, now: Instant) -> Option<Lease> {
        let mut slot = self.sender.borrow_mut();
        let sender = slot.as_mut()?;
        let refuses = matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)));
        if refuses || now >= self.expires {
            *slot = None;
            return None;
        }
        if self.is_suspect() || self.streams.get() >= sender.current_max_send_streams() {
            return None;
        }
        let sender = sender.clone();
        if self.streams.replace(self.streams.get() + 1) == 0 {
            self.idle_since.set(None);
            self.wake_driver();
        }
        let reads = self.traffic.reads();
        if self.unheard.get().0 != reads {
            self.unheard.set((reads, now));
        }
        Some(Lease { trunk: self.clone(), sender: Some(sender), reads, answered: false })
    }

    /// Whether it may take streams, now or when there is room again.
    pub(in crate::upstream) fn is_usable(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// How many streams the peer takes at a time.
    pub(in crate::upstream) fn limit(&self) -> usize {
        self.sender.borrow().as_ref().map_or(0, SendRequest::current_max_send_streams)
    }

    /// Lets no more streams begin; it closes when the last one has ended.
    pub(in crate::upstream) fn retire(&self) {
        if self.sender.take().is_some() {
            self.wake_driver();
        }
    }

    /// Says by what the driver is woken.
    pub(super) fn driven_by(&self, cx: &Context<'_>) {
        self.driver.replace(cx.waker().clone());
    }

    fn wake_driver(&self) {
        self.driver.borrow().wake_by_ref();
    }

    /// Sees to its age and its idleness. Tells whether it is still to be kept.
    pub(in crate::upstream) fn sweep(&self, now: Instant) -> bool {
        let idle = self.is_idle() && {
            let since = self.idle_since.get().unwrap_or(now);
            self.idle_since.set(Some(since));
            now.saturating_duration_since(since) >= IDLE_LIMIT
        };
        if idle || now >= self.expires {
            self.retire();
        }
        self.is_usable()
    }

    /// Whether no stream is open.
    pub(in crate::upstream) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// When the first call that has heard nothing of the peer began, or an earlier time if there is none.
    pub(super) fn unheard_since(&self) -> Instant {
        self.unheard.get().1
    }

    /// Whether a call on it was given up, and nothing has been heard of the peer since that call began.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspected.get().is_some_and(|reads| reads == self.traffic.reads())
    }

    /// How many heads, pieces and trailers streams have got.
    pub(super) fn answers(&self) -> u64 {
        self.answers.get()
    }

    /// How much payload apps have taken since this was last asked, or [`Trunk::start_sample`] called.
    pub(super) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Counts what apps take from zero.
    pub(super) fn start_sample(&self) {
        self.taken.set(0);
    }

    /// Why it was broken off by us, if it was.
    pub(super) fn epitaph(&self) -> Option<&'static str> {
        self.epitaph.get()
    }

    /// Says why it is about to be broken off.
    pub(super) fn give_up(&self, why: &'static str) {
        self.epitaph.set(Some(why));
    }
}

/// The right to one stream of a trunk. Dropping it makes room for another.
#[derive(Debug)]
pub(in crate::upstream) struct Lease {
    trunk: Rc<Trunk>,
    sender: Option<SendRequest<Bytes>>,
    /// How often the peer had been heard by then.
    reads: u64,
    answered: bool,
}

impl Lease {
    pub(super) fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    /// What starts the stream; once.
    pub(super) fn take_sender(&mut self) -> Option<SendRequest<Bytes>> {
        self.sender.take()
    }

    /// The head of the answer has come, or it is known that none will.
    pub(super) fn answered(&mut self) {
        self.answered = true;
        self.heard(0);
    }

    /// A piece of the answer has come, with this many bytes of payload.
    pub(super) fn heard(&self, bytes: usize) {
        self.trunk.answers.set(self.trunk.answers.get() + 1);
        self.trunk.taken.set(self.trunk.taken.get().saturating_add(bytes));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let trunk = &self.trunk;
        let sent = self.sender.is_none();
        // A call that was given up without an answer: at its deadline, for all we know.
        if sent && !self.answered && self.reads == trunk.traffic.reads() {
            let waited = now().saturating_duration_since(trunk.unheard_since());
            if waited >= SUSPICIOUS {
                trunk.suspected.set(Some(self.reads));
                trunk.wake_driver();
            }
        }
        trunk.streams.set(trunk.streams.get() - 1);
        trunk.freed.notify_one();
    }
}

/// Our side of the settings (RFC 9113 §6.5.2).
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_MEMORY)
        .data_frame_budget(FRAME_BUDGET)
        // No streams before the peer has said how many it takes.
        .initial_max_send_streams(0);
    builder
}

/// How long a connection is used: [`MAX_AGE`], give or take a tenth, so that connections which were opened
/// together are not renewed together.
fn lifetime() -> Duration {
    use std::hash::BuildHasher as _;
    let seed = std::hash::RandomState::new().hash_one(0);
    MAX_AGE.mul_f64(0.9 + 0.2 * Random::seeded(seed).share())
}
