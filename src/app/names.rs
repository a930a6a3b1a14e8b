//! Names that lead to services: in the hosts file, and those that the DNS responder meets and no service bears.

use std::{io, path::Path, sync::Arc};

use crate::{
    config::Config,
    service::{Service, Table, Wanted},
    vip::{dns::Summon, hosts},
};

/// Brings the hosts file that the configuration names up to date, and leaves the one that it named before. One that cannot
/// be written is no reason to refuse to run: it is reported, and the other ways in are as good as before.
pub(super) fn keep_hosts(before: Option<&Config>, config: &Config, table: &Table) {
    let path = |config: &Config| config.vip.as_ref().and_then(|vip| vip.hosts.clone());
    let (left, kept) = (before.and_then(path), path(config));
    if let Some(path) = left.filter(|left| Some(left) != kept.as_ref()) {
        report(&path, hosts::write(&path, ""), "the names of the services are out of the hosts file");
    }
    if let Some(path) = kept {
        let services = table.current();
        let named = |service: &Arc<Service>| Some((service.vip()?, service.config().names(services.domain())));
        let lines = hosts::lines(services.declared().filter_map(named));
        report(&path, hosts::write(&path, &lines), "the names of the services are in the hosts file");
    }
}

fn report(path: &Path, written: io::Result<bool>, what: &str) {
    match written {
        Ok(true) => tracing::info!(path = %path.display(), "{what}"),
        Ok(false) => {}
        Err(error) => tracing::error!(path = %path.display(), %error, "the hosts file cannot be kept (vip.hosts)"),
    }
}

/// How the responder has services made, where the configuration makes some.
pub(super) fn summon(config: &Config, table: &Table) -> Option<Summon> {
    config.wildcard.as_ref()?;
    let table = table.clone();
    Some(Summon::new(move |name| {
        let table = table.clone();
        async move { table.summon(Wanted::Named(name)).await }
    }))
}
