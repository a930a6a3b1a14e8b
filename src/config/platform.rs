//! What makes outrigger a platform for names, as meant: VIPs, the DNS responder, interception, and services that
//! are made when they are asked for; and how the file's sections become it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use super::{
    Nameserver, Service, Source, address, keys,
    problem::Report,
    raw::{Node, Value},
    resolve::{Surroundings, Written, nameserver},
    scalar, service, units,
};

/// The VIPs of all services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The addresses that they are taken from. Default 127.84.0.0/16.
    pub range: Ipv4Net,
    /// What each VIP listens on, beside its service's own ports. Default 80.
    pub ports: Vec<u16>,
    /// The file that remembers which name has which address; `None` remembers nothing over a restart.
    pub state: Option<PathBuf>,
    /// The hosts file in which the sidecar keeps its names; `None` writes none, the default.
    pub hosts: Option<PathBuf>,
}

/// The VIP of one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceVip {
    /// Which address it has.
    pub address: VipAddress,
    /// What it listens on beside the ports of all VIPs.
    pub ports: Vec<u16>,
}

/// Which address a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VipAddress {
    /// The one that its name leads to. The default.
    #[default]
    Auto,
    /// None.
    Off,
    /// This one.
    At(Ipv4Addr),
}

/// What the DNS responder says to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Whether a service is also found by its name alone, without the domain. Default off.
    pub bare: bool,
    /// Whom other names are asked of, in order; empty refuses them. Default is the system's resolvers.
    pub forward: Vec<Nameserver>,
    /// How long an answer about a service may be kept. Default 5 s.
    pub ttl: Duration,
    /// Clients of other hosts that may ask for other names. Default nobody; this host's own always may.
    pub recursion: Vec<IpNet>,
    /// Answers a second to one network of clients of other hosts (/24, or /56 of IPv6). Default 100.
    pub rate: u32,
}

/// How an app's connections are intercepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intercept {
    /// Where redirected connections arrive. Default 127.0.0.1:8472.
    pub listen: SocketAddr,
    /// The ports whose connections are redirected. Default 80.
    pub ports: Vec<u16>,
    /// The sidecar's own user, whose connections are left alone: a name or a number. `None` is that of whoever applies
    /// the rules.
    pub user: Option<Arc<str>>,
    /// A mark that the sidecar sets on its own connections, to leave them alone by; needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
}

/// The entry `*`: what a name that no service bears is taken for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wildcard {
    /// A service without a name of its own, whose source holds [`Wildcard::PLACE`].
    template: Arc<Service>,
    /// Services made of it at once, at most. Default 1000.
    pub services: usize,
    /// How long one is kept without a call. Default 10 min.
    pub idle: Duration,
    /// Services made of it that have metrics of their own; the others share those of `*`. Default 100.
    pub series: usize,
}

impl Wildcard {
    /// What its services are called in metrics, where they share them.
    pub const NAME: &'static str = "*";
    /// Where the name stands in the source.
    pub const PLACE: &'static str = "{name}";

    /// The rules that hold for each of its services.
    pub fn policy(&self) -> &super::Policy {
        &self.template.policy
    }

    /// The service that a name leads to; `None` where the source cannot be made of this name.
    pub fn service(&self, name: &crate::model::ServiceName) -> Option<Service> {
        let filled = |text: &str| text.replace(Self::PLACE, name.as_str());
        let source = match &self.template.source {
            Source::Dns { host, port } => {
                Source::Dns { host: address::dns_name(&filled(host)).ok()?.into(), port: *port }
            }
            Source::Srv { name } => Source::Srv { name: address::dns_name(&filled(name)).ok()?.into() },
            Source::Static(_) | Source::File(_) => return None,
        };
        Some(Service { name: name.clone(), source, ..Service::clone(&self.template) })
    }
}

impl super::Config {
    /// The mark that our own connections get.
    pub fn mark(&self) -> Option<u32> {
        self.intercept.as_ref().and_then(|intercept| intercept.mark)
    }

    /// Whether services that are made have VIPs.
    pub fn has_vips_of_wildcard(&self) -> bool {
        let is_off = |wildcard: &Arc<Wildcard>| wildcard.template.vip.address == VipAddress::Off;
        self.vip.is_some() && !self.wildcard.as_ref().is_some_and(is_off)
    }
}

/// The section `vip`; VIPs are on when there is one, or a DNS responder.
pub(super) fn vip(file: &Written<'_>, has_responder: bool, surroundings: &Surroundings) -> Option<Vip> {
    let written = file.root.entry("vip").filter(|entry| matches!(entry.node.value, Value::Map(_) | Value::Null));
    if written.is_none() && !has_responder {
        return None;
    }
    let path = |key, default: Option<PathBuf>| match file.at(key).and_then(Node::text).map(scalar::switch) {
        Some("off") => None,
        Some(path) => Some(path.into()),
        None => default,
    };
    Some(Vip {
        range: file.read("vip.range", |text| text.parse::<Ipv4Net>().map(|net| net.trunc())),
        ports: ports(file.at("vip.ports"), "vip.ports"),
        state: path("vip.state", Some(surroundings.vips.clone())),
        hosts: path("vip.hosts", None),
    })
}

