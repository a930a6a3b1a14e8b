//! What is wrong between values: names and addresses that get in each other's way.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{
    Config, Inbound, address, fallback,
    problem::{Report, join, quoted, shown},
    raw::{Node, Place, Value},
    resolve::Written,
    scalar, units, vips,
};
use crate::model::ServiceName;

/// Checks the whole against itself. `config` holds what could be read, `file` the places.
pub(super) fn check(config: &Config, file: &Written<'_>, report: &mut Report<'_>) {
    ttl(config, file, report);
    names(config, file, report);
    let listeners = listeners(config, file);
    conflicts(&listeners, report);
    loops(file, &listeners, report);
    inbound(file, &listeners, report);
    intercept(config, file, report);
    vips::check(config, file, &|addr| taken(&listeners, addr), report);
    fallbacks(config, file, report);
}

/// A redirect rule sends connections to 127.0.0.1.
fn intercept(config: &Config, file: &Written<'_>, report: &mut Report<'_>) {
    let Some(settings) = &config.intercept else { return };
    let path = "intercept.listen";
    let (listen, place) = (settings.listen, file.at(path).map(|node| node.place).unwrap_or_default());
    if listen.ip() != Ipv4Addr::LOCALHOST && listen.ip() != Ipv4Addr::UNSPECIFIED {
        let message = format!("`{listen}` is not where redirected connections arrive");
        let hint = format!("they arrive at 127.0.0.1: write `127.0.0.1:{}`", listen.port());
        report.error(place, path, message, Some(hint));
    }
}

/// Where each service's chain is written: with the service, or with `defaults`.
fn fallbacks(config: &Config, file: &Written<'_>, report: &mut Report<'_>) {
    fallback::check(file.at("defaults.fallback"), "defaults.fallback", report);
    let services = file.at("services").map(Node::entries).unwrap_or_default();
    let place = |name: &ServiceName| {
        let entry = services.iter().find(|entry| scalar::service(&entry.key).is_ok_and(|key| key == *name));
        let own = entry.and_then(|entry| entry.node.entry("fallback")).map(|entry| entry.place);
        let at = own.or_else(|| file.at("defaults.fallback").map(|node| node.place));
        (at.unwrap_or_default(), join(&join("services", name.as_str()), "fallback"))
    };
    fallback::check_ways(&config.services, &place, report);
}

fn ttl(config: &Config, file: &Written<'_>, report: &mut Report<'_>) {
    let (min, max) = (config.resolver.ttl_min, config.resolver.ttl_max);
    if min > max {
        let place = file.at("resolver.ttl.min").or(file.at("resolver.ttl.max")).map(|node| node.place);
        let message = format!(
            "`resolver.ttl.min` ({}) is over `resolver.ttl.max` ({})",
            units::show_duration(min),
            units::show_duration(max)
        );
        report.error(place.unwrap_or_default(), "resolver.ttl", message, None);
    }
}

/// The names that are taken: by which service, or by the receiving side, and in which line.
type Taken<'a> = HashMap<String, (Option<&'a str>, u32)>;

/// Each name and alias leads to one service, and none of them can be mistaken for a VIP's name.
fn names(config: &Config, file: &Written<'_>, report: &mut Report<'_>) {
    let mut taken: Taken<'_> = HashMap::new();
    let services = file.at("services").map(Node::entries).unwrap_or_default();
    if let Some(inbound) = file.root.entry("inbound").filter(|entry| matches!(entry.node.value, Value::Map(_))) {
        // Metrics and `explain` tell services apart by name, and our own app is one of them.
        taken.insert(Inbound::NAME.to_owned(), (None, inbound.place.line));
    }
    // Names first: an alias that is some service's name is the one that is wrong.
    for entry in services {
        let path = join("services", &entry.key);
        claim(&entry.key, &entry.key, entry.place, &path, config, &mut taken, report);
    }
    for entry in services {
        let aliases = entry.node.get("aliases").map(Node::items).unwrap_or_default();
        let path = join(&join("services", &entry.key), "aliases");
        for alias in aliases {
            if let Some(text) = alias.text() {
                claim(text, &entry.key, alias.place, &path, config, &mut taken, report);
            }
        }
    }
}

