//! `outrigger check`: is this configuration valid?

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::{Failure, print};
use crate::config::{self, Config};

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration [default: outrigger.yaml here, then /etc/outrigger/outrigger.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let path = config::find(args.config.as_deref());
    let loaded = Config::load(&path).map_err(|problems| Failure::No(problems.to_string()))?;
    for warning in &loaded.warnings {
        // A warning that nobody reads changes no verdict.
        let _ = writeln!(io::stderr(), "{}", warning.to_string().trim_end());
    }
    let services = match loaded.config.services.len() {
        1 => "1 service".to_owned(),
        n => format!("{n} services"),
    };
    let others = if loaded.config.wildcard.is_some() { ", and `*`" } else { "" };
    print(&format!("{}: ok ({services}{others})\n", path.display()))
}
