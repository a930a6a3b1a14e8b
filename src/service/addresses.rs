//! Which service has an address as an endpoint: asked once for each intercepted connection.
//!
//! To look through every service's endpoints costs more the more services there are, and most connections would ask in
//! vain. So it is an index, made anew when it is asked after some service's endpoints have changed.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;

use super::Service;

/// Counts the changes of any service's endpoints. One for the whole process: where several tables share it, an index is
/// made anew more often than it need be, which is all.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Some service's endpoints have changed.
pub(super) fn changed() {
    CHANGES.fetch_add(1, Ordering::Release);
}

/// The index of a table.
#[derive(Debug, Default)]
pub(super) struct Addresses(ArcSwapOption<Index>);

#[derive(Debug)]
struct Index {
    changes: u64,
    by_address: HashMap<SocketAddr, Arc<Service>, foldhash::fast::RandomState>,
}

impl Addresses {
    /// The service that has this endpoint; the first one, where several have.
    pub(super) fn find<'a>(
        &self,
        address: SocketAddr,
        services: impl Iterator<Item = &'a Arc<Service>>,
    ) -> Option<Arc<Service>> {
        // Read first: what changes meanwhile makes the index an old one.
        let changes = CHANGES.load(Ordering::Acquire);
        let index = self.0.load();
        if let Some(index) = index.as_ref().filter(|index| index.changes == changes) {
            return index.by_address.get(&address).cloned();
        }
        let mut by_address = HashMap::default();
        for service in services {
            for live in service.endpoints().live() {
                by_address.entry(live.endpoint().addr).or_insert_with(|| service.clone());
            }
        }
        let found = by_address.get(&address).cloned();
        self.0.store(Some(Arc::new(Index { changes, by_address })));
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap as Map;

    use super::*;
    use crate::{
        config::Config,
        model::{Endpoint, EndpointSet, Origin, ServiceName, SourceKind},
        service::{Services, now},
        telemetry::Metrics,
    };

    fn table(yaml: &str, vips: &[(&str, [u8; 4])]) -> Services {
        let config = Config::parse("test.yaml", yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).config;
        let vips: Map<_, _> = vips.iter().map(|(name, ip)| (ServiceName::parse(name).unwrap(), (*ip).into())).collect();
        Services::new(&config, &Metrics::new(), None, 1, &vips, None, now()).unwrap()
    }

    fn has(services: &Services, name: &str, hosts: &[u8]) {
        static REVISION: AtomicU64 = AtomicU64::new(1);
        let origin = Origin { kind: SourceKind::Static, detail: "config".into() };
        let endpoint = |host: &u8| Endpoint {
            addr: ([10, 0, 0, *host], 80).into(),
            weight: 1,
            priority: 0,
            authority: "a:80".into(),
            origin: origin.clone(),
        };
        let set = EndpointSet::new(REVISION.fetch_add(1, Ordering::Relaxed), hosts.iter().map(endpoint).collect());
        services.named(name).unwrap().discovered(&set, now());
    }

    fn at(services: &Services, addr: &str) -> Option<String> {
        services.at(addr.parse().unwrap()).map(|service| service.name().to_string())
    }

    #[tokio::test]
    async fn the_index_follows_the_endpoints() {
        let services = table("services: { a: { dns: a:80 }, b: { dns: b:80 } }", &[]);
        assert_eq!(at(&services, "10.0.0.1:80"), None);
        has(&services, "a", &[1, 2]);
        has(&services, "b", &[2, 3]);
        let found = |n: u8| at(&services, &format!("10.0.0.{n}:80"));
        assert_eq!(
            [1, 2, 3].map(found),
            ["a", "a", "b"].map(|name| Some(name.to_owned())),
            "the first has what both have"
        );
        assert_eq!(at(&services, "10.0.0.1:81"), None, "another port");
        has(&services, "a", &[4]);
        assert_eq!([1, 2, 4].map(found), [None, Some("b".to_owned()), Some("a".to_owned())]);
    }

    #[tokio::test]
    async fn a_vip_is_a_service_s_on_every_port_and_our_own_app_is_nobody_s() {
        let services =
            table("vip: {}\nservices: { a: { dns: a:80 } }\ninbound: { listen: 1, app: 2 }", &[("a", [127, 84, 0, 7])]);
        assert_eq!(at(&services, "127.84.0.7:1234").as_deref(), Some("a"));
        has(&services, "inbound", &[9]);
        assert_eq!(at(&services, "10.0.0.9:80"), None);
    }

    #[tokio::test]
    async fn our_own_listeners_are_known() {
        let services = table(
            "listen: { http: 127.0.0.1:8470, observe: 0.0.0.0:8471 }\nintercept: {}\n\
             services: { a: { dns: a:80, listen: 7001 } }",
            &[],
        );
        let ours = |addr: &str| services.is_listener(addr.parse().unwrap());
        for addr in ["127.0.0.1:8470", "127.0.0.1:8471", "127.0.0.2:8471", "127.0.0.1:8472", "127.0.0.1:7001"] {
            assert!(ours(addr), "{addr}");
        }
        // 192.0.2.1 is nobody's (RFC 5737).
        for addr in ["127.0.0.2:8470", "192.0.2.1:8471", "192.0.2.1:8470", "127.0.0.1:80", "127.0.0.1:0"] {
            assert!(!ours(addr), "{addr}");
        }
    }
}
