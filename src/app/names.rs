//! Names that lead to services without DNS: the hosts file.

use crate::{config::Config, service::Table, vip::hosts};

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
