//! From the file as written to the file as meant: one service.

use std::path::PathBuf;

use super::{
    Provenance, Service, Source, address, fallback, keys,
    layers::Leaves,
    pairs, platform,
    problem::{Report, join, quoted},
    raw::{Entry, Node, Value},
    scalar,
};
use crate::{
    model::ServiceName,
    policy::fallback::{Step, With},
};

/// Reads one checked entry of `services:`; `None` when it has no source that could be read.
pub(super) fn resolve(
    name: &ServiceName,
    entry: &Entry,
    defaults: Option<&Node>,
    path: &str,
    report: &mut Report<'_>,
) -> Option<Service> {
    let leaves = Leaves::of_service(defaults, &entry.node);
    pairs::check(&leaves, path, report);
    pairs::key_pair(entry.node.get("tls"), &join(path, "tls"), report);
    fallback::check(entry.node.get("fallback"), &join(path, "fallback"), report);
    let mut policy = leaves.policy();
    if let Provenance::Defaults(_) = leaves.provenance_of("fallback") {
        // What all services fall back to does not fall back to itself.
        let leads_here = |step: &Step| matches!(&step.with, With::Service(to) if to == name);
        policy.fallback = policy.fallback.iter().filter(|step| !leads_here(step)).cloned().collect();
    }
    let source = source(entry, path, report)?;
    let aliases = entry.node.get("aliases").map(Node::items).unwrap_or_default();
    Some(Service {
        name: name.clone(),
        aliases: aliases.iter().filter_map(|alias| scalar::service(alias.text()?).ok()).collect(),
        listen: entry.node.get("listen").and_then(|node| address::listen(node.text()?).ok()),
        vip: platform::service_vip(&entry.node),
        source,
        provenance: leaves.provenance(),
        policy,
    })
}

fn source(entry: &Entry, path: &str, report: &mut Report<'_>) -> Option<Source> {
    let words = || keys::SOURCES.iter().map(|key| format!("`{}`", key.name())).collect::<Vec<_>>().join(", ");
    let mut written = entry.node.entries().iter().filter(|e| keys::SOURCES.iter().any(|key| key.name() == e.key));
    let Some(first) = written.next() else {
        if matches!(entry.node.value, Value::Null | Value::Map(_)) {
            let hint = Some(format!("add one of {}: `dns: {}:8080`", words(), entry.key));
            report.error(entry.place, path, format!("the service {} has no source", quoted(&entry.key)), hint);
        }
        return None;
    };
    for more in written {
        let message = format!("a second source beside {}", quoted(&first.key));
        report.error(more.place, &join(path, &more.key), message, Some(format!("keep one of {}", words())));
    }
    let text = || first.node.text();
    match first.key.as_str() {
        "static" => {
            let mut addrs = Vec::new();
            for item in first.node.items() {
                let Some(Ok(addr)) = item.text().map(address::address) else { continue };
                if addrs.contains(&addr) {
                    report.warning(item.place, &join(path, "static"), format!("`{addr}` is listed twice"), None);
                } else {
                    addrs.push(addr);
                }
            }
            Some(Source::Static(addrs))
        }
        "file" => Some(Source::File(PathBuf::from(text()?))),
        "srv" => Some(Source::Srv { name: text()?.into() }),
        // The check has held it against its kind; a place for a name is still in it.
        _ => {
            let (host, port) = text()?.rsplit_once(':')?;
            Some(Source::Dns { host: host.into(), port: port.parse().ok()? })
        }
    }
}
