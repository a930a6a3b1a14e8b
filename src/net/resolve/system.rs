//! What resolv.conf says: the system's servers, and which full names a short one stands for.
//!
//! Read again whenever its stamp changes; the look at the stamp is one `stat` a lookup, which costs less
//! than the query that follows.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use hickory_resolver::{proto::rr::Name, system_conf::parse_resolv_conf};

use super::{Failure, Unusable};
use crate::net::stamp;

/// Where the system's own settings are found.
#[derive(Debug, Clone)]
pub struct System {
    /// resolv.conf.
    pub path: PathBuf,
    /// The port of the servers in it, which name none themselves.
    pub port: u16,
}

impl Default for System {
    fn default() -> Self {
        Self { path: "/etc/resolv.conf".into(), port: 53 }
    }
}

/// One state of resolv.conf; a file that is not there is one, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Option<stamp::Stamp>);

impl System {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp(stamp::Stamp::of(&self.path).ok())
    }

    /// The servers, if the file names any, and the search list.
    pub(super) fn read(&self) -> Result<(Vec<SocketAddr>, Search), Unusable> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "resolv.conf cannot be read");
                Vec::new()
            }
        };
        self.parse(text)
    }

    fn parse(&self, mut text: Vec<u8>) -> Result<(Vec<SocketAddr>, Search), Unusable> {
        // The parser refuses a file without servers, which the manual page allows: so it gets one more.
        text.extend_from_slice(b"\nnameserver 127.0.0.1\n");
        let (config, options) = parse_resolv_conf(text).map_err(|e| Unusable::Client(e.to_string()))?;
        let mut ips: Vec<IpAddr> = config.name_servers().iter().map(|s| s.ip).collect();
        ips.pop();
        let domains = match (config.search(), config.domain()) {
            ([], Some(domain)) => vec![domain.clone()],
            (search, _) => search.to_vec(),
        };
        let servers = ips.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect();
        Ok((servers, Search { domains, ndots: options.ndots }))
    }
}

/// How short names become full ones: `search` and `ndots` of resolv.conf(5).
#[derive(Debug, Clone)]
pub(super) struct Search {
    domains: Vec<Name>,
    ndots: usize,
}

impl Search {
    /// Names are asked for as they are written.
    pub(super) fn none() -> Self {
        Self { domains: Vec::new(), ndots: 0 }
    }

    /// The full names to ask for, in order: with at least `ndots` dots, the name itself comes first; a
    /// name that ends in a dot is itself alone.
    pub(super) fn names(&self, host: &str) -> Result<Vec<Name>, Failure> {
        let invalid = |_| Failure::answered(format!("{host:?} is not a DNS name"));
        let labels = host.strip_suffix('.').unwrap_or(host);
        // Raw bytes: compose names with underscores are fine, escapes and punycode are nobody's business here.
        let mut itself = Name::from_labels(labels.split('.').map(str::as_bytes)).map_err(invalid)?;
        itself.set_fqdn(true);
        if host.ends_with('.') {
            return Ok(vec![itself]);
        }
        let mut short = itself.clone();
        short.set_fqdn(false);
        let below = self.domains.iter().filter_map(|domain| short.clone().append_domain(domain).ok());
        let mut names: Vec<Name> = Vec::with_capacity(1 + self.domains.len());
        if host.matches('.').count() >= self.ndots {
            names.push(itself);
            names.extend(below);
        } else {
            names.extend(below);
            names.push(itself);
        }
        let mut seen = Vec::with_capacity(names.len());
        names.retain(|name| {
            !seen.contains(name) && {
                seen.push(name.clone());
                true
            }
        });
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<SocketAddr>, Search) {
        System::default().parse(text.into()).unwrap()
    }

    fn names(text: &str, host: &str) -> Vec<String> {
        read(text).1.names(host).unwrap().iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn a_short_name_walks_the_search_list_first() {
        let kubernetes = "nameserver 10.96.0.10\nsearch a.svc.cluster.local svc.cluster.local\noptions ndots:5\n";
        assert_eq!(
            names(kubernetes, "orders.ns"),
            ["orders.ns.a.svc.cluster.local.", "orders.ns.svc.cluster.local.", "orders.ns."]
        );
        assert_eq!(names(kubernetes, "orders.ns."), ["orders.ns."]);
    }

    #[test]
    fn docker_asks_for_the_name_itself_first() {
        assert_eq!(
            names("search lan\nnameserver 127.0.0.11\noptions ndots:0\n", "my_orders"),
            ["my_orders.", "my_orders.lan."]
        );
    }

    #[test]
    fn what_dns_cannot_carry_is_a_failure_and_no_panic() {
        let search = Search::none();
        for host in ["", ".", "a..b", &"a".repeat(64), &"abcdefg.".repeat(40)] {
            assert!(search.names(host).is_err(), "{host:?}");
        }
    }

    #[test]
    fn servers_keep_their_order_and_what_is_none_is_left_out() {
        let (servers, _) = read("nameserver 10.0.0.2\nnameserver fd00::1\nnameserver 10.0.0.1\n");
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.2:53", "[fd00::1]:53", "10.0.0.1:53"]);
        assert_eq!(read("# nothing\nsearch lan\n").0, []);
        assert_eq!(read("\u{0}\u{1}garbage ¿\nnameserver not-an-ip\n").0, []);
        assert_eq!(read("nameserver 10.0.0.2").0, ["10.0.0.2:53".parse().unwrap()]);
    }
}
