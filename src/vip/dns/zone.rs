//! Which names are ours to answer for, of one configuration: where a name stands among them.
//!
//! Ours are the VIP domain and all below it, the reverse names of the VIPs' range, and, if they are switched on, the
//! services' bare names. `localhost` is answered, too: it never leaves a host (RFC 6761 §6.3).
//!
//! A name in between exists without anything to it: an alias `payments.prod` makes `prod`, and ports make
//! `_tcp.orders`. It must not be denied, or resolvers deny what is below it (RFC 8020).

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::{Arc, Weak},
};

use hickory_resolver::proto::rr::Name;
use ipnet::Ipv4Net;

use crate::{
    model::ServiceName,
    service::{Service, Services},
};

/// The names of one configuration that are ours.
#[derive(Debug)]
pub(super) struct Zone {
    made_of: Weak<Services>,
    /// The VIP domain, in lower case.
    domain: Box<str>,
    apex: Name,
    /// Full names between the domain and a service's.
    between: HashSet<Box<str>>,
    range: Option<Ipv4Net>,
}

/// Where a name stands.
#[derive(Debug)]
pub(super) enum Place<'a> {
    /// It is a service's, or `_x._tcp.` before it. `labels` of its last ones are the zone that it is in.
    Service {
        /// Whose.
        service: &'a Arc<Service>,
        /// Whether it asks for the ports alone.
        ports: bool,
        /// Labels of the zone.
        labels: u8,
    },
    /// It is there, and has nothing.
    Empty {
        /// Labels of the zone.
        labels: u8,
    },
    /// It is the VIP domain.
    Apex,
    /// It is the reverse name of a VIP.
    Reverse {
        /// Whose.
        service: &'a Arc<Service>,
        /// Labels of the zone.
        labels: u8,
    },
    /// It is `localhost`, or below.
    Localhost,
    /// It is ours to give, and nobody bears it.
    Nobody {
        /// What a service would be called that bears it.
        would_be: Option<ServiceName>,
        /// Labels of the zone.
        labels: u8,
    },
    /// It is somebody else's.
    Foreign {
        /// What a service would be called that bears it.
        would_be: Option<ServiceName>,
    },
}

impl Zone {
    /// The names of these services.
    pub(super) fn new(services: &Arc<Services>) -> Self {
        let domain = services.domain().to_ascii_lowercase();
        let apex = name(&domain).unwrap_or_else(Name::root);
        let mut between = HashSet::new();
        for service in services.iter() {
            for name in std::iter::once(service.name()).chain(&service.config().aliases) {
                let mut rest = name.as_str();
                while let Some((_, parent)) = rest.split_once('.') {
                    between.insert(format!("{parent}.{domain}").into());
                    rest = parent;
                }
            }
        }
        let range = services.vips().map(|vips| vips.range);
        Self { made_of: Arc::downgrade(services), domain: domain.into(), apex, between, range }
    }

    /// Whether it was made of these services.
    pub(super) fn is_of(&self, services: &Arc<Services>) -> bool {
        std::ptr::eq(self.made_of.as_ptr(), Arc::as_ptr(services))
    }

    /// Whether another zone claims the same names and addresses for us.
    pub(super) fn claims_as(&self, other: &Self) -> bool {
        (&self.domain, self.range) == (&other.domain, other.range)
    }

    /// The VIP domain.
    pub(super) fn apex(&self) -> &Name {
        &self.apex
    }

    /// The full name of a service; `None` where it is too long to be one.
    pub(super) fn name_of(&self, service: &Service) -> Option<Name> {
        name(&format!("{}.{}", service.name(), self.domain))
    }

    /// Whether a name is the VIP domain or below it.
    pub(super) fn has(&self, name: &Name) -> bool {
        self.apex.zone_of(name)
    }

    /// Whether an address can be a VIP's.
    pub(super) fn may_own(&self, address: Ipv4Addr) -> bool {
        self.range.is_some_and(|range| range.contains(&address))
    }

