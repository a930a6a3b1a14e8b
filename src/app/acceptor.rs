//! The acceptor thread: one task a listening socket.

use std::{
    collections::HashMap,
    io,
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
};

use prometheus::IntGauge;
use tokio::{
    runtime,
    sync::{Semaphore, mpsc, oneshot},
    task::{AbortHandle, LocalSet},
};

use super::listeners::Listeners;
use crate::{
    config::Entry,
    proxy::listener::{self, Intake, Intakes},
};

/// What the acceptor is told. The one reply says that it has been done.
#[derive(Debug)]
struct Change {
    remove: Vec<(Entry, TcpListener)>,
    add: Vec<(Entry, TcpListener)>,
    connections: Option<usize>,
    done: oneshot::Sender<()>,
}

/// The acceptor; dropping it closes every listening socket that it holds.
#[derive(Debug)]
pub(super) struct Acceptor {
    changes: mpsc::Sender<Change>,
    thread: JoinHandle<()>,
}

/// Starts to accept.
pub(super) fn start(
    listeners: &Listeners,
    workers: Vec<Intake>,
    connections: usize,
    gauge: IntGauge,
) -> io::Result<Acceptor> {
    let first = listeners.handles(listeners.entries())?;
    let (changes, received) = mpsc::channel(1);
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name("acceptor".into()).spawn(move || {
        let limit = Arc::new(Semaphore::new(connections));
        let intakes = Intakes { workers: Rc::from(workers), limit, gauge };
        LocalSet::new().block_on(&runtime, run(intakes, connections, first, received));
    })?;
    Ok(Acceptor { changes, thread })
}

async fn run(
    intakes: Intakes,
    mut connections: usize,
    first: Vec<(Entry, TcpListener)>,
    mut changes: mpsc::Receiver<Change>,
) {
    let mut accepting: HashMap<Entry, AbortHandle> = HashMap::new();
    let begin = |accepting: &mut HashMap<_, _>, (entry, socket): (Entry, TcpListener)| {
        let (intakes, name) = (intakes.clone(), entry.clone());
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = listener::accept(socket, name.clone(), intakes).await {
                tracing::error!(%error, entry = ?name, "a listening socket failed");
            }
        });
        accepting.insert(entry, task.abort_handle());
    };
    first.into_iter().for_each(|one| begin(&mut accepting, one));
    while let Some(change) = changes.recv().await {
        for (entry, socket) in &change.remove {
            if let Some(task) = accepting.remove(entry) {
                task.abort();
            }
            listener::last_call(socket, entry, &intakes).await;
        }
        change.add.into_iter().for_each(|one| begin(&mut accepting, one));
        if let Some(wanted) = change.connections {
            resize(&intakes.limit, connections, wanted);
            connections = wanted;
        }
        let _ = change.done.send(());
    }
}

/// Changes how many connections may be open. A lower limit is reached as connections close.
fn resize(limit: &Arc<Semaphore>, from: usize, to: usize) {
    if to >= from {
        limit.add_permits(to - from);
        return;
    }
    for _ in to..from {
        let limit = limit.clone();
        tokio::task::spawn_local(async move {
            if let Ok(permit) = limit.acquire_owned().await {
                permit.forget();
            }
        });
    }
}

impl Acceptor {
    /// Stops accepting on some sockets (of which it is given another handle each), begins on others, and lets
    /// so many connections be open if that has changed. What had connected already is taken in.
    pub(super) async fn change(
        &self,
        remove: Vec<(Entry, TcpListener)>,
        add: Vec<(Entry, TcpListener)>,
        connections: Option<usize>,
    ) {
        let (done, applied) = oneshot::channel();
        if self.changes.send(Change { remove, add, connections, done }).await.is_ok() {
            let _ = applied.await;
        }
    }

    /// Closes every socket; returns when the thread has ended.
    pub(super) async fn stop(self, sockets: Vec<(Entry, TcpListener)>) {
        self.change(sockets, Vec::new(), None).await;
        drop(self.changes);
        if self.thread.join().is_err() {
            tracing::error!("the acceptor panicked");
        }
    }
}
