//! `outrigger run`: the sidecar itself.

use std::path::PathBuf;

use super::Failure;
use crate::{app, config};

/// What to run.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration [default: outrigger.yaml here, then /etc/outrigger/outrigger.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let path = config::find(args.config.as_deref());
    if !path.exists() {
        return Err(Failure::No(match &args.config {
            Some(path) => format!("there is no file {}", path.display()),
            None => "there is no configuration: neither ./outrigger.yaml nor /etc/outrigger/outrigger.yaml exists\n\
                     \n\
                     name one with -c FILE, or begin with this one:\n\
                     \n\
                     services:\n  orders: { dns: orders:8080 }\n\
                     \n\
                     `outrigger demo` shows what it does, with no configuration at all"
                .into(),
        }));
    }
    app::run(&path).map_err(|error| match error.exit_code() {
        1 => Failure::No(error.to_string()),
        _ => Failure::Internal(error.to_string()),
    })
}
