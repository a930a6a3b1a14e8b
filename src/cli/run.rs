//! `outrigger run`: the sidecar itself, and an app beside it if one is given.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use super::{Failure, fail};
use crate::{app, config};

/// What to run.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration [default: outrigger.yaml here, then /etc/outrigger/outrigger.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The app to run once the sidecar is ready; its exit code is that of `run`
    #[arg(last = true, value_name = "APP")]
    app: Vec<OsString>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
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
    let ended = match &args.app[..] {
        [] => app::run(&path).map(|()| 0),
        command => app::run_with_app(&path, command),
    };
    match ended {
        Ok(code) => Ok(code.into()),
        Err(error) => match error.exit_code() {
            1 => Err(Failure::No(error.to_string())),
            70 => Err(Failure::Internal(error.to_string())),
            // What a shell says of a command that it cannot run.
            code => Ok(fail(code, &error.to_string())),
        },
    }
}
