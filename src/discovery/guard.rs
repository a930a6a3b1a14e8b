//! Addresses that are no endpoints, whatever a name server says.
//!
//! - Our own VIPs. A name that leads to one leads back to this sidecar: some DNS server on the way has asked our own
//!   responder, as Docker's does for names that it does not know (any more). Calls would go round in circles.
//! - For services that nobody has declared (`*`): what is special about the host itself or its cloud. Whoever can choose
//!   a name can choose what it resolves to, and a metadata service gives its caller the host's credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

use super::{Again, Look, Report, Sight, Source};

/// What addresses a source may not lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guard {
    /// Our own VIPs.
    pub vips: Option<Ipv4Net>,
    /// Whether nobody has declared the service.
    pub undeclared: bool,
}

/// Metadata services outside of the link-local ranges: AWS over IPv6, Azure's wire server, Alibaba Cloud.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

impl Guard {
    /// Why an address is no endpoint, if it is none.
    fn refuses(&self, ip: IpAddr) -> Option<&'static str> {
        let ip = ip.to_canonical();
        if let (Some(vips), IpAddr::V4(v4)) = (self.vips, ip)
            && vips.contains(&v4)
        {
            return Some("a VIP of this sidecar");
        }
        if !self.undeclared {
            return None;
        }
        let (is_link_local, is_broadcast) = match ip {
            IpAddr::V4(v4) => (v4.is_link_local(), v4.is_broadcast()),
            IpAddr::V6(v6) => (v6.is_unicast_link_local(), false),
        };
        match () {
            () if is_link_local => Some("a link-local address"),
            () if METADATA.contains(&ip) => Some("a cloud's metadata service"),
            () if ip.is_unspecified() || ip.is_multicast() || is_broadcast => Some("no address of a host"),
            () => None,
        }
    }

    /// What is left of a report.
    fn filter(&self, report: Report) -> Report {
        let Report { sight: Sight::Endpoints(mut endpoints, problem), again } = report else { return report };
        let mut refused = None;
        endpoints.retain(|endpoint| match self.refuses(endpoint.addr.ip()) {
            Some(why) => {
                refused = Some(format!("{} is {why}, and no endpoint", endpoint.addr.ip()));
                false
            }
            None => true,
        });
        match refused {
            None => Report { sight: Sight::Endpoints(endpoints, problem), again },
            Some(refused) if endpoints.is_empty() => {
                Report { sight: Sight::Gone(refused.into()), again: Again::BackOff }
            }
            Some(refused) => Report { sight: Sight::Endpoints(endpoints, Some(refused.into())), again },
        }
    }
}

/// A source that is guarded.
pub(super) struct Guarded<S> {
    pub(super) source: S,
    pub(super) guard: Guard,
}

impl<S: Source> Source for Guarded<S> {
    fn look(&mut self) -> Look<'_> {
        let look = self.source.look();
        let guard = self.guard;
        Box::pin(async move { guard.filter(look.await) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Endpoint, Origin, SourceKind};

    fn report(ips: &[&str]) -> Report {
        let endpoint = |ip: &&str| Endpoint {
            addr: (ip.parse::<IpAddr>().unwrap(), 80).into(),
            weight: 1,
            priority: 0,
            authority: "a:80".into(),
            origin: Origin { kind: SourceKind::Dns, detail: "a".into() },
        };
        Report {
            sight: Sight::Endpoints(ips.iter().map(endpoint).collect(), None),
            again: Again::Ttl(Duration::from_secs(5)),
        }
    }

    #[test]
    fn nobody_is_led_to_a_metadata_service() {
        let guard = Guard { vips: None, undeclared: true };
        for ip in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "169.254.170.2",
            "fe80::1",
            "fd00:ec2::254",
            "168.63.129.16",
            "100.100.100.200",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(guard.refuses(ip.parse().unwrap()).is_some(), "{ip}");
            assert!(Guard::default().refuses(ip.parse().unwrap()).is_none(), "who declares {ip} means it");
        }
        for ip in ["10.0.0.1", "172.18.0.3", "127.0.0.1", "fd00::1", "203.0.113.9"] {
            assert_eq!(guard.refuses(ip.parse().unwrap()), None, "{ip}");
        }
    }

    #[test]
    fn a_name_that_leads_back_to_us_is_gone() {
        let guard = Guard { vips: Some("127.84.0.0/16".parse().unwrap()), undeclared: false };
        let Sight::Gone(why) = guard.filter(report(&["127.84.1.2"])).sight else { panic!("an endpoint") };
        assert!(why.contains("127.84.1.2 is a VIP of this sidecar"), "{why}");
        let some = guard.filter(report(&["10.0.0.1", "127.84.1.2"]));
        let Sight::Endpoints(left, Some(problem)) = some.sight else { panic!("{some:?}") };
        assert_eq!((left.len(), some.again), (1, Again::Ttl(Duration::from_secs(5))));
        assert!(problem.contains("127.84.1.2"), "{problem}");
        assert_eq!(guard.filter(report(&["10.0.0.1"])), report(&["10.0.0.1"]));
    }
}
