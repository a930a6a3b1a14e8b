//! `outrigger drain`: before something is taken away.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{Failure, find, print};

/// What is to be taken away.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub(super) struct Args {
    /// No new attempts to this endpoint, in every service that has it: 10.0.0.1:8080
    #[arg(group = "what")]
    endpoint: Option<SocketAddr>,
    /// The sidecar itself: not ready any more, while calls go on
    #[arg(long, group = "what")]
    all: bool,
    #[command(flatten)]
    place: find::Place,
}

#[derive(Deserialize)]
struct Drained {
    services: usize,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let door = args.place.for_changes()?;
    let Some(endpoint) = args.endpoint else {
        door.post("/drain")?.accepted()?;
        return print("not ready any more; calls go on until the sidecar is stopped\n");
    };
    let Drained { services } = door.post(&format!("/drain/{endpoint}"))?.accepted()?.json()?;
    let services = if services == 1 { "1 service".to_owned() } else { format!("{services} services") };
    print(&format!("{endpoint}: no new attempts, in {services}\n"))
}
