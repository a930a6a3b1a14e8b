//! What is wrong between VIPs: with each other, with the range, with whatever else listens, and with a `*` that stands
//! for names which nobody has said.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
};

use super::{
    Config, Protocol, Service, VipAddress, Wildcard, platform,
    problem::{Report, join, quoted},
    raw::{Entry, Node, Place},
    resolve::Written,
    scalar,
};

/// Checks all that has to do with VIPs; `taken` says whose an address is that something else listens on.
pub(super) fn check(
    config: &Config,
    file: &Written<'_>,
    taken: &dyn Fn(SocketAddr) -> Option<String>,
    report: &mut Report<'_>,
) {
    let entries = file.at("services").map(Node::entries).unwrap_or_default();
    for entry in entries {
        sources(entry, report);
    }
    addresses(config, entries, taken, report);
    reached(config, entries, report);
    exhausted(config, file, report);
    if config.listen.dns.is_none()
        && let Some(entry) = file.root.entry("dns").filter(|entry| !entry.node.entries().is_empty())
    {
        let hint = Some("add `listen: { dns: 127.0.0.1:53 }`".to_owned());
        report.warning(entry.place, "dns", "there is no DNS responder that this could hold for", hint);
    }
}

/// `{name}` stands for a name in the entry `*`, and there alone.
fn sources(entry: &Entry, report: &mut Report<'_>) {
    let path = join("services", &entry.key);
    let is_wildcard = entry.key == Wildcard::NAME;
    let has_place = |node: &Node| node.text().is_some_and(|text| text.contains(Wildcard::PLACE));
    for key in ["dns", "srv", "static", "file"] {
        let Some(source) = entry.node.entry(key) else { continue };
        let (at, place) = (join(&path, key), has_place(&source.node));
        if is_wildcard && !place {
            let hint = Some("write `dns: \"{name}:8080\"`: the name that was asked for stands there".to_owned());
            report.error(source.place, &at, "every name would lead to the same endpoints", hint);
        } else if !is_wildcard && place {
            let hint = Some("`{name}` stands for a name in the service `*` alone".to_owned());
            report.error(source.node.place, &at, format!("{} has a name already", quoted(&entry.key)), hint);
        }
    }
}

/// Addresses that the file gives: each to one service, fit for it, and nobody else's.
fn addresses(
    config: &Config,
    entries: &[Entry],
    taken: &dyn Fn(SocketAddr) -> Option<String>,
    report: &mut Report<'_>,
) {
    let mut given: HashMap<Ipv4Addr, (&str, u32)> = HashMap::new();
    for entry in entries {
        let Some(at) = platform::explicit(&entry.node) else { continue };
        let path = join(&join("services", &entry.key), "vip");
        let Some(vip) = &config.vip else {
            let hint = Some("switch VIPs on with a section `vip: {}`".to_owned());
            report.error(at.place, &path, "there are no VIPs", hint);
            continue;
        };
        if !platform::fits(at.address, &vip.range) {
            let message = format!("`{}` is neither in `vip.range` ({}) nor free on loopback", at.address, vip.range);
            report.error(at.place, &path, message, Some("choose another one, or `auto`".to_owned()));
        }
        if let Some((other, line)) = given.get(&at.address) {
            let message = format!("`{}` is the address of the service {}", at.address, quoted(other));
            report.error(at.place, &path, message, Some(format!("the other one is in line {line}")));
        } else {
            given.insert(at.address, (&entry.key, at.place.line));
        }
        let own = scalar::service(&entry.key).ok().and_then(|name| config.services.get(&name));
        let ports = own.map(|service| service.vip.ports.as_slice()).unwrap_or_default();
        for port in vip.ports.iter().chain(ports) {
            if let Some(other) = taken(SocketAddr::from((at.address, *port))) {
                let message = format!("`{}:{port}` is taken by `{other}`", at.address);
                report.error(at.place, &path, message, Some("two listeners cannot share an address".to_owned()));
            }
        }
    }
}

/// Bytes name no service: they need an address of their own.
fn reached(config: &Config, entries: &[Entry], report: &mut Report<'_>) {
    for entry in entries {
        let Some(service) = scalar::service(&entry.key).ok().and_then(|name| config.services.get(&name)) else {
            continue;
        };
        // Interception knows a service by the addresses of its endpoints.
        let is_reached = service.listen.is_some() || has_vip(config, service) || config.intercept.is_some();
        if service.policy.protocol == Protocol::Tcp && !is_reached {
            let path = join("services", &entry.key);
            let message = format!("the tcp service {} has no `listen`", quoted(&entry.key));
            let hint = "bytes name no service: give it a port of its own, as `listen: 127.0.0.1:5432`, or a VIP";
            report.error(entry.place, &path, message, Some(hint.to_owned()));
        }
    }
}

fn has_vip(config: &Config, service: &Service) -> bool {
    config.vip.is_some() && service.vip.address != VipAddress::Off
}

/// More services than addresses.
fn exhausted(config: &Config, file: &Written<'_>, report: &mut Report<'_>) {
    let Some(vip) = &config.vip else { return };
    let wanted = config.services.values().filter(|service| service.vip.address == VipAddress::Auto).count();
    // Neither the first nor the last address is anybody's.
    let there = vip.range.hosts().count();
    if wanted > there {
        let place = file.at("vip.range").map_or(Place::default(), |node| node.place);
        let message = format!("`{}` has {there} addresses for {wanted} services", vip.range);
        report.error(place, "vip.range", message, Some("take a larger range, as `127.84.0.0/16`".to_owned()));
    }
}