/// The key `vip` of a service.
pub(super) fn service_vip(service: &Node) -> ServiceVip {
    let Some(node) = service.get("vip") else { return ServiceVip::default() };
    let (address, ports_node) = match node.text() {
        Some(text) => (Some(text), None),
        None => (node.get("address").and_then(Node::text), node.get("ports")),
    };
    let address = match address.map(scalar::switch) {
        None | Some("auto") => VipAddress::Auto,
        Some("off") => VipAddress::Off,
        Some(text) => text.parse().map_or(VipAddress::Auto, VipAddress::At),
    };
    ServiceVip { address, ports: ports(ports_node, "") }
}

fn ports(node: Option<&Node>, default: &str) -> Vec<u16> {
    let written = node.map(Node::items).unwrap_or_default();
    let mut ports: Vec<u16> = written.iter().filter_map(|item| item.text()?.parse().ok()).collect();
    if ports.is_empty() {
        ports.extend(keys::default(default).parse::<u16>());
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The section `dns`.
pub(super) fn dns(file: &Written<'_>) -> Dns {
    let items = |key| file.at(key).map(Node::items).unwrap_or_default();
    let mut forward = Vec::new();
    match items("dns.forward") {
        [] => forward.extend(nameserver(keys::default("dns.forward"))),
        [one] if one.text().map(scalar::switch) == Some("off") => {}
        servers => forward.extend(servers.iter().filter_map(|item| nameserver(item.text()?))),
    }
    Dns {
        bare: file.read("dns.bare", |text| Ok::<_, ()>(scalar::switch(text) == "on")),
        forward,
        ttl: file.read("dns.ttl", units::duration),
        recursion: items("dns.recursion").iter().filter_map(|item| item.text()?.parse().ok()).collect(),
        rate: file.read("dns.rate", str::parse),
    }
}

/// The section `intercept`.
pub(super) fn intercept(file: &Written<'_>) -> Option<Intercept> {
    file.root.entry("intercept").filter(|entry| matches!(entry.node.value, Value::Map(_) | Value::Null))?;
    Some(Intercept {
        listen: file.read("intercept.listen", address::listen),
        ports: ports(file.at("intercept.ports"), "intercept.ports"),
        user: file.at("intercept.user").and_then(Node::text).map(Into::into),
        mark: file.at("intercept.mark").and_then(|node| node.text()?.parse().ok()),
    })
}

/// The entry `*` of the services.
pub(super) fn wildcard(file: &Written<'_>, report: &mut Report<'_>) -> Option<Wildcard> {
    let entry = file.at("services")?.entry(Wildcard::NAME)?;
    let path = "services.*";
    // It has a name like any other while it is read.
    let stand_in = crate::model::ServiceName::parse("name").ok()?;
    for key in ["listen", "aliases"] {
        if let Some(written) = entry.node.entry(key) {
            let hint = "declare the service by its name, beside `*`".to_owned();
            report.error(
                written.place,
                &format!("{path}.{key}"),
                format!("`{key}` is of one service, and `*` stands for many"),
                Some(hint),
            );
        }
    }
    if let Some(At { place, .. }) = explicit(&entry.node) {
        let hint = "leave it out, or write `vip: off`".to_owned();
        report.error(
            place,
            &format!("{path}.vip"),
            "an address is of one service, and `*` stands for many",
            Some(hint),
        );
    }
    let template = service::resolve(&stand_in, entry, file.at("defaults"), path, report)?;
    Some(Wildcard {
        template: Arc::new(template),
        services: file.read("limits.wildcard.services", str::parse),
        idle: file.read("limits.wildcard.idle", units::duration),
        series: file.read("limits.wildcard.series", str::parse),
    })
}

/// An address that a service is given by the file, with its place.
pub(super) struct At {
    pub(super) address: Ipv4Addr,
    pub(super) place: super::raw::Place,
}

/// The address that an entry names.
pub(super) fn explicit(service: &Node) -> Option<At> {
    let node = service.get("vip")?;
    let node = if node.text().is_some() { node } else { node.get("address")? };
    Some(At { address: node.text()?.parse().ok()?, place: node.place })
}

/// Whether an address can be a VIP's: on loopback and nobody else's there, or in the range.
pub(super) fn fits(address: Ipv4Addr, range: &Ipv4Net) -> bool {
    range.contains(&address) || address.is_loopback() && address != Ipv4Addr::LOCALHOST
}

/// Reads a range of IPv4 addresses for VIPs.
pub(super) fn range(text: &str) -> Result<Ipv4Net, scalar::Complaint> {
    let example = || Some("write it like `127.84.0.0/16`".to_owned());
    match text.parse::<IpNet>() {
        Ok(IpNet::V4(net)) if net.prefix_len() >= 8 && net.prefix_len() <= 30 => Ok(net.trunc()),
        Ok(IpNet::V4(_)) => Err((format!("`{text}` is not a range of 4 to 16 million addresses"), example())),
        Ok(IpNet::V6(_)) => Err((format!("`{text}`: VIPs are IPv4 addresses"), example())),
        Err(_) => Err((format!("`{text}` is not IP/BITS"), example())),
    }
}

/// Whether a client may be told to be of this host.
pub fn is_of_this_host(client: IpAddr) -> bool {
    client.to_canonical().is_loopback()
}
