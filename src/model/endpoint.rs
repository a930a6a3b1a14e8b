//! What exists: the live instances of a service, as an immutable snapshot.

use std::{net::SocketAddr, sync::Arc};

/// Which kind of source an endpoint was learnt from; the words of the config, the metrics and `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// Addresses written in the config.
    Static,
    /// A watched file.
    File,
    /// A and AAAA records.
    Dns,
    /// SRV records and the addresses of their targets.
    Srv,
}

impl SourceKind {
    /// The word for this kind, as the config spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::File => "file",
            Self::Dns => "dns",
            Self::Srv => "srv",
        }
    }
}

/// Where an endpoint was learnt from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The kind of source.
    pub kind: SourceKind,
    /// What exactly said so: a DNS name, a path, or `config`.
    pub detail: Arc<str>,
}

/// One live instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect. Unique within a set: an endpoint *is* its address.
    pub addr: SocketAddr,
    /// Its share of the traffic relative to its peers; 1 unless the source says otherwise, never 0.
    pub weight: u32,
    /// Its group, as in SRV (RFC 2782): the lowest number with a usable endpoint takes all traffic.
    pub priority: u16,
    /// `host:port` as the source names it, for the `Host` header where the app's own does not name the service.
    pub authority: Arc<str>,
    /// Where it was learnt from.
    pub origin: Origin,
}

/// The endpoints of one service at one moment: sorted by priority and address, without duplicates.
///
/// Immutable and cheap to clone. Discovery writes it; balancing, pools and views only read it.
#[derive(Debug, Clone)]
pub struct EndpointSet {
    revision: u64,
    endpoints: Arc<[Endpoint]>,
}

impl EndpointSet {
    /// A set without endpoints: what a service has before its source has spoken.
    pub fn empty() -> Self {
        Self { revision: 0, endpoints: Arc::from([]) }
    }

    /// Sorts the endpoints and drops doubles of an address (the first in order stays).
    pub fn new(revision: u64, mut endpoints: Vec<Endpoint>) -> Self {
        endpoints.sort_by_key(|e| (e.priority, e.addr));
        let mut seen = std::collections::HashSet::with_capacity(endpoints.len());
        endpoints.retain(|e| seen.insert(e.addr));
        Self { revision, endpoints: endpoints.into() }
    }

    /// Counts the changes of this service's set; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The endpoints, by priority and address.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Whether both sets hold the same endpoints, whatever their revisions.
    pub fn same_endpoints(&self, other: &Self) -> bool {
        self.endpoints == other.endpoints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(addr: &str, priority: u16) -> Endpoint {
        Endpoint {
            addr: addr.parse().unwrap(),
            weight: 1,
            priority,
            authority: addr.into(),
            origin: Origin { kind: SourceKind::Static, detail: "config".into() },
        }
    }

    #[test]
    fn a_set_is_sorted_and_holds_an_address_once() {
        let set = EndpointSet::new(
            3,
            vec![endpoint("10.0.0.2:80", 1), endpoint("10.0.0.1:80", 1), endpoint("10.0.0.2:80", 0)],
        );
        let got: Vec<_> = set.endpoints().iter().map(|e| (e.priority, e.addr.to_string())).collect();
        assert_eq!(got, [(0, "10.0.0.2:80".into()), (1, "10.0.0.1:80".into())]);
        assert_eq!(set.revision(), 3);
    }
}