    /// Where a name stands; `bare` says whether services are found by their names alone.
    pub(super) fn place<'a>(&self, asked: &Name, services: &'a Services, bare: bool) -> Place<'a> {
        let text = text(asked);
        let labels = self.apex.num_labels();
        if text == *self.domain {
            return Place::Apex;
        }
        if let Some(relative) = text.strip_suffix(&*self.domain).and_then(|rest| rest.strip_suffix('.')) {
            let found = service(&text, labels, services);
            let is_between = || self.between.contains(&*text).then_some(Place::Empty { labels });
            return found.or_else(is_between).unwrap_or_else(|| Place::Nobody { would_be: would_be(relative), labels });
        }
        if let Some(place) = self.reverse(&text, services) {
            return place;
        }
        if text == "localhost" || text.ends_with(".localhost") {
            return Place::Localhost;
        }
        if !bare || text.is_empty() {
            return Place::Foreign { would_be: None };
        }
        let zone = without_ports(&text).map_or(&*text, |(_, host)| host).split('.').count();
        // Names with dots are those of hosts all over the world: a service must have been declared to have one.
        let would_be = || would_be(&text).filter(|name| !name.as_str().contains('.'));
        service(&text, zone as u8, services).unwrap_or_else(|| Place::Foreign { would_be: would_be() })
    }

    /// The place of a reverse name (RFC 1035 §3.5).
    fn reverse<'a>(&self, text: &str, services: &'a Services) -> Option<Place<'a>> {
        let digits = text.strip_suffix(".in-addr.arpa")?;
        let mut octets = [0; 4];
        let mut known = 0;
        for octet in digits.rsplit('.') {
            // A label more than an address has, or one that is no number, is below an address or beside all of them.
            let value = octet.parse().ok().filter(|value: &u8| value.to_string() == octet);
            match (octets.get_mut(known), value) {
                (Some(place), Some(value)) => *place = value,
                _ => return self.beside(&octets, known),
            }
            known += 1;
        }
        let address = Ipv4Addr::from(octets);
        let prefix = Ipv4Net::new(address, 8 * known as u8).ok()?;
        let labels = self.range.filter(|range| range.contains(&prefix)).map(|range| reverse_labels(&range));
        let at_vip = services.at_vip(address).filter(|_| known == octets.len());
        match (at_vip, labels) {
            // One that was given an address outside of the range answers for that alone.
            (Some(service), labels) => Some(Place::Reverse { service, labels: labels.unwrap_or(6) }),
            (None, Some(labels)) if known == octets.len() => Some(Place::Nobody { would_be: None, labels }),
            (None, Some(labels)) if 2 + known as u8 >= labels => Some(Place::Empty { labels }),
            _ => None,
        }
    }

    /// The place of what is no reverse name, after so many octets that are.
    fn beside<'a>(&self, octets: &[u8; 4], known: usize) -> Option<Place<'a>> {
        let prefix = Ipv4Net::new(Ipv4Addr::from(*octets), 8 * known as u8).ok()?;
        let range = self.range.filter(|range| range.contains(&prefix))?;
        Some(Place::Nobody { would_be: None, labels: reverse_labels(&range) })
    }
}

/// Labels of the zone in which a range's reverse names are: whole octets, no fewer than the range has.
fn reverse_labels(range: &Ipv4Net) -> u8 {
    2 + range.prefix_len().div_ceil(8)
}

/// The place of a full name that is a service's, or `_x._tcp.` or `_tcp.` before one.
fn service<'a>(text: &str, labels: u8, services: &'a Services) -> Option<Place<'a>> {
    if let Some(service) = services.find(text) {
        return Some(Place::Service { service, ports: false, labels });
    }
    let (has_port, host) = without_ports(text)?;
    let service = services.find(host)?;
    Some(if has_port { Place::Service { service, ports: true, labels } } else { Place::Empty { labels } })
}

