//! Reload: from the configuration that runs to the one that the file holds now.
//!
//! All or nothing. The file is read and every new port bound first; if either fails, the old configuration
//! stays and the log says why. Then the table of services is swapped whole: calls in flight keep the
//! service that they started with, and whatever of its state the change leaves meaningful is shared by both
//! versions. Listeners that stay are not touched, so no connection notices.

use tokio::task::yield_now;

use super::{
    Error,
    control::{Running, discovery},
    listeners::Changed,
    names,
};
use crate::{
    config::{self, Changes, Config, Part},
    net::tcp,
    service::{Services, now},
    telemetry::AccessLog,
    vip::{self, dns},
};

/// Reads the file again and goes over to what it says. Answers with what has changed, or with what is wrong.
pub(super) async fn reload(running: &mut Running) -> Result<String, String> {
    let result = try_reload(running).await;
    match &result {
        Ok(summary) => tracing::info!(changes = summary, "reloaded the configuration"),
        Err(problems) => tracing::error!(problems, "the configuration cannot be reloaded, the old one stays"),
    }
    result
}

async fn try_reload(running: &mut Running) -> Result<String, String> {
    let Some(origin) = &mut running.origin else { return Err("this sidecar was not started from a file".into()) };
    origin.file.will_be_read();
    let loaded = Config::load(origin.file.path()).map_err(|problems| problems.to_string())?;
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "the configuration has a questionable point");
    }
    let changes = config::diff(&running.config, &loaded.config);
    let mut config = loaded.config;
    keep_what_needs_a_restart(&mut config, &running.config);
    let vips = vips(running, &config).map_err(|error| error.to_string())?;
    let addresses = vips.as_ref().map(|vips| vips.current().clone()).unwrap_or_default();
    let mark = config.mark();
    tcp::may_mark(mark).map_err(|error| Error::Mark(error).to_string())?;
    let Changed { listeners, added, removed } =
        running.listeners.changed_to(&config, &addresses).map_err(|error| error.to_string())?;
    let added = listeners.handles(&added).map_err(|error| error.to_string())?;
    let removed = running.listeners.handles(&removed).map_err(|error| error.to_string())?;
    let discovery = match running.config.resolver == config.resolver {
        true => None,
        false => {
            let fresh = discovery(&config.resolver, &running.system, &running.metrics);
            Some(fresh.map_err(|error| error.to_string())?)
        }
    };
    let access_log = access_log(running, &config)?;
    let answers = match &running.responder {
        Some(responder) => Some(
            responder
                .prepare(dns::Settings::of(&config, names::summon(&config, &running.table)))
                .map_err(|error| error.to_string())?,
        ),
        None => None,
    };
    let old = running.table.current().clone();
    let services =
        Services::new(&config, &running.metrics, access_log.clone(), running.workers, &addresses, Some(&old), now())
            .map_err(|error| error.to_string())?;

    // From here on nothing fails.
    tcp::mark_own(mark);
    if let Some(origin) = &running.origin {
        origin.level.set(config.log.level);
    }
    running.lifecycle.set_limit(config.ready_limit);
    running.access_log = access_log;
    running.vips = vips;
    if let Some(vips) = &mut running.vips {
        vips.remember();
    }
    running.table.replace(services);
    names::keep_hosts(Some(&running.config), &config, &running.table);
    if let (Some(responder), Some(answers)) = (&running.responder, answers) {
        responder.reconfigure(answers);
    }
    running.acceptor.change(removed, added, Some(config.limits.connections)).await;
    running.listeners = listeners;

    if let Some(discovery) = discovery {
        running.wiring.replace_discovery(discovery);
    }
    let has_new_source = |(_, parts): &&(_, Vec<Part>)| parts.contains(&Part::Source);
    let elsewhere = changes.changed.iter().filter(has_new_source).map(|(name, _)| name);
    for name in changes.removed.iter().chain(elsewhere) {
        running.wiring.forget(name).await;
    }
    // Of services that were made, those that nobody can ask for any more go, and with another source all look anew.
    let template = running.config.wildcard != config.wildcard;
    for service in old.made() {
        let name = service.name();
        let is_made = running.table.current().made().iter().any(|service| service.name() == name);
        if !is_made && !config.services.contains_key(name) {
            running.forget_made(&old, name).await;
        } else if template || !is_made {
            running.wiring.forget(name).await;
        }
    }
    running.wiring.watch(&config);
    for name in &changes.removed {
        if let Some(service) = old.find(name.as_str()) {
            service.retire_endpoints(now());
        }
        running.metrics.forget(name.as_str());
        // A thousand services may go at once; let the observe port breathe.
        yield_now().await;
    }
    running.config = config;
    running.reloads += 1;
    Ok(summary(&changes))
}

/// The addresses of the services as they will be.
fn vips(running: &Running, config: &Config) -> Result<Option<vip::Addresses>, Error> {
    let Some(settings) = &config.vip else { return Ok(None) };
    let mut vips = match &running.vips {
        Some(vips) => vips.clone(),
        None => vip::Addresses::open(settings)?,
    };
    let made = match config.wildcard {
        Some(_) if config.has_vips_of_wildcard() => running.table.current().made_names(),
        _ => Vec::new(),
    };
    vips.assign(config, made)?;
    Ok(Some(vips))
}

/// What only a restart brings to life stays as it is until then.
fn keep_what_needs_a_restart(config: &mut Config, running: &Config) {
    config.workers = running.workers;
    config.listen.observe = running.listen.observe;
    config.listen.admin.clone_from(&running.listen.admin);
    config.listen.dns = running.listen.dns;
}

fn access_log(running: &Running, config: &Config) -> Result<Option<AccessLog>, String> {
    if running.config.log.access == config.log.access {
        return Ok(running.access_log.clone());
    }
    let open = |settings| AccessLog::open(settings, running.metrics.access_log_lost());
    config.log.access.as_ref().map(open).transpose().map_err(|error| format!("cannot open the access log: {error}"))
}

/// What has changed, in one line.
fn summary(changes: &Changes) -> String {
    if changes.is_empty() {
        return "nothing has changed".into();
    }
    let mut parts = Vec::new();
    let mut list = |what: &str, names: Vec<String>| {
        if !names.is_empty() {
            parts.push(format!("{what}: {}", names.join(", ")));
        }
    };
    list("added", changes.added.iter().map(ToString::to_string).collect());
    list("removed", changes.removed.iter().map(ToString::to_string).collect());
    list("changed", changes.changed.iter().map(|(name, _)| name.to_string()).collect());
    list("changed for callers", changes.inbound.then(|| "inbound".to_owned()).into_iter().collect());
    list("changed for all", changes.live.iter().map(ToString::to_string).collect());
    list("needs a restart", changes.restart.iter().map(ToString::to_string).collect());
    if parts.is_empty() {
        return "the listeners have changed".into();
    }
    parts.join("; ")
}
