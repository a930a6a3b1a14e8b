//! What resolv.conf says: the system's servers, and which full names a short one stands for.
//!
//! Read again whenever its stamp changes; the look at the stamp is one `stat` a lookup, which costs less
//! than the query that follows.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use hickory_resolver::{proto::rr::Name, system_conf::parse_resolv_conf};

use super::{Failure, Ourselves, Unusable};
use crate::net::stamp;

/// Where the system's own settings are found.
#[derive(Debug, Clone)]
pub struct System {
    /// resolv.conf.
    pub path: PathBuf,
    /// The port of the servers in it, which name none themselves.
    pub port: u16,
    /// Where the servers stand that are behind a local one, to be asked when resolv.conf names none but ourselves.
    pub behind: Vec<PathBuf>,
    /// The responder of this process, which is not asked.
    pub ourselves: Option<Ourselves>,
}

impl Default for System {
    fn default() -> Self {
        Self { path: "/etc/resolv.conf".into(), port: 53, behind: BEHIND.map(PathBuf::from).into(), ourselves: None }
    }
}

/// Where systemd-resolved and NetworkManager write whom they ask themselves, in this order.
const BEHIND: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// One state of resolv.conf and the files behind it; a file that is not there is one, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<stamp::Stamp>>);

/// What the files say.
pub(super) struct Found {
    /// The servers, if any is named.
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Search,
    /// Whether resolv.conf names ourselves, or nobody where nobody means ourselves.
    pub(super) names_ourselves: bool,
}

impl System {
    /// The system of a process with a responder.
    pub fn with(ourselves: Ourselves) -> Self {
        Self { ourselves: Some(ourselves), ..Self::default() }
    }

    pub(super) fn stamp(&self) -> Stamp {
        let behind = self.behind.iter().filter(|_| self.ourselves.is_some());
        Stamp(std::iter::once(&self.path).chain(behind).map(|path| stamp::Stamp::of(path).ok()).collect())
    }

    /// Whether a server is the responder of this process.
    pub(super) fn is_ourselves(&self, server: SocketAddr) -> bool {
        self.ourselves.as_ref().is_some_and(|ourselves| ourselves.is(server))
    }

    /// The servers, if the files name any but ourselves, and the search list of resolv.conf.
    pub(super) fn read(&self) -> Result<Found, Unusable> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "resolv.conf cannot be read");
                Vec::new()
            }
        };
        let (mut servers, search) = self.parse(text)?;
        let nobody_is_us = servers.is_empty() && self.is_ourselves(self.by_default());
        let named = servers.len();
        servers.retain(|server| !self.is_ourselves(*server));
        let names_ourselves = nobody_is_us || servers.len() < named;
        if servers.is_empty() && names_ourselves {
            // None of these need be there.
            let texts = self.behind.iter().filter_map(|path| std::fs::read(path).ok());
            let others = texts.filter_map(|text| self.parse(text).ok());
            let others = others.map(|(others, _)| others.into_iter().filter(|server| !self.is_ourselves(*server)));
            servers = others.map(Vec::from_iter).find(|others| !others.is_empty()).unwrap_or_default();
        }
        Ok(Found { servers, search, names_ourselves })
    }

    /// Who is asked where nobody is named, as resolv.conf(5) has it.
    pub(super) fn by_default(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port)
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
#[derive(Debug, Clone, PartialEq, Eq)]
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

    /// The servers found with these files, by a process whose responder listens there.
    fn found(listen: &str, resolv_conf: &str, behind: &[&str]) -> (Vec<String>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: String, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let path = write("resolv.conf".into(), resolv_conf);
        let absent = folder.path().join("absent");
        let behind = behind.iter().enumerate().map(|(i, text)| write(format!("behind-{i}"), text));
        let behind = std::iter::once(absent).chain(behind).collect();
        let ourselves = Some(Ourselves::new(listen.parse().unwrap()));
        let found = System { path, port: 53, behind, ourselves }.read().unwrap();
        (found.servers.iter().map(|server| server.ip().to_string()).collect(), found.names_ourselves)
    }

    #[test]
    fn ourselves_are_left_out_and_what_else_is_named_is_taken() {
        let both = "nameserver 127.0.0.1\nnameserver 10.0.0.2\n";
        assert_eq!(found("127.0.0.1:53", both, &["nameserver 10.9.9.9"]), (vec!["10.0.0.2".into()], true));
        assert_eq!(found("127.0.0.1:8453", both, &[]), (vec!["127.0.0.1".into(), "10.0.0.2".into()], false));
        let stub = "nameserver 127.0.0.53\n";
        assert_eq!(found("127.0.0.1:53", stub, &["nameserver 10.9.9.9"]), (vec!["127.0.0.53".into()], false));
    }

    #[test]
    fn where_only_ourselves_are_named_the_servers_behind_are_asked() {
        for resolv_conf in ["nameserver 127.0.0.1\n", "nameserver 127.0.0.53\n", "", "search lan\n"] {
            let none = found("0.0.0.0:53", resolv_conf, &["# nothing\n", "nameserver 127.0.0.1\n"]);
            assert_eq!(none, (vec![], true), "{resolv_conf}");
            let behind = found(
                "0.0.0.0:53",
                resolv_conf,
                &["nameserver 127.0.0.53", "nameserver 10.0.0.7", "nameserver 10.0.0.8"],
            );
            assert_eq!(behind, (vec!["10.0.0.7".into()], true), "{resolv_conf}");
        }
        assert_eq!(found("127.0.0.1:8453", "", &["nameserver 10.0.0.7"]), (vec![], false), "nobody means 127.0.0.1:53");
    }
}
