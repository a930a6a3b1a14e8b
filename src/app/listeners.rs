//! The listening sockets of traffic: bound as a whole, and changed as a whole by a reload.
//!
//! A socket is known by the address that the config gives it and by what it stands for. One that stays is
//! never touched; one that only changes hands between services is passed on without being closed, so that
//! no connection meets a closed port in between.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{SocketAddr, TcpListener},
};

use super::Error;
use crate::{
    config::{Config, Entry, Listener},
    model::ServiceName,
    net::tcp,
};

/// The sockets of one configuration, by what they stand for.
#[derive(Debug)]
pub(super) struct Listeners {
    bound: HashMap<Entry, Bound>,
}

#[derive(Debug)]
struct Bound {
    configured: SocketAddr,
    actual: SocketAddr,
    socket: TcpListener,
}

/// What a reload changes.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) listeners: Listeners,
    pub(super) added: Vec<Entry>,
    pub(super) removed: Vec<Entry>,
}

impl Listeners {
    /// Binds every port that the config names.
    pub(super) fn bind(config: &Config) -> Result<Self, Error> {
        let none = Self { bound: HashMap::new() };
        none.changed_to(config).map(|changed| changed.listeners)
    }

    /// The sockets of another config: those that stay, those that pass to another service, and new ones.
    /// Nothing has changed when one of the new ones cannot be bound.
    pub(super) fn changed_to(&self, config: &Config) -> Result<Changed, Error> {
        let wanted = config.listeners();
        let mut bound = HashMap::with_capacity(wanted.len());
        let mut added = Vec::new();
        for Listener { entry, addr } in wanted {
            let stays = self.bound.get(&entry).filter(|bound| bound.configured == addr);
            let passes = || self.bound.values().find(|bound| bound.configured == addr && addr.port() != 0);
            let kept = stays.or_else(passes).map(|bound| bound.socket.try_clone());
            let socket = kept.unwrap_or_else(|| tcp::listen(addr)).map_err(|source| error(&entry, addr, source))?;
            let actual = socket.local_addr().map_err(|source| error(&entry, addr, source))?;
            if stays.is_none() {
                added.push(entry.clone());
            }
            bound.insert(entry, Bound { configured: addr, actual, socket });
        }
        let is_kept = |entry: &&Entry| bound.contains_key(*entry) && !added.contains(entry);
        let removed = self.bound.keys().filter(|entry| !is_kept(entry)).cloned().collect();
        Ok(Changed { listeners: Self { bound }, added, removed })
    }

    /// A second handle to each of these sockets, for the acceptor.
    pub(super) fn handles<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> io::Result<Vec<(Entry, TcpListener)>> {
        let handle = |entry: &Entry| Some((entry.clone(), self.bound.get(entry)?.socket.try_clone()));
        entries.into_iter().filter_map(handle).map(|(entry, socket)| Ok((entry, socket?))).collect()
    }

    /// What the sockets stand for.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.bound.keys()
    }

    /// Where the shared port is.
    pub(super) fn shared_addr(&self) -> SocketAddr {
        self.bound.get(&Entry::Shared).map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |bound| bound.actual)
    }

    /// Where callers of our own app come in.
    pub(super) fn inbound_addr(&self) -> Option<SocketAddr> {
        self.bound.iter().find_map(|(entry, bound)| matches!(entry, Entry::Inbound).then_some(bound.actual))
    }

    /// Where redirected connections come in.
    pub(super) fn intercepted_addr(&self) -> Option<SocketAddr> {
        self.bound.get(&Entry::Intercepted).map(|bound| bound.actual)
    }

    /// Where the services' own ports are.
    pub(super) fn service_addrs(&self) -> BTreeMap<ServiceName, SocketAddr> {
        let of_service = |(entry, bound): (&Entry, &Bound)| match entry {
            Entry::Service(name) => Some((name.clone(), bound.actual)),
            Entry::Shared | Entry::Inbound | Entry::Vips(_) | Entry::Intercepted => None,
        };
        self.bound.iter().filter_map(of_service).collect()
    }
}

fn error(entry: &Entry, addr: SocketAddr, source: io::Error) -> Error {
    match entry {
        Entry::Shared => Error::Bind { what: "listen.http", addr, source },
        Entry::Inbound => Error::Bind { what: "inbound.listen", addr, source },
        Entry::Vips(_) => Error::Bind { what: "vip.ports", addr, source },
        Entry::Intercepted => Error::Bind { what: "intercept.listen", addr, source },
        Entry::Service(name) => Error::BindService { service: name.to_string(), addr, source },
    }
}
