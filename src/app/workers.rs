//! The worker threads: each with a single-threaded runtime of its own.

use std::{
    io,
    rc::Rc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    task::LocalSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    config::Config,
    proxy::{
        Pulse, Worker, WorkerSettings,
        listener::{self, Accepted, Intake},
    },
};

/// How often a worker looks for what has been idle for too long.
const SWEEP: Duration = Duration::from_secs(1);

/// How long an idle connection may still bring a request after a stop has begun: it may be on its way.
pub(super) const LAST_REQUEST: Duration = Duration::from_millis(250);

/// How long answers that say "stopped" may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How many workers a config asks for: one a core unless it says otherwise.
pub(super) fn count(config: &Config) -> usize {
    let cores = || thread::available_parallelism();
    config.workers.map_or_else(|| cores().map_or(1, usize::from), usize::from)
}

/// What a worker is told.
#[derive(Debug)]
enum Command {
    /// Say how busy you are.
    Pulse(oneshot::Sender<Pulse>),
    /// Finish what is in flight, then end.
    Stop,
    /// End now.
    CutOff,
}

/// All workers.
#[derive(Debug)]
pub(super) struct Workers {
    each: Vec<Handle>,
    /// Closed when the last worker has ended.
    ended: mpsc::Receiver<()>,
}

#[derive(Debug)]
struct Handle {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

/// Starts `count` workers. Their intakes belong to the acceptor alone: a worker that stops takes in what is still
/// on its way until the last handle to its intake is gone.
pub(super) fn start(count: usize, template: &WorkerSettings) -> io::Result<(Workers, Vec<Intake>)> {
    let (alive, ended) = mpsc::channel(1);
    let start = |index| {
        let settings = WorkerSettings { index, seed: template.seed.wrapping_add(index as u64), ..template.clone() };
        let (intake, accepted) = Intake::new();
        let (commands, orders) = mpsc::channel(4);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let alive = alive.clone();
        let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let _alive = alive;
            LocalSet::new().block_on(&runtime, work(settings, accepted, orders));
        })?;
        Ok((Handle { commands, thread }, intake))
    };
    let (each, intakes) = (0..count).map(start).collect::<io::Result<(Vec<_>, Vec<_>)>>()?;
    Ok((Workers { each, ended }, intakes))
}

async fn work(settings: WorkerSettings, accepted: mpsc::Receiver<Accepted>, mut orders: mpsc::Receiver<Command>) {
    let worker = Worker::new(settings);
    let mut serving = tokio::task::spawn_local(listener::serve(worker.clone(), accepted));
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = sweep.tick() => worker.sweep(),
            order = orders.recv() => match order {
                // Whoever has asked may have given up.
                Some(Command::Pulse(reply)) => drop(reply.send(worker.pulse())),
                Some(Command::Stop) => break,
                Some(Command::CutOff) | None => return cut_off(&worker).await,
            },
        }
    }
    worker.stop();
    let quiet = async {
        // The acceptor is gone by now: what it had handed over is still taken in.
        let _ = (&mut serving).await;
        if tokio::time::timeout(LAST_REQUEST, worker.quiet()).await.is_err() {
            worker.close_idle();
            worker.quiet().await;
        }
    };
    tokio::select! {
        () = quiet => {}
        _ = orders.recv() => cut_off(&worker).await,
    }
}

async fn cut_off(worker: &Rc<Worker>) {
    worker.cut_off();
    // Whoever takes no answer now will not get one.
    let _ = tokio::time::timeout(LAST_WORDS, worker.quiet()).await;
}

impl Workers {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.each.len()
    }

    /// How busy they are, taken together.
    pub(super) async fn pulse(&self) -> Pulse {
        let mut sum = Pulse::default();
        for worker in &self.each {
            let (reply, replied) = oneshot::channel();
            let asked = worker.commands.send(Command::Pulse(reply)).await;
            // One that has ended has no calls.
            if asked.is_ok()
                && let Ok(pulse) = replied.await
            {
                sum += pulse;
            }
        }
        sum
    }

    /// Has them finish what is in flight; returns when all have.
    pub(super) async fn stop(&mut self) {
        self.tell(|| Command::Stop).await;
        let _ = self.ended.recv().await;
    }

    /// Has them end now; returns when all have.
    pub(super) async fn cut_off(&mut self) {
        self.tell(|| Command::CutOff).await;
        let _ = self.ended.recv().await;
    }

    /// Waits for the threads themselves.
    pub(super) fn join(self) {
        for worker in self.each {
            if worker.thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }

    async fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.each {
            // One that has ended needs no telling.
            let _ = worker.commands.send(command()).await;
        }
    }
}
