//! The `static` source: the addresses that stand in the config, at equal weight.
//!
//! One look is enough; another list comes with another configuration.

use std::{net::SocketAddr, sync::Arc};

use super::{Again, Look, Report, Sight, Source};
use crate::model::{Endpoint, Origin, SourceKind};

/// Endpoints written in the config.
pub(super) struct Fixed(Vec<Endpoint>);

impl Fixed {
    pub(super) fn new(addrs: &[SocketAddr]) -> Self {
        let origin = Origin { kind: SourceKind::Static, detail: "config".into() };
        let endpoint = |addr: &SocketAddr| Endpoint {
            addr: *addr,
            weight: 1,
            priority: 0,
            authority: Arc::from(addr.to_string()),
            origin: origin.clone(),
        };
        Self(addrs.iter().map(endpoint).collect())
    }
}

impl Source for Fixed {
    fn look(&mut self) -> Look<'_> {
        let sight = match self.0.is_empty() {
            true => Sight::Gone("the list is empty".into()),
            false => Sight::Endpoints(self.0.clone(), None),
        };
        Box::pin(std::future::ready(Report { sight, again: Again::Never }))
    }
}
