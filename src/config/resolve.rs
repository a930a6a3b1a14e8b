//! From the file as written to the file as meant: the process-wide part.
//!
//! The tree has been checked against the tables before, so a value that cannot be read here has its
//! problem already, and the default stands in for it: the result is thrown away anyway, but going on
//! finds what else is wrong. Defaults are config text in the tables, read by the same readers.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
};

use super::{
    AccessLog, Config, Drain, Level, Limits, Listen, Log, Nameserver, Resolver, Until, Wildcard, address, cross,
    inbound, keys, pairs, platform,
    problem::{Report, join, quoted},
    raw::{Node, Value},
    scalar, service, units,
};

/// What the defaults depend on, outside of the file.
pub(super) struct Surroundings {
    /// The admin socket, where the file names none.
    pub(super) admin: PathBuf,
    /// The memory of VIPs, where the file names none.
    pub(super) vips: PathBuf,
}

/// Reads a checked tree.
pub(super) fn config(root: &Node, surroundings: Surroundings, report: &mut Report<'_>) -> Config {
    let file = Written { root };
    let dns =
        file.read(
            "listen.dns",
            |text| if scalar::switch(text) == "off" { Ok(None) } else { address::listen(text).map(Some) },
        );
    let vip = platform::vip(&file, dns.is_some(), &surroundings);
    let config = Config {
        listen: Listen {
            http: file.read("listen.http", address::listen),
            observe: file.read("listen.observe", address::listen),
            dns,
            override_header: file.read("listen.override", |text| Ok::<_, ()>(scalar::switch(text) == "on")),
            admin: file.text("listen.admin").map_or_else(|| surroundings.admin.clone(), PathBuf::from),
        },
        domain: file.read("vip.domain", |text| address::dns_name(text).map(domain)),
        vip,
        dns: platform::dns(&file),
        intercept: platform::intercept(&file),
        resolver: resolver(&file),
        workers: file.read("workers", workers),
        limits: Limits {
            connections: file.read("limits.connections", number),
            header_bytes: file.read("limits.header_bytes", |text| units::size(text).map(narrow)),
            headers: file.read("limits.headers", number),
            header_timeout: file.read("limits.header_timeout", units::duration),
            last_good: file.read("limits.last_good", |text| units::size(text).map(narrow)),
        },
        log: Log { access: file.read("log.access", access_log), level: file.read("log.level", level) },
        ready_limit: file.read("ready.limit", |text| match scalar::switch(text) {
            "off" => Ok(None),
            time => units::duration(time).map(Some),
        }),
        drain: Drain { limit: file.read("drain.for", units::duration), until: file.read("drain.until", until) },
        services: services(&file, report),
        wildcard: platform::wildcard(&file, report).map(Arc::new),
        inbound: inbound::resolve(root.entry("inbound"), report),
    };
    cross::check(&config, &file, report);
    config
}

fn resolver(file: &Written<'_>) -> Resolver {
    let servers = file.at("resolver.servers").map(Node::items).unwrap_or_default();
    let mut servers: Vec<_> = servers.iter().filter_map(|item| nameserver(item.text()?)).collect();
    if servers.is_empty() {
        servers.extend(nameserver(keys::default("resolver.servers")));
    }
    Resolver {
        servers,
        ttl_min: file.read("resolver.ttl.min", units::duration),
        ttl_max: file.read("resolver.ttl.max", units::duration),
        hold: file.read("resolver.hold", units::duration),
        timeout: file.read("resolver.timeout", units::duration),
    }
}

fn services(file: &Written<'_>, report: &mut Report<'_>) -> BTreeMap<crate::model::ServiceName, Arc<super::Service>> {
    let defaults = file.at("defaults");
    pairs::key_pair(defaults.and_then(|defaults| defaults.get("tls")), "defaults.tls", report);
    let (mut services, mut keys) = (BTreeMap::new(), HashSet::new());
    let written = file.at("services").map(Node::entries).unwrap_or_default();
    for entry in written {
        let path = join("services", &entry.key);
        if entry.key == Wildcard::NAME {
            continue;
        }
        let name = match scalar::service(&entry.key) {
            Ok(name) => name,
            Err((message, hint)) => {
                report.error(entry.place, &path, message, hint);
                continue;
            }
        };
        if let Some(mut service) = service::resolve(&name, entry, defaults, &path, report) {
            service.provenance.share(&mut keys);
            services.entry(name).or_insert(Arc::new(service));
        }
    }
    let nothing =
        |node: &Node| matches!(&node.value, Value::Null) || matches!(&node.value, Value::Map(all) if all.is_empty());
    let receives = file.at("inbound").is_some_and(|inbound| matches!(inbound.value, Value::Map(_)));
    if !receives && file.at("services").map_or(matches!(file.root.value, Value::Null | Value::Map(_)), nothing) {
        let place = file.root.place;
        let hint = Some("add one under `services:`, as `orders: { dns: orders:8080 }`".to_owned());
        report.warning(place, "services", "the file names no service: every call will get `unknown_service`", hint);
    }
    services
}

/// The file as written, asked by path.
pub(super) struct Written<'a> {
    pub(super) root: &'a Node,
}

impl<'a> Written<'a> {
    /// What stands at a path; a policy's scalar form counts as its map form (`drain` for `drain.for`).
    pub(super) fn at(&self, path: &str) -> Option<&'a Node> {
        let mut node = self.root;
        for step in path.split('.') {
            match &node.value {
                Value::Text { .. } if path == "drain.for" || path == "ready.limit" => break,
                Value::Text { .. } => return None,
                _ => node = node.get(step)?,
            }
        }
        Some(node)
    }

    pub(super) fn text(&self, path: &str) -> Option<&'a str> {
        self.at(path)?.text()
    }

    pub(super) fn read<T, E>(&self, path: &str, read: impl Fn(&'a str) -> Result<T, E>) -> T {
        let written = self.text(path).and_then(|text| read(text).ok());
        written.or_else(|| read(keys::default(path)).ok()).expect("a default in the tables can be read")
    }
}

fn domain(text: &str) -> Arc<str> {
    text.trim_end_matches('.').to_ascii_lowercase().into()
}

fn workers(text: &str) -> Result<Option<NonZeroUsize>, scalar::Complaint> {
    if text == "auto" { Ok(None) } else { number(text).map(NonZeroUsize::new) }
}

fn number(text: &str) -> Result<usize, scalar::Complaint> {
    scalar::count(text).map(narrow)
}

fn narrow(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

pub(super) fn nameserver(text: &str) -> Option<Nameserver> {
    if text == "system" { Some(Nameserver::System) } else { address::nameserver(text).ok().map(Nameserver::At) }
}

fn until(text: &str) -> Result<Until, scalar::Complaint> {
    match text {
        "time" => Ok(Until::Time),
        "app" => Ok(Until::App),
        _ => Ok(Until::Calls),
    }
}

fn access_log(text: &str) -> Result<Option<AccessLog>, scalar::Complaint> {
    match scalar::switch(text) {
        "off" => Ok(None),
        "stdout" => Ok(Some(AccessLog::Stdout)),
        path => Ok(Some(AccessLog::File(path.into()))),
    }
}

fn level(text: &str) -> Result<Level, scalar::Complaint> {
    match text {
        "error" => Ok(Level::Error),
        "warn" => Ok(Level::Warn),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        "trace" => Ok(Level::Trace),
        other => Err((format!("{} is not a level", quoted(other)), None)),
    }
}