fn claim<'a>(
    text: &str,
    owner: &'a str,
    place: Place,
    path: &str,
    config: &Config,
    taken: &mut Taken<'a>,
    report: &mut Report<'_>,
) {
    let Ok(name) = scalar::service(text) else { return };
    let under_domain =
        name.as_str().strip_suffix(&*config.domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if under_domain {
        let hint = Some("every service has a name there already; `vip.domain` changes the suffix".to_owned());
        report.error(place, path, format!("names under `{}` belong to VIPs", config.domain), hint);
    }
    if let Some((other, line)) = taken.get(name.as_str()) {
        let message = match other {
            Some(other) if *other == owner => format!("{} answers to {} anyway", quoted(owner), quoted(text)),
            Some(other) => format!("the name {} is taken by the service {}", quoted(text), quoted(other)),
            None => format!("the name {} is taken by the receiving side", quoted(text)),
        };
        report.error(
            place,
            path,
            message,
            Some(format!("the other one is in line {line}; letter case makes no difference")),
        );
    } else {
        taken.insert(name.as_str().to_owned(), (Some(owner), place.line));
    }
}

/// Which listener has an address.
fn taken(listeners: &[Listener], addr: SocketAddr) -> Option<String> {
    let has = |listener: &&Listener| {
        listener.addr.port() == addr.port() && addr.port() != 0 && overlap(listener.addr.ip(), addr.ip())
    };
    listeners.iter().find(has).map(|listener| listener.path.clone())
}

const INBOUND_LISTEN: &str = "inbound.listen";

/// One address to listen on, and who wants it.
struct Listener {
    addr: SocketAddr,
    path: String,
    place: Place,
}

fn listeners(config: &Config, file: &Written<'_>) -> Vec<Listener> {
    let shared = [("listen.http", config.listen.http), ("listen.observe", config.listen.observe)];
    let place = |path: &str| file.at(path).map(|node| node.place).unwrap_or_default();
    let mut all: Vec<_> =
        shared.into_iter().map(|(path, addr)| Listener { addr, path: path.to_owned(), place: place(path) }).collect();
    let more = [("listen.dns", config.listen.dns), ("intercept.listen", config.intercept.as_ref().map(|on| on.listen))];
    for (path, addr) in more {
        all.extend(addr.map(|addr| Listener { addr, path: path.to_owned(), place: place(path) }));
    }
    for entry in file.at("services").map(Node::entries).unwrap_or_default() {
        let Some(node) = entry.node.get("listen") else { continue };
        if let Some(Ok(addr)) = node.text().map(address::listen) {
            all.push(Listener { addr, path: format!("services.{}.listen", entry.key), place: node.place });
        }
    }
    if let Some(node) = file.at(INBOUND_LISTEN)
        && let Some(Ok(addr)) = node.text().map(address::listen)
    {
        all.push(Listener { addr, path: INBOUND_LISTEN.to_owned(), place: node.place });
    }
    all
}

/// Whether binding one leaves no room for the other. `[::]` also takes IPv4 where the system is set so.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let takes_all = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a == b || takes_all(a, b) || takes_all(b, a)
}

fn conflicts(listeners: &[Listener], report: &mut Report<'_>) {
    let mut by_port: BTreeMap<u16, Vec<&Listener>> = BTreeMap::new();
    for listener in listeners.iter().filter(|listener| listener.addr.port() != 0) {
        let same_port = by_port.entry(listener.addr.port()).or_default();
        if let Some(other) = same_port.iter().find(|other| overlap(other.addr.ip(), listener.addr.ip())) {
            // A default has no place: then the one that was written is the one to change.
            let (here, there) = if listener.place.line == 0 { (*other, listener) } else { (listener, *other) };
            let message = format!("`{}` is taken by `{}` ({})", here.addr, there.path, there.addr);
            report.error(here.place, &here.path, message, Some("two listeners cannot share an address".to_owned()));
        } else {
            same_port.push(listener);
        }
    }
}

impl Listener {
    /// Whether a connection to this address ends here. Port 0 is any free one, which nobody can name.
    fn is_reached(&self, ip: IpAddr, port: u16) -> bool {
        let all = self.addr.ip().is_unspecified() && ip.is_loopback();
        port != 0 && self.addr.port() == port && (self.addr.ip() == ip || all)
    }
}

/// A service whose endpoint is the sidecar itself would send every call round in circles. The receiving side
/// is none of these: a call that comes to it ends in the app.
fn loops(file: &Written<'_>, listeners: &[Listener], report: &mut Report<'_>) {
    let mut ours: HashMap<u16, Vec<&Listener>> = HashMap::new();
    for listener in listeners.iter().filter(|listener| listener.path != INBOUND_LISTEN) {
        ours.entry(listener.addr.port()).or_default().push(listener);
    }
    let reached = |ip: IpAddr, port: u16| {
        ours.get(&port).and_then(|listeners| listeners.iter().find(|listener| listener.is_reached(ip, port))).copied()
    };
    for entry in file.at("services").map(Node::entries).unwrap_or_default() {
        let found = |key| entry.node.get(key).map(Node::items).unwrap_or_default();
        for (key, node) in
            found("static").iter().map(|node| ("static", node)).chain(found("dns").iter().map(|node| ("dns", node)))
        {
            let Some(text) = node.text() else { continue };
            let hit = match (address::address(text), address::host_port(text)) {
                (Ok(addr), _) => reached(addr.ip(), addr.port()),
                (_, Ok((host, port))) if host.eq_ignore_ascii_case("localhost") => {
                    reached(Ipv4Addr::LOCALHOST.into(), port).or_else(|| reached(Ipv6Addr::LOCALHOST.into(), port))
                }
                _ => None,
            };
            if let Some(listener) = hit {
                let path = format!("services.{}.{key}", entry.key);
                let message = format!(
                    "{} is the sidecar itself (`{}`): calls would go round in circles",
                    shown(node),
                    listener.path
                );
                report.error(node.place, &path, message, None);
            }
        }
    }
}

/// The app behind the receiving side is not the sidecar itself.
fn inbound(file: &Written<'_>, listeners: &[Listener], report: &mut Report<'_>) {
    let Some(node) = file.at("inbound.app") else { return };
    let Some(Ok(app)) = node.text().map(address::app) else { return };
    if let Some(listener) = listeners.iter().find(|listener| listener.is_reached(app.ip(), app.port())) {
        let message = format!("{} is the sidecar itself (`{}`), and not the app", shown(node), listener.path);
        report.error(node.place, "inbound.app", message, None);
    }
}