/// A name without `_x._tcp.` or `_tcp.` before it, and whether there was an `_x`.
fn without_ports(text: &str) -> Option<(bool, &str)> {
    if let Some(host) = text.strip_prefix("_tcp.") {
        return Some((false, host));
    }
    let (port, rest) = text.split_once('.')?;
    Some((true, rest.strip_prefix("_tcp.").filter(|_| port.starts_with('_') && port.len() > 1)?))
}

/// The name of a service that could be made of a host; names of protocols (`_tcp`) are none of hosts.
fn would_be(host: &str) -> Option<ServiceName> {
    let host = without_ports(host).map_or(host, |(_, host)| host);
    let is_host = host.split('.').all(|label| !label.starts_with('_'));
    ServiceName::parse(host).ok().filter(|_| is_host)
}

/// A name as services are looked up: lower case, without the last dot. A byte that no service's name has, a dot within
/// a label above all, becomes `?`, which none has either.
fn text(name: &Name) -> String {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        text.extend(label.iter().map(|b| if fits(*b) { b.to_ascii_lowercase() as char } else { '?' }));
    }
    text
}

/// A name of labels that are taken as they are.
fn name(text: &str) -> Option<Name> {
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::services, *};

    const FILE: &str = "
vip: { range: 127.84.0.0/16 }
services:
  orders: { dns: orders:80 }
  payments: { dns: payments:80, aliases: [payments.prod, a.b.c] }
