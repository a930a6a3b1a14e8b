//! `outrigger run -- APP`: the app as our child, for a container that holds both and nothing that would
//! start one after the other.
//!
//! The order is what such a container lacks: the sidecar, until it is ready; then the app; when the app has ended, what
//! is in flight; then the sidecar, with the app's exit code. An app never runs without its sidecar.
//!
//! Signals are the app's (`signals`): it decides what they mean, and as long as it lives it is served. SIGTERM alone
//! means something to us as well: not ready any more, and an app that is still there after `drain.for` is
//! killed. `POST /shutdown` is a SIGTERM. As process 1 of a container we inherit what other processes leave behind, and
//! wait for whatever child ends (`reap`).
//!
//! The app is in our own process group, and its children are not ours to signal: as with tini, and other than with
//! dumb-init, signals go to the app alone. What it leaves running ends with the container.

mod reap;
mod signals;

use std::{
    ffi::{OsStr, OsString},
    io,
    process::Command,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    runtime,
    time::{Instant, interval, sleep_until},
};

use self::{reap::Reaper, signals::Signals};
use super::{Error, Sidecar, control::Order};
use crate::service::Readiness;

/// How often it is looked whether the sidecar is ready.
const LOOK: Duration = Duration::from_millis(10);

/// What a shell adds to the number of the signal that ended a process.
const SIGNALLED: u8 = 128;

/// Starts the sidecar and then the app, and ends with it: the answer is the exit code.
pub(super) fn run(command: &[OsString], start: impl FnOnce() -> Result<Sidecar, Error>) -> Result<u8, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::System)?;
    // Before anything is there that a signal could leave behind.
    let (mut signals, mut reaper) = {
        let _entered = runtime.enter();
        (Signals::install().map_err(Error::System)?, Reaper::install().map_err(Error::System)?)
    };
    let mut sidecar = start()?;
    let ended = runtime.block_on(async {
        let life = live(command, &sidecar, &mut signals, &mut reaper).await;
        let left = life.as_ref().ok().and_then(|life| life.deadline).map(until);
        sidecar.end(left, &mut signals, &mut reaper).await;
        life
    });
    sidecar.join()?;
    ended.map(|life| life.code)
}

/// What an app came to.
struct Life {
    code: u8,
    /// By when all had to be over, if somebody had said so.
    deadline: Option<Instant>,
}

/// From the sidecar's start to the app's end.
async fn live(
    command: &[OsString],
    sidecar: &Sidecar,
    signals: &mut Signals,
    reaper: &mut Reaper,
) -> Result<Life, Error> {
    if let Some(signal) = ready(sidecar, signals, reaper).await? {
        tracing::info!(signal = signals::name(signal), "stopped before the app was started");
        return Ok(Life { code: code_of(signal.as_raw()), deadline: None });
    }
    let app = spawn(command)?;
    tracing::info!(command = %command[0].display(), pid = app.as_raw_nonzero(), "the app is started");
    let mut deadline = None;
    let mut is_broken = false;
    loop {
        let signal = tokio::select! {
            code = reaper.ended(app) => {
                tracing::info!(code, "the app has ended");
                return Ok(Life { code, deadline });
            }
            () = overdue(deadline) => {
                tracing::warn!("the app is still there when drain.for is over: it is killed");
                send(app, Signal::KILL);
                return Ok(Life { code: reaper.ended(app).await, deadline });
            }
            signal = signals.next() => signal,
            () = sidecar.lifecycle.stop_asked(), if deadline.is_none() => Signal::TERM,
            () = sidecar.orders.closed(), if !is_broken => {
                // Why, is told when it is joined.
                tracing::error!("the sidecar broke down: the app is told to stop");
                is_broken = true;
                Signal::TERM
            }
        };
        if signal == Signal::TERM && deadline.is_none() {
            sidecar.lifecycle.start_draining();
            let limit = sidecar.table.current().traffic().drain;
            tracing::info!(?limit, "draining: not ready, and the app is told to stop");
            deadline = Instant::now().checked_add(limit);
        }
        if signals::has_reached_our_group(signal) {
            continue;
        }
        send(app, signal);
    }
}

/// Waits until the sidecar is ready; a signal that ends the process before is the answer otherwise.
async fn ready(sidecar: &Sidecar, signals: &mut Signals, reaper: &mut Reaper) -> Result<Option<Signal>, Error> {
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => {
                if matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT) {
                    return Ok(Some(signal));
                }
            }
            () = sidecar.lifecycle.stop_asked() => return Ok(Some(Signal::TERM)),
            () = sidecar.orders.closed() => return Err(Error::Internal("the control thread ended before the app began")),
            () = reaper.reap() => {}
            _ = look.tick() => {
                if sidecar.lifecycle.readiness() == Readiness::Ready {
                    return Ok(None);
                }
            }
        }
    }
}

fn spawn(command: &[OsString]) -> Result<Pid, Error> {
    let (program, arguments) = command.split_first().expect("there is a command");
    // Whoever is our child is waited for by the reaper, and by nobody else.
    let spawned = Command::new::<&OsStr>(program).args(arguments).spawn();
    spawned.map(|child| Pid::from_child(&child)).map_err(|source| {
        // Of a folder in PATH that may not be looked into, the system says no more than that (execvp(3)).
        let is_denied = source.kind() == io::ErrorKind::PermissionDenied;
        let source = if is_denied && is_nowhere(program) { io::ErrorKind::NotFound.into() } else { source };
        Error::App { command: program.clone(), source }
    })
}

/// Whether a bare command is in no folder of PATH, as far as can be seen.
fn is_nowhere(program: &OsStr) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    !program.as_encoded_bytes().contains(&b'/')
        && !std::env::split_paths(&folders).any(|folder| folder.join(program).exists())
}

fn send(app: Pid, signal: Signal) {
    // It has not been waited for, so the number is still its own, even if it has ended.
    if let Err(error) = kill_process(app, signal) {
        tracing::warn!(%error, signal = signals::name(signal), "the app cannot be sent a signal");
    }
}

async fn overdue(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn code_of(signal: i32) -> u8 {
    SIGNALLED.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX))
}

impl Sidecar {
    /// Has it finish what is in flight, within this time or the configuration's; returns when it has ended. A signal
    /// hurries it.
    async fn end(&mut self, limit: Option<Duration>, signals: &mut Signals, reaper: &mut Reaper) {
        let _ = self.orders.try_send(Order::Stop(limit));
        loop {
            tokio::select! {
                () = self.orders.closed() => return,
                () = reaper.reap() => {}
                signal = signals.next() => {
                    if matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT) {
                        let _ = self.orders.try_send(Order::Hurry);
                    }
                }
            }
        }
    }
}
