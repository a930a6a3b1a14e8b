//! Our own connections to where intercepted ones were meant to go, known by their addresses.
//!
//! A redirect rule that does not leave our connections alone sends each of them back to us, to be taken on once more,
//! and so on until there is no port left. Such a connection has the two addresses that we have just connected by: here
//! they are looked up. It costs a look a connection, and nothing a call.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// From where, and to where.
type Pair = (SocketAddr, SocketAddr);

/// The connections of all workers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Outgoing(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pairs: Mutex<HashSet<Pair>>,
    has_complained: AtomicBool,
}

/// A connection is known until this drops.
#[derive(Debug)]
pub(super) struct Entered {
    all: Outgoing,
    pair: Pair,
}

impl Outgoing {
    /// Remembers a connection of ours.
    pub(super) fn enter(&self, from: SocketAddr, to: SocketAddr) -> Entered {
        self.pairs().insert((from, to));
        Entered { all: self.clone(), pair: (from, to) }
    }

    /// Whether a connection is one of ours.
    pub(super) fn has(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.pairs().contains(&(from, to))
    }

    /// Says that a connection has come back to us; aloud only once, as there will be more.
    pub(super) fn complain(&self, destination: SocketAddr) {
        if self.0.has_complained.swap(true, Ordering::Relaxed) {
            tracing::debug!(%destination, "a connection that leads back to the sidecar was reset");
        } else {
            tracing::warn!(
                %destination,
                "a connection that leads back to the sidecar was reset: the redirect rules must leave the sidecar's \
                 own user or mark alone, and its ports (`outrigger intercept --print` shows how)"
            );
        }
    }

    fn pairs(&self) -> MutexGuard<'_, HashSet<Pair>> {
        self.0.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.all.pairs().remove(&self.pair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_by_both_of_its_addresses_and_while_it_lasts() {
        let [a, b, c] = [1, 2, 3].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let outgoing = Outgoing::default();
        let entered = outgoing.enter(a, b);
        assert!(outgoing.clone().has(a, b));
        assert!(!outgoing.has(a, c), "another one from the same port");
        drop(entered);
        assert!(!outgoing.has(a, b));
    }
}
