//! Waiting for children: the app, and what others leave to process 1.
//!
//! One place waits for all of them, so that no end is missed and nobody waits for a number that has been given to
//! another process since. The standard library must not wait as well: an app is known by its number alone.

use std::io;

use rustix::{
    io::Errno,
    process::{Pid, WaitOptions, WaitStatus, wait},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::code_of;

/// Who waits.
#[derive(Debug)]
pub(super) struct Reaper(Signal);

impl Reaper {
    /// Begins to listen for ends; an end before that would be missed.
    pub(super) fn install() -> io::Result<Self> {
        signal(SignalKind::child()).map(Self)
    }

    /// Waits for the end of the app; its exit code, or what a shell would say of the signal that ended it.
    ///
    /// Once: whoever gives up waiting finds the end when it waits again, whoever has been told will not be again.
    pub(super) async fn ended(&mut self, app: Pid) -> u8 {
        loop {
            // First, as the signal may have been before the app was known.
            if let Some(status) = ends().find_map(|(pid, status)| (pid == app).then_some(status)) {
                return code(status);
            }
            self.0.recv().await;
        }
    }

    /// Waits for the next end of a child that is nobody's, and forgets it.
    pub(super) async fn reap(&mut self) {
        self.0.recv().await;
        ends().for_each(drop);
    }
}

/// Children that have ended and not been waited for.
fn ends() -> impl Iterator<Item = (Pid, WaitStatus)> {
    std::iter::from_fn(|| {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(ended) => return ended,
                Err(Errno::INTR) => {}
                // There is no child.
                Err(_) => return None,
            }
        }
    })
}

fn code(status: WaitStatus) -> u8 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, Some(signal)) => code_of(signal),
        (None, None) => u8::MAX,
    }
}
