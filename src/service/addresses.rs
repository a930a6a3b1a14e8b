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
