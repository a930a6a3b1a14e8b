//! What one worker owns, and what all its calls borrow.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    alarm::Alarms, connection::Control, headers::Vias, outgoing::Outgoing, tunnel::Buffers, unread::Streams,
    upload::Upload,
};
use crate::{
    config::Entry,
    model::{Outcome, Random},
    service::{Service, Table, Wanted, now},
    telemetry::{
        Metrics,
        metrics::{Intercepted, Unattributed, Way},
    },
    upstream::Upstreams,
};

/// How long an app's connection may be open without a call: as long as Envoy's default, since closing one
/// that an app is about to use costs it a call.
const IDLE_LIMIT: Duration = Duration::from_secs(3600);

/// What a worker is made of.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Its number, from 0; cursors of balancers are kept by it.
    pub index: usize,
    /// The services.
    pub table: Table,
    /// Where calls that no service can be blamed for are counted.
    pub metrics: Metrics,
    /// Connections of ours that must not come back to us.
    pub outgoing: Outgoing,
    /// How this process is known in Via.
    pub pseudonym: String,
    /// Seeds what is random in traffic.
    pub seed: u64,
}

/// One worker: the state of one thread, shared by the connections that it serves.
#[derive(Debug)]
pub struct Worker {
    pub(super) index: usize,
    pub(super) table: Table,
    pub(super) upstreams: Rc<Upstreams<Upload>>,
    pub(super) random: RefCell<Random>,
    pub(super) alarms: Rc<Alarms>,
    pub(super) streams: Rc<Streams>,
    pub(super) buffers: Buffers,
    pub(super) outgoing: Outgoing,
    vias: [Vias; 2],
    unattributed: Arc<Unattributed>,
    intercepted: Arc<Intercepted>,
    connections: RefCell<HashMap<u64, Weak<Control>>>,
    next_connection: Cell<u64>,
    stopping: Cell<bool>,
    closing: Cell<bool>,
    cut_off: Cell<bool>,
    left: Notify,
    swept: Cell<Instant>,
    in_flight: Cell<u64>,
    begun: Cell<u64>,
}

/// How busy workers are: what a stop goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Calls under way: until the last of their answer has been handed over, and tunnels and TCP connections for as
    /// long as they live.
    pub in_flight: u64,
    /// Calls that have ever begun: two looks see whether there was one in between.
    pub begun: u64,
}

impl std::ops::AddAssign for Pulse {
    fn add_assign(&mut self, other: Self) {
        self.in_flight += other.in_flight;
        self.begun += other.begun;
    }
}

impl Worker {
    /// A worker without connections yet.
    pub fn new(settings: WorkerSettings) -> Rc<Self> {
        Rc::new(Self {
            index: settings.index,
            unattributed: settings.metrics.unattributed_calls(),
            intercepted: settings.metrics.intercepted(),
            outgoing: settings.outgoing,
            table: settings.table,
            upstreams: Upstreams::new(),
            alarms: Rc::default(),
            streams: Rc::default(),
            random: RefCell::new(Random::seeded(settings.seed)),
            buffers: Buffers::default(),
            // A host may call itself: out by the one side, in by the other. That is no loop.
            vias: [Vias::of(&settings.pseudonym), Vias::of(&format!("{}-inbound", settings.pseudonym))],
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            stopping: Cell::new(false),
            closing: Cell::new(false),
            cut_off: Cell::new(false),
            left: Notify::new(),
            swept: Cell::new(now()),
            in_flight: Cell::new(0),
            begun: Cell::new(0),
        })
    }

    /// What has to be done once a second: close what is idle for too long or leads nowhere any more.
    pub fn sweep(&self) {
        let now = now();
        self.swept.set(now);
        if self.upstreams.sweep(now, self.table.current().traffic().drain) {
            self.wake_all();
        }
        self.alarms.tidy();
        self.streams.look(now);
        self.each_connection(|control| {
            if control.idle_since().is_some_and(|since| now.saturating_duration_since(since) >= IDLE_LIMIT) {
                control.finish();
            }
        });
    }

    /// Begins to stop: each answer from now on says that it is its connection's last.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.upstreams.close_idle();
    }

    /// Goes on to stop: idle connections are closed, the others when their call has ended.
    pub fn close_idle(&self) {
        self.closing.set(true);
        self.each_connection(Control::finish);
    }

    /// Ends the stop: calls that still wait get a local reply, answers that still run are cut short.
    pub fn cut_off(&self) {
        self.cut_off.set(true);
        self.wake_all();
    }

    /// How busy it is.
    pub fn pulse(&self) -> Pulse {
        Pulse { in_flight: self.in_flight.get(), begun: self.begun.get() }
    }

    /// A call has begun; [`Worker::call_ends`] is owed.
    pub(super) fn call_begins(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.begun.set(self.begun.get() + 1);
    }

    /// Nothing is left of a call.
    pub(super) fn call_ends(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }

    /// Has a service made, and waits for it. Whoever waits counts as a call: it will be one.
    pub(super) async fn summon(&self, wanted: Wanted) -> Option<Arc<Service>> {
        struct Waits<'a>(&'a Worker);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.call_ends();
            }
        }
        self.call_begins();
        let _waits = Waits(self);
        self.table.summon(wanted).await.unwrap_or_default()
    }

    /// Waits until no connection of an app is open, tunnels included.
    pub async fn quiet(&self) {
        while !self.connections.borrow().is_empty() {
            self.left.notified().await;
        }
    }

    /// What our side of calls that came in there is called in Via.
    pub(super) fn vias(&self, entry: &Entry) -> &Vias {
        &self.vias[usize::from(*entry == Entry::Inbound)]
    }

    /// Whether a stop has begun.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Whether calls have to end now.
    pub(super) fn is_cut_off(&self) -> bool {
        self.cut_off.get()
    }

    /// Enters a connection into the list; it leaves when the control is dropped.
    pub(super) fn register(self: &Rc<Self>) -> Rc<Control> {
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        let control = Rc::new(Control::new(self.clone(), id, now()));
        self.connections.borrow_mut().insert(id, Rc::downgrade(&control));
        if self.closing.get() {
            control.finish();
        }
        control
    }

    pub(super) fn unregister(&self, id: u64) {
        self.connections.borrow_mut().remove(&id);
        self.left.notify_one();
    }

    /// Counts a call that no service can be blamed for.
    pub(super) fn count_unattributed(&self, outcome: Outcome) {
        self.unattributed.ended(outcome);
    }

    /// Counts an intercepted connection.
    pub(super) fn intercepted(&self, way: Way) {
        self.intercepted.came(way);
    }

    /// Has every connection and every call look at what has become of the worker, and of their endpoints.
    fn wake_all(&self) {
        self.each_connection(Control::wake);
        self.alarms.ring();
    }

    fn each_connection(&self, act: impl Fn(&Control)) {
        // Copied first: an act may make a connection leave the list.
        let controls: Vec<Rc<Control>> = self.connections.borrow().values().filter_map(Weak::upgrade).collect();
        controls.iter().for_each(|control| act(control));
    }

    /// The time, a second late at most; for what is counted in minutes.
    pub(super) fn recently(&self) -> Instant {
        self.swept.get()
    }

    /// The time, read once an event.
    pub(super) fn now(&self) -> Instant {
        now()
    }
}
