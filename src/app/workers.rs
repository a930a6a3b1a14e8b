//! The worker threads: each with a single-threaded runtime of its own.

use std::{
    io,
    rc::Rc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime,
    sync::mpsc,
    task::LocalSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    config::Config,
    proxy::{
        Worker, WorkerSettings,
        listener::{self, Accepted, Intake},
    },
};

/// How often a worker looks for what has been idle for too long.
const SWEEP: Duration = Duration::from_secs(1);

/// How long answers that say "stopped" may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How many workers a config asks for: one a core unless it says otherwise.
pub(super) fn count(config: &Config) -> usize {
    let cores = || thread::available_parallelism();
    config.workers.map_or_else(|| cores().map_or(1, usize::from), usize::from)
}

/// What a worker is told.
#[derive(Debug, Clone, Copy)]
enum Command {
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
    intake: Intake,
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

/// Starts `count` workers.
pub(super) fn start(count: usize, template: &WorkerSettings) -> io::Result<Workers> {
    let (alive, ended) = mpsc::channel(1);
    let start = |index| {
        let settings =
            WorkerSettings { index, seed: template.seed.wrapping_add(index as u64), ..template.clone() };
        let (intake, accepted) = Intake::new();
        let (commands, orders) = mpsc::channel(4);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let alive = alive.clone();
        let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let _alive = alive;
            LocalSet::new().block_on(&runtime, work(settings, accepted, orders));
        })?;
        Ok(Handle { intake, commands, thread })
    };
    Ok(Workers { each: (0..count).map(start).collect::<io::Result<_>>()?, ended })
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
                Some(Command::Stop) => break,
                Some(Command::CutOff) | None => return cut_off(&worker).await,
            },
        }
    }
    worker.stop();
    let quiet = async {
        // The acceptor is gone by now: what it had handed over is still taken in.
        let _ = (&mut serving).await;
        worker.quiet().await;
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
    /// How the acceptor reaches them.
    pub(super) fn intakes(&self) -> Vec<Intake> {
        self.each.iter().map(|worker| worker.intake.clone()).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.each.len()
    }

    /// Has them finish what is in flight; returns when all have.
    pub(super) async fn stop(&mut self) {
        self.tell(Command::Stop).await;
        let _ = self.ended.recv().await;
    }

    /// Has them end now; returns when all have.
    pub(super) async fn cut_off(&mut self) {
        self.tell(Command::CutOff).await;
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

    async fn tell(&self, command: Command) {
        for worker in &self.each {
            // One that has ended needs no telling.
            let _ = worker.commands.send(command).await;
        }
    }
}
