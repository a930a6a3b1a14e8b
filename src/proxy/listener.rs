//! Accepting connections and handing each to a worker.
//!
//! One thread accepts for all listeners. A sidecar sees few connections that live long, and a kernel that
//! spreads them by hash leaves workers idle while others are full; so each connection goes to the worker
//! with the fewest. At the limit of open connections nobody else is served: callers wait in the kernel's
//! queue (and one a listener in our hands), as with HAProxy's `maxconn`, until somebody leaves.

use std::{
    io,
    net::TcpStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus::IntGauge;
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use super::{connection, worker::Worker};
use crate::{config::Entry, net::tcp};

/// How long to pause when the process has run out of file descriptors: nothing else helps.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Accepted {
    stream: TcpStream,
    entry: Entry,
    guard: OpenConnection,
}

/// Counts a connection as open for as long as it is.
#[derive(Debug)]
pub(super) struct OpenConnection {
    of_worker: Arc<AtomicUsize>,
    gauge: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.of_worker.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

/// How the acceptor reaches a worker.
#[derive(Debug, Clone)]
pub struct Intake {
    queue: mpsc::Sender<Accepted>,
    open: Arc<AtomicUsize>,
}

impl Intake {
    /// An intake, and the end of it that [`serve`] reads.
    pub fn new() -> (Self, mpsc::Receiver<Accepted>) {
        let (queue, accepted) = mpsc::channel(256);
        (Self { queue, open: Arc::default() }, accepted)
    }
}

/// Where accepted connections go, and how many there may be.
#[derive(Debug, Clone)]
pub struct Intakes {
    /// One a worker.
    pub workers: Rc<[Intake]>,
    /// A permit for each connection that may be open.
    pub limit: Arc<Semaphore>,
    /// Counts the open ones.
    pub gauge: IntGauge,
}

impl Intakes {
    /// Hands a connection to the worker with the fewest; false when there are no workers any more.
    async fn hand(&self, stream: TcpStream, entry: &Entry, permit: OwnedSemaphorePermit) -> bool {
        let Some(worker) = self.workers.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed)) else {
            return false;
        };
        worker.open.fetch_add(1, Ordering::Relaxed);
        self.gauge.inc();
        let guard = OpenConnection { of_worker: worker.open.clone(), gauge: self.gauge.clone(), _permit: permit };
        worker.queue.send(Accepted { stream, entry: entry.clone(), guard }).await.is_ok()
    }
}

/// Accepts connections from one listener until it is dropped.
///
/// # Errors
/// The listener cannot be watched at all.
pub async fn accept(listener: std::net::TcpListener, entry: Entry, intakes: Intakes) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        // In this order: a listener that waits for its next caller must not keep a place from the others.
        let stream = next(&listener).await;
        let Ok(permit) = intakes.limit.clone().acquire_owned().await else { return Ok(()) };
        if !intakes.hand(stream, &entry, permit).await {
            return Ok(());
        }
    }
}

/// Takes in what has connected already, from a listener that is about to be closed: the kernel resets
/// whatever still waits in its queue then.
pub async fn last_call(listener: &std::net::TcpListener, entry: &Entry, intakes: &Intakes) {
    while let Ok(permit) = intakes.limit.clone().try_acquire_owned() {
        let Ok((stream, _)) = listener.accept() else { return };
        if tcp::prepare_accepted(&stream).is_ok() && !intakes.hand(stream, entry, permit).await {
            return;
        }
    }
}

/// The next connection, taken out of this thread's event loop: it belongs into a worker's.
async fn next(listener: &TcpListener) -> TcpStream {
    loop {
        let accepted = match listener.accept().await {
            Ok((stream, _)) => stream.into_std().and_then(|stream| {
                tcp::prepare_accepted(&stream)?;
                Ok(stream)
            }),
            Err(error) if concerns_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections right now");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        match accepted {
            Ok(stream) => return stream,
            Err(error) => tracing::debug!(%error, "an accepted connection was already gone"),
        }
    }
}

/// accept(2): errors of the network that were pending on the connection, not on the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Serves what the acceptor sends to this worker, each connection on a task of its own, until the acceptor
/// is gone.
pub async fn serve(worker: Rc<Worker>, mut accepted: mpsc::Receiver<Accepted>) {
    while let Some(Accepted { stream, entry, guard }) = accepted.recv().await {
        let stream = match tokio::net::TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot watch an accepted connection");
                continue;
            }
        };
        // Known to its worker from this moment, not from its task's first turn: a stop must not overlook it.
        let control = worker.register();
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            connection::serve(worker, control, stream, entry, guard).await;
        });
    }
}
