//! Names that lead to services: in the hosts file, and those that the DNS responder meets and no service bears.

use crate::{
    config::Config,
    service::{Table, Wanted},
    vip::{dns::Summon, hosts},
};

/// Brings the hosts file that the configuration names up to date. One that cannot be written is no reason to refuse
/// to run: it is reported, and the other ways in are as good as before.
pub(super) fn write_hosts(config: &Config, table: &Table) {
    let Some(path) = config.vip.as_ref().and_then(|vip| vip.hosts.as_deref()) else { return };
    let services = table.current();
    let vips =
        services.declared().filter_map(|service| Some((service.vip()?, service.config().names(services.domain()))));
    match hosts::write(path, &hosts::lines(vips)) {
        Ok(true) => tracing::info!(path = %path.display(), "the names of the services are in the hosts file"),
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
