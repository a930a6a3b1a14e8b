//! Which service a connection to a VIP is for: the address alone tells, before anything has been read.
//!
//! All VIPs share the sockets of their ports, so an app may connect to an address there that is no service's. What
//! then becomes of it is what would become of it without that socket: nobody listens. But where an address in the
//! range was given away once, an app that still knows it deserves a word of explanation instead.

use std::net::{SocketAddr, SocketAddrV4};

use tokio::net::TcpStream;

use super::worker::Worker;
use crate::{
    config::Entry,
    service::{Services, Wanted},
};

/// What a connection stands for that has come in by this entry; `None` when nobody listens where it leads.
pub(super) async fn entry(worker: &Worker, stream: &TcpStream, entry: Entry) -> Option<Entry> {
    let (Entry::Vips(_) | Entry::Vip(_)) = entry else { return Some(entry) };
    let Ok(SocketAddr::V4(addr)) = stream.local_addr() else { return None };
    if let Some(known) = at(&worker.table.current(), addr) {
        return known;
    }
    // Of services that are made, some are forgotten before every app has forgotten their addresses.
    worker.summon(Wanted::AtVip(*addr.ip())).await;
    at(&worker.table.current(), addr).unwrap_or(Some(Entry::Vip(addr)))
}

/// The same by what is known: a service's own entry where the address is its own, nobody's where none listens, and
/// `None` for an address in the range that is no service's now.
fn at(services: &Services, addr: SocketAddrV4) -> Option<Option<Entry>> {
    let vips = services.vips();
    match (services.at_vip(*addr.ip()), vips) {
        (Some(service), Some(vips)) if service.listens_on(vips, addr.port()) => {
            Some(Some(Entry::Service(service.name().clone())))
        }
        (None, Some(vips)) if vips.range.contains(addr.ip()) && vips.ports.contains(&addr.port()) => None,
        _ => Some(None),
    }
}