";

    fn placed(name: &str, bare: bool) -> String {
        let services = services(FILE, &[("orders", "127.84.0.7"), ("payments", "127.1.2.3")]);
        let zone = Zone::new(&services);
        match zone.place(&Name::from_ascii(name).unwrap(), &services, bare) {
            Place::Service { service, ports, labels } => {
                format!("{}{} in {labels}", if ports { "ports of " } else { "" }, service.name())
            }
            Place::Empty { labels } => format!("empty in {labels}"),
            Place::Apex => "apex".into(),
            Place::Reverse { service, labels } => format!("reverse of {} in {labels}", service.name()),
            Place::Localhost => "localhost".into(),
            Place::Nobody { would_be: Some(name), labels } => format!("nobody, would be {name} in {labels}"),
            Place::Nobody { would_be: None, labels } => format!("nobody in {labels}"),
            Place::Foreign { would_be: Some(name) } => format!("foreign, would be {name}"),
            Place::Foreign { would_be: None } => "foreign".into(),
        }
    }

    #[test]
    fn names_under_the_domain_are_ours() {
        for (name, expected) in [
            ("orders.vip.internal.", "orders in 2"),
            ("ORDERS.Vip.Internal.", "orders in 2"),
            ("payments.prod.vip.internal.", "payments in 2"),
            ("prod.vip.internal.", "empty in 2"),
            ("b.c.vip.internal.", "empty in 2"),
            ("c.vip.internal.", "empty in 2"),
            ("_http._tcp.orders.vip.internal.", "ports of orders in 2"),
            ("_tcp.orders.vip.internal.", "empty in 2"),
            ("_http._tcp.payments.prod.vip.internal.", "ports of payments in 2"),
            ("vip.internal.", "apex"),
            ("users.vip.internal.", "nobody, would be users in 2"),
            ("_http._tcp.users.vip.internal.", "nobody, would be users in 2"),
            ("_http._udp.orders.vip.internal.", "nobody in 2"),
            ("_._tcp.orders.vip.internal.", "nobody in 2"),
            ("x.orders.vip.internal.", "nobody, would be x.orders in 2"),
            ("orders.vip.internal.vip.internal.", "nobody, would be orders.vip.internal in 2"),
            (r"or\.ders.vip.internal.", "nobody in 2"),
            ("internal.", "foreign"),
            ("orders.", "foreign"),
            ("notvip.internal.", "foreign"),
            (r"orders.vip\.internal.", "foreign"),
            (r"orders\.vip.internal.", "foreign"),
            (".", "foreign"),
            ("localhost.", "localhost"),
            ("App.LocalHost.", "localhost"),
        ] {
            assert_eq!(placed(name, false), expected, "{name}");
        }
    }

    #[test]
    fn bytes_that_no_service_has_are_nobodys() {
        let services = services(FILE, &[]);
        for label in [&b"\0"[..], b"\xff\xfe", b"a b", b"or.ders", b"*"] {
            let name = Name::from_labels([label, b"vip", b"internal"]).unwrap();
            let place = Zone::new(&services).place(&name, &services, true);
            assert!(matches!(place, Place::Nobody { would_be: None, labels: 2 }), "{name}: {place:?}");
        }
    }

    #[test]
    fn bare_names_are_ours_where_that_is_switched_on() {
        for (name, expected) in [
            ("orders.", "orders in 1"),
            ("payments.prod.", "payments in 2"),
            ("_http._tcp.orders.", "ports of orders in 1"),
            ("_tcp.orders.", "empty in 1"),
            ("prod.", "foreign, would be prod"),
            ("users.", "foreign, would be users"),
            ("_tcp.", "foreign"),
            ("www.example.com.", "foreign"),
            ("x.orders.", "foreign"),
            (".", "foreign"),
            ("localhost.", "localhost"),
            ("orders.vip.internal.", "orders in 2"),
        ] {
            assert_eq!(placed(name, true), expected, "{name}");
        }
    }

    #[test]
    fn reverse_names_of_the_range_are_ours() {
        for (name, expected) in [
            ("7.0.84.127.in-addr.arpa.", "reverse of orders in 4"),
            ("3.2.1.127.in-addr.arpa.", "reverse of payments in 6"),
            ("8.0.84.127.in-addr.arpa.", "nobody in 4"),
            ("x.7.0.84.127.in-addr.arpa.", "nobody in 4"),
            ("1.7.0.84.127.in-addr.arpa.", "nobody in 4"),
            ("x.84.127.IN-ADDR.arpa.", "nobody in 4"),
            ("07.0.84.127.in-addr.arpa.", "nobody in 4"),
            ("0.84.127.in-addr.arpa.", "empty in 4"),
            ("84.127.in-addr.arpa.", "empty in 4"),
            ("127.in-addr.arpa.", "foreign"),
            ("in-addr.arpa.", "foreign"),
            ("x.in-addr.arpa.", "foreign"),
            ("1.0.0.127.in-addr.arpa.", "foreign"),
            ("7.0.84.256.in-addr.arpa.", "foreign"),
            ("4.2.1.127.in-addr.arpa.", "foreign"),
        ] {
            assert_eq!(placed(name, false), expected, "{name}");
        }
    }

    #[test]
    fn a_range_between_octets_has_zones_of_whole_ones() {
        let at = |range: &str, name: &str| {
            let services = services(&format!("vip: {{ range: {range} }}\nservices: {{ a: {{ dns: a:80 }} }}"), &[]);
            let place = Zone::new(&services).place(&Name::from_ascii(name).unwrap(), &services, false);
            match place {
                Place::Nobody { labels, .. } => format!("nobody in {labels}"),
                Place::Empty { labels } => format!("empty in {labels}"),
                _ => "foreign".into(),
            }
        };
        assert_eq!(at("127.64.0.0/12", "1.0.79.127.in-addr.arpa."), "nobody in 4");
        assert_eq!(at("127.64.0.0/12", "79.127.in-addr.arpa."), "empty in 4");
        assert_eq!(at("127.64.0.0/12", "80.127.in-addr.arpa."), "foreign");
        assert_eq!(at("127.64.0.0/12", "127.in-addr.arpa."), "foreign");
        assert_eq!(at("127.84.1.16/28", "17.1.84.127.in-addr.arpa."), "nobody in 6");
        assert_eq!(at("127.84.1.16/28", "1.84.127.in-addr.arpa."), "foreign");
        assert_eq!(at("127.84.1.16/28", "32.1.84.127.in-addr.arpa."), "foreign");
    }

    #[test]
    fn a_zone_knows_what_it_was_made_of() {
        let (one, other) = (services(FILE, &[]), services(FILE, &[]));
        let zone = Zone::new(&one);
        assert!(zone.is_of(&one) && !zone.is_of(&other));
    }
}
