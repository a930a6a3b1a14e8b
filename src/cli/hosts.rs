//! `outrigger hosts`: /etc/hosts lines for the VIPs, once there are VIPs.

use std::path::PathBuf;

use super::Failure;

/// Whose VIPs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration [default: outrigger.yaml here, then /etc/outrigger/outrigger.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(_: &Args) -> Result<(), Failure> {
    Err(Failure::No("not supported yet: VIPs; use the shared port with a Host header, or a service's `listen`".into()))
}
