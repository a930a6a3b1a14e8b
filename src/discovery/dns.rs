//! The `dns` source: every A and AAAA record of a name is an endpoint, all at the port of the config.
//!
//! `localhost` is answered without a lookup, and its IPv4 address goes first: most programs listen there
//! alone, and calls spread evenly over both families would half fail.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    Again, Look, Report, Sight, Source,
    host::{Host, Resolved},
};
use crate::{
    model::{Endpoint, Origin, SourceKind},
    net::resolve::{FOREVER, Resolver, is_localhost},
};

/// A name and a port.
pub(super) struct Dns {
    resolver: Resolver,
    host: Host,
    port: u16,
    localhost: bool,
    authority: Arc<str>,
    origin: Origin,
}

impl Dns {
    pub(super) fn new(resolver: Resolver, host: &Arc<str>, port: u16) -> Self {
        let bare_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
        let authority = if bare_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self {
            resolver,
            host: Host::new(host),
            port,
            localhost: is_localhost(host),
            authority: authority.into(),
            origin: Origin { kind: SourceKind::Dns, detail: Arc::clone(host) },
        }
    }

    fn endpoint(&self, ip: IpAddr) -> Endpoint {
        Endpoint {
            addr: SocketAddr::new(ip, self.port),
            weight: 1,
            priority: u16::from(self.localhost && ip.is_ipv6()),
            authority: Arc::clone(&self.authority),
            origin: self.origin.clone(),
        }
    }
}

impl Source for Dns {
    fn look(&mut self) -> Look<'_> {
        Box::pin(async {
            match self.host.look(&self.resolver).await {
                Resolved::Addresses { addresses, ttl, problem } => {
                    let endpoints = addresses.into_iter().map(|ip| self.endpoint(ip)).collect();
                    let again = if ttl == FOREVER { Again::Never } else { Again::Ttl(ttl) };
                    Report { sight: Sight::Endpoints(endpoints, problem.map(Into::into)), again }
                }
                Resolved::Gone(why) => Report { sight: Sight::Gone(why.into()), again: Again::BackOff },
                Resolved::Failed(why) => Report { sight: Sight::Failed(why.into()), again: Again::BackOff },
            }
        })
    }
}
