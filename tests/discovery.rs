//! Discovery against a real DNS server in this process, and against real files.
//!
//! What is believed when is settled by the timelines beside the code; here it is shown that every kind of
//! answer that a server can give arrives there as what it is. Times are made small by the settings, and
//! waited for on the subscription or on the server's own count of queries.

#[path = "discovery/dns.rs"]
mod dns;
#[path = "discovery/file.rs"]
mod file;
#[path = "discovery/server.rs"]
mod server;
#[path = "discovery/srv.rs"]
mod srv;

use std::{net::SocketAddr, time::Duration};

use outrigger::{
    config::{Nameserver, Resolver, Source},
    discovery::{Discovery, Snapshot, Subscription},
    model::ServiceName,
    telemetry::metrics::Metrics,
};

/// Settings that make everything quick but the time-out.
pub fn settings(servers: &[SocketAddr]) -> Resolver {
    Resolver {
        servers: servers.iter().copied().map(Nameserver::At).collect(),
        ttl_min: Duration::from_millis(5),
        ttl_max: Duration::from_millis(20),
        hold: Duration::from_millis(100),
        timeout: Duration::from_secs(5),
    }
}

pub fn dns(host: &str) -> Source {
    Source::Dns { host: host.into(), port: 8080 }
}

pub fn watch(settings: &Resolver, source: &Source) -> Subscription {
    let discovery = Discovery::new(settings, Metrics::new()).unwrap();
    discovery.watch(&ServiceName::parse("orders").unwrap(), source)
}

/// Waits until the snapshot is as wanted.
pub async fn until(subscription: &mut Subscription, wanted: impl FnMut(&Snapshot) -> bool) -> Snapshot {
    let seen = subscription.snapshots.clone();
    let wait = subscription.snapshots.wait_for(wanted);
    match tokio::time::timeout(Duration::from_secs(20), wait).await {
        Ok(snapshot) => snapshot.expect("the watch runs on").clone(),
        Err(_) => panic!("it stays at {:?}", seen.borrow()),
    }
}

pub fn addrs(snapshot: &Snapshot) -> Vec<String> {
    snapshot.set.endpoints().iter().map(|e| e.addr.to_string()).collect()
}

pub fn problem(snapshot: &Snapshot) -> &str {
    snapshot.status.problem.as_deref().unwrap_or("")
}
