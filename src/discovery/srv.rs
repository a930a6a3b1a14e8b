//! The `srv` source: each SRV record names a host, a port, a priority and a weight (RFC 2782).
//!
//! - Priority: becomes the endpoint's; the lowest that is usable takes all traffic.
//! - Weight: becomes the endpoint's. A weight of 0 counts as 1, the smallest share that there is: among
//!   targets with weights, RFC 2782 wants it chosen rarely, and among zeroes alone, evenly; 1 does both. A target
//!   with several addresses gives its weight to each.
//! - A target's addresses are taken from the answer itself (the additional section) if they stand there,
//!   and looked up otherwise.
//! - The target `.` says that the service is decidedly not available.
//!
//! A target whose lookup fails keeps the addresses it had; one that had none is left out for now.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinSet;

use super::{
    Again, Look, Report, Sight, Source,
    host::{Host, Resolved},
};
use crate::{
    model::{Endpoint, Origin, SourceKind},
    net::resolve::{Answer, Question, Resolver, Target, Targets},
};

/// Records used of one answer, the most preferred ones: each may need lookups of its own.
const MAX_TARGETS: usize = 1000;

/// A service name.
pub(super) struct Srv {
    resolver: Resolver,
    question: Question,
    /// What the targets of the last answer said last.
    hosts: HashMap<Arc<str>, Host>,
    origin: Origin,
}

/// The addresses behind all targets of one answer.
#[derive(Default)]
struct Found {
    addresses: HashMap<Arc<str>, Vec<IpAddr>>,
    ttl: Option<Duration>,
    problems: Vec<String>,
}

impl Srv {
    pub(super) fn new(resolver: Resolver, name: &Arc<str>) -> Self {
        let origin = Origin { kind: SourceKind::Srv, detail: Arc::clone(name) };
        Self { resolver, question: Question::new(name), hosts: HashMap::new(), origin }
    }

    async fn see(&mut self) -> (Sight, Again) {
        let Targets { targets, mut glue } = self.resolver.targets(&mut self.question).await;
        let (mut targets, ttl) = match targets {
            Answer::Found { records, ttl } => (records, ttl),
            Answer::NoRecords => return (Sight::Gone("no SRV records".into()), Again::BackOff),
            Answer::NoName => return (Sight::Gone("NXDOMAIN".into()), Again::BackOff),
            Answer::Failed(failure) => return (Sight::Failed(failure.why), Again::BackOff),
        };
        targets.retain(|target| &*target.host != ".");
        if targets.is_empty() {
            return (Sight::Gone("the service is decidedly not available (SRV target \".\")".into()), Again::BackOff);
        }
        // Servers shuffle. In one order always, two targets with the same address give the same endpoint.
        targets.sort_unstable();
        targets.dedup();
        targets.truncate(MAX_TARGETS);
        let found = self.resolve(&targets, &mut glue).await;
        let problem = (!found.problems.is_empty()).then(|| Arc::from(found.problems.join("; ")));
        let endpoints = self.endpoints(&targets, &found.addresses);
        match (endpoints.is_empty(), problem) {
            (false, problem) => {
                (Sight::Endpoints(endpoints, problem), Again::Ttl(found.ttl.map_or(ttl, |t| t.min(ttl))))
            }
            (true, Some(problem)) => (Sight::Failed(problem), Again::BackOff),
            (true, None) => (Sight::Gone("no target has an address".into()), Again::BackOff),
        }
    }

    /// Finds the addresses of all targets, those that need a lookup side by side.
    async fn resolve(&mut self, targets: &[Target], glue: &mut HashMap<Arc<str>, Vec<IpAddr>>) -> Found {
        let mut found = Found::default();
        let names: HashSet<&Arc<str>> = targets.iter().map(|t| &t.host).collect();
        self.hosts.retain(|name, _| names.contains(name));
        let mut lookups = JoinSet::new();
        for name in names {
            let mut host = self.hosts.remove(name).unwrap_or_else(|| Host::new(&absolute(name)));
            match glue.remove(name) {
                Some(addresses) => {
                    host.remember(&addresses);
                    self.hosts.insert(Arc::clone(name), host);
                    found.addresses.insert(Arc::clone(name), addresses);
                }
                None => {
                    let (name, resolver) = (Arc::clone(name), self.resolver.clone());
                    lookups.spawn(async move {
                        let resolved = host.look(&resolver).await;
                        (name, host, resolved)
                    });
                }
            }
        }
        while let Some(lookup) = lookups.join_next().await {
            // A lookup that was cancelled or panicked leaves its target out of this look.
            let Ok((name, host, resolved)) = lookup else { continue };
            found.hear(&name, &host, resolved);
            self.hosts.insert(name, host);
        }
        found.problems.sort_unstable();
        found
    }

    fn endpoints(&self, targets: &[Target], addresses: &HashMap<Arc<str>, Vec<IpAddr>>) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for target in targets {
            let authority: Arc<str> = format!("{}:{}", target.host, target.port).into();
            for ip in addresses.get(&target.host).into_iter().flatten() {
                endpoints.push(Endpoint {
                    addr: SocketAddr::new(*ip, target.port),
                    weight: u32::from(target.weight.max(1)),
                    priority: target.priority,
                    authority: Arc::clone(&authority),
                    origin: self.origin.clone(),
                });
            }
        }
        endpoints
    }
}

impl Found {
    fn hear(&mut self, name: &Arc<str>, host: &Host, resolved: Resolved) {
        match resolved {
            Resolved::Addresses { addresses, ttl, problem } => {
                self.addresses.insert(Arc::clone(name), addresses);
                self.ttl = Some(self.ttl.map_or(ttl, |t| t.min(ttl)));
                self.problems.extend(problem.map(|p| format!("{name}: {p}")));
            }
            Resolved::Gone(_) => {}
            Resolved::Failed(why) => {
                self.addresses.insert(Arc::clone(name), host.known().collect());
                self.problems.push(format!("{name}: {why}"));
            }
        }
    }
}

/// A target is a full name (RFC 2782): the search list has no part in it.
fn absolute(host: &str) -> String {
    format!("{host}.")
}

impl Source for Srv {
    fn look(&mut self) -> Look<'_> {
        Box::pin(async {
            let (sight, again) = self.see().await;
            Report { sight, again }
        })
    }
}
