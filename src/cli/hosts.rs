//! `outrigger hosts`: the lines of a hosts file for the VIPs, printed or kept in a file.
//!
//! The running sidecar knows best which service has which VIP. Where none runs, the configuration and what is
//! remembered lead to the same addresses, so that an image or an init step can have its file before there is one.

use std::{net::Ipv4Addr, path::PathBuf};

use serde::Deserialize;

use super::{Failure, find, print};
use crate::{
    config::{self, Config},
    service::view::VipView,
    vip::{Addresses, hosts},
};

/// Which lines, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: find::Place,
    /// Keep the lines in this file, between two marks, and leave the rest of it alone [default: /etc/hosts]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "/etc/hosts", conflicts_with = "remove")]
    write: Option<PathBuf>,
    /// Take the lines out of this file again [default: /etc/hosts]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "/etc/hosts")]
    remove: Option<PathBuf>,
    /// Names with the domain alone (orders.vip.internal), and no bare ones (orders)
    #[arg(long)]
    qualified: bool,
}

/// What matters here of `/api/services`.
#[derive(Deserialize)]
struct Services {
    services: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    /// A service of `*` may be gone before the lines are.
    #[serde(default)]
    made: bool,
    entry: Entry,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    vip: Option<VipView>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(path) = &args.remove {
        return write(path, "");
    }
    let mut vips = match running(&args.place) {
        Some(vips) => vips,
        None => configured(&args.place)?,
    };
    if args.qualified {
        // Every name is there twice: with the domain, and without.
        vips.iter_mut().for_each(|(_, names)| *names = names.iter().step_by(2).cloned().collect());
    }
    vips.sort_by(|(_, a), (_, b)| a.cmp(b));
    let lines = hosts::lines(vips);
    match &args.write {
        Some(path) => write(path, &lines),
        None => print(&lines),
    }
}

fn write(path: &std::path::Path, lines: &str) -> Result<(), Failure> {
    match hosts::write(path, lines) {
        Ok(true) => print(&format!("{} is up to date now\n", path.display())),
        Ok(false) => print(&format!("{} was up to date\n", path.display())),
        Err(error) => Err(Failure::No(format!("{} cannot be kept: {error}", path.display()))),
    }
}

/// The VIPs as the running sidecar has them; `None` when none answers.
fn running(place: &find::Place) -> Option<Vec<(Ipv4Addr, Vec<String>)>> {
    let answer = place.for_questions().ok()?.get("/api/services").ok()?.accepted().ok()?;
    let Services { services } = answer.json().ok()?;
    let vips: Vec<_> = services.into_iter().filter(|named| !named.made).filter_map(|named| named.entry.vip).collect();
    // A sidecar without VIPs, or of another configuration: that is for the file to say.
    (!vips.is_empty()).then(|| vips.into_iter().map(|vip| (vip.address, vip.names)).collect())
}

/// The VIPs as they follow from the configuration and from what is remembered.
fn configured(place: &find::Place) -> Result<Vec<(Ipv4Addr, Vec<String>)>, Failure> {
    let path = config::find(place.config());
    let loaded = Config::load(&path).map_err(|problems| Failure::No(problems.to_string()))?;
    let config = loaded.config;
    let Some(settings) = &config.vip else {
        return Err(Failure::No(format!(
            "{}: services have no VIPs; switch them on with a section `vip: {{}}`, or `listen: {{ dns: ... }}`",
            path.display()
        )));
    };
    let mut addresses = Addresses::open(settings).map_err(|error| Failure::No(error.to_string()))?;
    addresses.assign(&config, []).map_err(|error| Failure::No(error.to_string()))?;
    let named = |service: &std::sync::Arc<config::Service>| {
        Some((*addresses.current().get(&service.name)?, service.names(&config.domain)))
    };
    Ok(config.services.values().filter_map(named).collect())
}
