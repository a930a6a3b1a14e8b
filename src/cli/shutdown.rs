//! `outrigger shutdown`: the stop that SIGTERM begins, asked for from beside.
//!
//! For whoever cannot send a signal: a job that has done its work ends its sidecar, in another container, by the
//! socket that both can open.

use std::{thread, time::Duration};

use serde::Deserialize;

use super::{Failure, client::Door, find, print};

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(100);

/// Whom to stop.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Return when the sidecar is gone, and not at once
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    place: find::Place,
}

/// What is said of the health of a sidecar that stops.
#[derive(Deserialize)]
struct Health {
    #[serde(default)]
    why: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let door = args.place.for_changes()?;
    door.post("/shutdown")?.accepted()?;
    if !args.wait {
        return print("stopping\n");
    }
    while is_stopping(&door) {
        // A blocking program of one thread has nothing to await.
        thread::park_timeout(LOOK);
    }
    print("stopped\n")
}

/// Whether the sidecar that was told to stop still answers. One that says nothing of a stop is its successor.
fn is_stopping(door: &Door) -> bool {
    let Ok(answer) = door.get("/health/ready") else { return false };
    let Ok(Health { why }) = serde_json::from_slice(&answer.body) else { return false };
    why.iter().any(|why| why == "draining" || why == "stopping")
}
