//! The listening sockets of traffic: bound as a whole, and changed as a whole by a reload.
//!
//! A socket is known by the address that the config gives it and by what it stands for. One that stays is
//! never touched; one that only changes hands between services is passed on without being closed, so that
//! no connection meets a closed port in between.
//!
//! VIPs have one socket a port, and not one a service: it is bound to every address of the loopback interface, and the
//! address that an app has connected to tells the service. Thousands of services cost nothing that way, and a service
//! that is made while the sidecar runs has its VIP at once. Where that socket cannot be had, since some other process
//! listens on the same port of some address or the kernel is an old one, each VIP gets a socket of its own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
};

use super::Error;
use crate::{
    config::{Config, Entry, Listener},
    model::ServiceName,
    net::tcp,
};

/// The VIPs that a configuration's services have.
pub(super) type Vips = HashMap<ServiceName, Ipv4Addr>;

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
    pub(super) fn bind(config: &Config, vips: &Vips) -> Result<Self, Error> {
        let none = Self { bound: HashMap::new() };
        none.changed_to(config, vips).map(|changed| changed.listeners)
    }

    /// The sockets of another config: those that stay, those that pass to another service, and new ones.
    /// Nothing has changed when one of the new ones cannot be bound.
    pub(super) fn changed_to(&self, config: &Config, vips: &Vips) -> Result<Changed, Error> {
        let wanted = config.listeners();
        let mut bound = HashMap::with_capacity(wanted.len());
        let mut added = Vec::new();
        for Listener { entry, addr } in wanted {
            let stays = self.bound.get(&entry).filter(|bound| bound.configured == addr);
            let passes = || {
                let is_it = |(entry, bound): &(&Entry, &Bound)| {
                    bound.configured == addr && addr.port() != 0 && !matches!(entry, Entry::Vips(_))
                };
                self.bound.iter().find(is_it).map(|(_, bound)| bound)
            };
            let kept = stays.or_else(passes).map(|bound| bound.socket.try_clone());
            let socket = kept.unwrap_or_else(|| tcp::listen(addr)).map_err(|source| error(&entry, addr, source))?;
            let actual = socket.local_addr().map_err(|source| error(&entry, addr, source))?;
            if stays.is_none() {
                added.push(entry.clone());
            }
            bound.insert(entry, Bound { configured: addr, actual, socket });
        }
        for (port, addresses) in vip_ports(config, vips) {
            self.bind_vips(port, &addresses, &mut bound, &mut added)?;
        }
        let is_kept = |entry: &&Entry| bound.contains_key(*entry) && !added.contains(entry);
        let removed = self.bound.keys().filter(|entry| !is_kept(entry)).cloned().collect();
        Ok(Changed { listeners: Self { bound }, added, removed })
    }

    /// Binds a port of all VIPs, or of each of these.
    fn bind_vips(
        &self,
        port: u16,
        addresses: &BTreeSet<Ipv4Addr>,
        bound: &mut HashMap<Entry, Bound>,
        added: &mut Vec<Entry>,
    ) -> Result<(), Error> {
        let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let entry = Entry::Vips(port);
        let is_each = self.bound.keys().any(|entry| matches!(entry, Entry::Vip(addr) if addr.port() == port));
        let failed = |addr, source| error(&Entry::Vips(port), addr, source);
        if let Some(stays) = self.bound.get(&entry) {
            let socket = stays.socket.try_clone().map_err(|source| failed(all, source))?;
            bound.insert(entry, Bound { configured: all, actual: stays.actual, socket });
            return Ok(());
        }
        if let Some(first) = addresses.first() {
            // A socket for every address says nothing of whether these are ours.
            UdpSocket::bind((*first, 0)).map_err(|source| failed((*first, port).into(), source))?;
        }
        if !is_each {
            match tcp::listen_on_loopback(port) {
                Ok(socket) => {
                    added.push(entry.clone());
                    bound.insert(entry, Bound { configured: all, actual: all, socket });
                    return Ok(());
                }
                Err(error) => tracing::info!(port, %error, "one socket for all VIPs cannot be had, each gets its own"),
            }
        }
        for address in addresses {
            let addr = SocketAddrV4::new(*address, port);
            let entry = Entry::Vip(addr);
            let stays = self.bound.get(&entry).map(|bound| bound.socket.try_clone());
            if stays.is_none() {
                added.push(entry.clone());
            }
            let socket =
                stays.unwrap_or_else(|| tcp::listen(addr.into())).map_err(|source| failed(addr.into(), source))?;
            bound.insert(entry, Bound { configured: addr.into(), actual: addr.into(), socket });
        }
        Ok(())
    }

    /// Whether a service that is made now would be reached at its VIP.
    pub(super) fn serve_any_vip(&self) -> bool {
        !self.bound.keys().any(|entry| matches!(entry, Entry::Vip(_)))
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
            Entry::Shared | Entry::Inbound | Entry::Vips(_) | Entry::Vip(_) | Entry::Intercepted => None,
        };
        self.bound.iter().filter_map(of_service).collect()
    }
}

/// The ports that VIPs listen on, each with the VIPs that do.
fn vip_ports(config: &Config, vips: &Vips) -> BTreeMap<u16, BTreeSet<Ipv4Addr>> {
    let Some(settings) = &config.vip else { return BTreeMap::new() };
    let mut ports: BTreeMap<u16, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for (name, address) in vips {
        let own = config.services.get(name).map(|service| service.vip.ports.as_slice()).unwrap_or_default();
        for port in settings.ports.iter().chain(own) {
            ports.entry(*port).or_default().insert(*address);
        }
    }
    if config.wildcard.is_some() {
        // Whoever is made later has an address then.
        for port in &settings.ports {
            ports.entry(*port).or_default();
        }
    }
    ports
}

fn error(entry: &Entry, addr: SocketAddr, source: io::Error) -> Error {
    match entry {
        Entry::Shared => Error::Bind { what: "listen.http", addr, source },
        Entry::Inbound => Error::Bind { what: "inbound.listen", addr, source },
        Entry::Vips(_) | Entry::Vip(_) => Error::BindVip { addr, source },
        Entry::Intercepted => Error::Bind { what: "intercept.listen", addr, source },
        Entry::Service(name) => Error::BindService { service: name.to_string(), addr, source },
    }
}
