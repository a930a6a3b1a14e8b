//! `outrigger health`: is the sidecar ready?
//!
//! For images without a shell, where the health check of a container has only this binary to run.

use serde::Deserialize;

use super::{Failure, find, layout::printable, print};

/// Whose health.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: find::Place,
}

/// The answer of `/health/ready` when it is no.
#[derive(Deserialize)]
struct NotReady {
    #[serde(default)]
    why: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let answer = args.place.for_questions()?.get("/health/ready")?;
    if answer.status == 200 {
        return print("ready\n");
    }
    let why = serde_json::from_slice(&answer.body).map_or_else(|_| vec![answer.detail()], |NotReady { why }| why);
    Err(Failure::No(format!("not ready: {}", printable(&why.join("; ")))))
}
