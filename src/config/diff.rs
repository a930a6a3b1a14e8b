//! What a reload has to do: the difference between the configuration that runs and a new one.
//!
//! Pure. The reload itself keeps every listener and the state of every service that is not named here.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
};

use super::{Config, Service};
use crate::model::ServiceName;

/// The difference between two configurations; everything empty when there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Services that are new.
    pub added: Vec<ServiceName>,
    /// Services that are gone.
    pub removed: Vec<ServiceName>,
    /// Services that go on, with what is different about them.
    pub changed: Vec<(ServiceName, Vec<Part>)>,
    /// Whether the receiving side is new, gone, or different in anything at all: its address (which
    /// `listeners` has, too), TLS, who may call, the app, or the rules of calls to it.
    pub inbound: bool,
    /// Listeners for calls.
    pub listeners: Listeners,
    /// Process-wide keys with a new value that can be taken over at once (`log.level`).
    pub live: Vec<&'static str>,
    /// Process-wide keys with a new value that only a restart brings to life (`workers`).
    pub restart: Vec<&'static str>,
}

/// A part of a service that can change by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Where its endpoints come from: discovery starts anew.
    Source,
    /// Its aliases, its own port or its VIP.
    Entry,
    /// Limits on time.
    Timeout,
    /// The limit on outstanding calls.
    Bulkhead,
    /// The circuit breaker: its state stays, a window of another length starts anew.
    Breaker,
    /// How an endpoint is chosen.
    Balance,
    /// What is spoken to the endpoints.
    Protocol,
    /// TLS to the endpoints.
    Tls,
    /// Which web pages may call.
    Cors,
}

/// The difference between two sets of listeners. One that is in none of these lists stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listeners {
    /// To open.
    pub added: Vec<Listener>,
    /// To close, once the calls that came by them have ended.
    pub removed: Vec<Listener>,
    /// To keep open, for somebody else: here with what is behind them now.
    pub reassigned: Vec<Listener>,
}

/// A listener for calls, and which service is behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Where it listens. Port 0 is any free port, so that several listeners may have it.
    pub addr: SocketAddr,
    /// What is behind it.
    pub entry: Entry,
}

/// What is behind a listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// Any service, by name.
    Shared,
    /// This one.
    Service(ServiceName),
    /// Our own app, by [`super::Inbound`].
    Inbound,
    /// The service whose VIP the app has connected to, at this port.
    Vips(u16),
    /// The service that has this VIP.
    Vip(SocketAddrV4),
    /// Whatever an app meant, whose connection was redirected to us.
    Intercepted,
}

impl Changes {
    /// Whether there is no difference at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Config {
    /// The listeners for calls, but for those of VIPs: the shared one first, then the services' own, then the receiving
    /// side's, then the one for intercepted connections.
    pub fn listeners(&self) -> Vec<Listener> {
        let own = |service: &Arc<Service>| {
            Some(Listener { addr: service.listen?, entry: Entry::Service(service.name.clone()) })
        };
        let shared = Listener { addr: self.listen.http, entry: Entry::Shared };
        let inbound = self.inbound.iter().map(|inbound| Listener { addr: inbound.listen, entry: Entry::Inbound });
        let intercepted = self.intercept.iter().map(|on| Listener { addr: on.listen, entry: Entry::Intercepted });
        let own = self.services.values().filter_map(own);
        std::iter::once(shared).chain(own).chain(inbound).chain(intercepted).collect()
    }
}

/// Compares the configuration that runs with a new one. Where a value came from makes no difference.
pub fn diff(old: &Config, new: &Config) -> Changes {
    let (mut changes, mut live, mut restart) = (Changes::default(), Vec::new(), Vec::new());
    for (name, service) in &new.services {
        match old.services.get(name) {
            None => changes.added.push(name.clone()),
            Some(before) => {
                let parts = parts(before, service);
                changes.changed.extend((!parts.is_empty()).then(|| (name.clone(), parts)));
            }
        }
    }
    changes.removed = old.services.keys().filter(|name| !new.services.contains_key(*name)).cloned().collect();
    changes.inbound = match (&old.inbound, &new.inbound) {
        (None, None) => false,
        (Some(old), Some(new)) => {
            let own = (old.listen, &old.tls, &old.allow) != (new.listen, &new.tls, &new.allow);
            own || !parts(&old.service, &new.service).is_empty()
        }
        (None, Some(_)) | (Some(_), None) => true,
    };
    changes.listeners = listeners(&old.listeners(), &new.listeners());

    let at = |list: &mut Vec<_>, key: &'static str, differs: bool| list.extend(differs.then_some(key));
    at(&mut restart, "listen.observe", old.listen.observe != new.listen.observe);
    at(&mut restart, "listen.admin", old.listen.admin != new.listen.admin);
    at(&mut restart, "workers", old.workers != new.workers);
    at(&mut restart, "listen.dns", old.listen.dns != new.listen.dns);
    at(&mut live, "vip.domain", old.domain != new.domain);
    at(&mut live, "vip", old.vip != new.vip);
    at(&mut live, "dns", old.dns != new.dns);
    at(&mut live, "intercept", old.intercept != new.intercept);
    at(&mut live, "listen.override", old.listen.override_header != new.listen.override_header);
    at(&mut live, "services.*", old.wildcard != new.wildcard);
    at(&mut live, "resolver", old.resolver != new.resolver);
    at(&mut live, "limits", old.limits != new.limits);
    at(&mut live, "log.access", old.log.access != new.log.access);
    at(&mut live, "log.level", old.log.level != new.log.level);
    at(&mut live, "ready", old.ready_limit != new.ready_limit);
    at(&mut live, "drain", old.drain != new.drain);
    Changes { live, restart, ..changes }
}

fn parts(old: &Service, new: &Service) -> Vec<Part> {
    let differs = [
        (Part::Source, old.source != new.source),
        (Part::Entry, old.aliases != new.aliases || old.listen != new.listen || old.vip != new.vip),
        (Part::Timeout, old.policy.timeout != new.policy.timeout),
        (Part::Bulkhead, old.policy.bulkhead != new.policy.bulkhead),
        (Part::Breaker, old.policy.breaker != new.policy.breaker),
        (Part::Balance, old.policy.balance != new.policy.balance),
        (Part::Protocol, old.policy.protocol != new.policy.protocol),
        (Part::Tls, old.policy.tls != new.policy.tls),
        (Part::Cors, old.policy.cors != new.policy.cors),
    ];
    differs.into_iter().filter_map(|(part, differs)| differs.then_some(part)).collect()
}

/// A listener with a port is its address, whoever is behind it; one without (port 0) is its service's.
fn listeners(old: &[Listener], new: &[Listener]) -> Listeners {
    let id = |listener: &Listener| (listener.addr, (listener.addr.port() == 0).then(|| listener.entry.clone()));
    let (before, after): (BTreeSet<_>, BTreeSet<_>) = (old.iter().map(id).collect(), new.iter().map(id).collect());
    let same: BTreeSet<_> = old.iter().collect();
    Listeners {
        added: new.iter().filter(|listener| !before.contains(&id(listener))).cloned().collect(),
        removed: old.iter().filter(|listener| !after.contains(&id(listener))).cloned().collect(),
        reassigned: new.iter().filter(|l| before.contains(&id(l)) && !same.contains(l)).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse("t.yaml", text, &|_| None).unwrap().config
    }

    fn name(text: &str) -> ServiceName {
        ServiceName::parse(text).unwrap()
    }

    #[test]
    fn nothing_changes_when_only_lines_move() {
        let old = config("services: { a: { dns: a:80, timeout: 1s } }");
        let new = config("# moved\ndefaults: { timeout: 1000ms }\nservices: { a: { dns: a:80 } }");
        assert_ne!(old, new, "provenance differs");
        assert!(diff(&old, &new).is_empty());
    }

    #[test]
    fn services_come_go_and_change_part_by_part() {
        let old = config("services: { a: { dns: a:80 }, b: { dns: b:80 }, c: { dns: c:80 } }");
        let new =
            config("services: { b: { dns: b:81, breaker: off, aliases: [bb] }, c: { dns: c:80 }, d: { srv: d } }");
        let changes = diff(&old, &new);
        assert_eq!((changes.added, changes.removed), (vec![name("d")], vec![name("a")]));
        assert_eq!(changes.changed, [(name("b"), vec![Part::Source, Part::Entry, Part::Breaker])]);
    }

    #[test]
    fn a_port_that_changes_hands_stays_open() {
        let old = config(
            "services: { a: { dns: a:80, listen: 7001 }, b: { dns: b:80, listen: 0 }, c: { dns: c:80, listen: 7003 } }",
        );
        let new =
            config("listen: { http: 0 }\nservices: { b: { dns: b:80, listen: 7001 }, c: { dns: c:80, listen: 7003 } }");
        let changes = diff(&old, &new).listeners;
        let at = |port, entry| Listener { addr: ([127, 0, 0, 1], port).into(), entry };
        assert_eq!(changes.added, [at(0, Entry::Shared)]);
        assert_eq!(changes.removed, [at(8470, Entry::Shared), at(0, Entry::Service(name("b")))]);
        assert_eq!(changes.reassigned, [at(7001, Entry::Service(name("b")))]);
    }

    #[test]
    fn every_policy_is_a_part() {
        let old = config("services: { a: { dns: a:80 } }");
        for (policy, part) in [
            ("timeout: 1s", Part::Timeout),
            ("bulkhead: 1", Part::Bulkhead),
            ("breaker: 1%", Part::Breaker),
            ("balance: random", Part::Balance),
            ("protocol: http2", Part::Protocol),
            ("tls: on", Part::Tls),
            ("cors: { origins: https://a.example }", Part::Cors),
        ] {
            let new = config(&format!("services: {{ a: {{ dns: a:80, {policy} }} }}"));
            assert_eq!(diff(&old, &new).changed, [(name("a"), vec![part])], "{policy}");
        }
    }

    #[test]
    fn every_change_of_the_receiving_side_is_told() {
        let inbound = |text: &str| config(&format!("services: {{}}\ninbound: {{ {text} }}"));
        let old = inbound("listen: 8480, app: 8080, tls: { cert: c, key: k, ca: a }");
        assert!(
            diff(
                &old,
                &inbound(
                    "app: 127.0.0.1:8080, listen: 127.0.0.1:8480,\n tls: { cert: c, key: k, ca: a }, timeout: 10s"
                )
            )
            .is_empty()
        );
        for text in [
            "listen: 8480, app: 8081, tls: { cert: c, key: k, ca: a }",
            "listen: 8480, app: 8080, tls: { cert: d, key: k, ca: a }",
            "listen: 8480, app: 8080, tls: { cert: c, key: k }",
            "listen: 8480, app: 8080, tls: { cert: c, key: k, ca: a, min_version: 1.3 }",
            "listen: 8480, app: 8080, tls: { cert: c, key: k, ca: a }, allow: x",
            "listen: 8480, app: 8080, tls: { cert: c, key: k, ca: a }, bulkhead: 7",
            "listen: 8480, app: 8080, tls: { cert: c, key: k, ca: a }, timeout: 1s",
            "listen: 8480, app: 8080, tls: { cert: c, key: k, ca: a }, protocol: http1",
        ] {
            let changes = diff(&old, &inbound(text));
            assert_eq!(changes, Changes { inbound: true, ..Changes::default() }, "{text}");
        }
        let at = |port| vec![Listener { addr: ([127, 0, 0, 1], port).into(), entry: Entry::Inbound }];
        let moved = diff(&old, &inbound("listen: 8481, app: 8080, tls: { cert: c, key: k, ca: a }"));
        assert_eq!((moved.inbound, moved.listeners.added, moved.listeners.removed), (true, at(8481), at(8480)));
        let gone = diff(&old, &config("services: {}"));
        assert_eq!((gone.inbound, gone.listeners.removed), (true, at(8480)));
        let new = diff(&config("services: {}\ninbound: off"), &old);
        assert_eq!((new.inbound, new.listeners.added), (true, at(8480)));
        let handed = diff(&old, &config("services: { a: { dns: a:80, listen: 8480 } }"));
        assert_eq!(handed.listeners.reassigned.len(), 1);
    }

    #[test]
    fn process_wide_keys_are_listed_by_what_they_need() {
        let old = config("services: {}");
        let new = config(
            "workers: 2\nlisten: { observe: 0, admin: /x }\nlog: { level: debug, access: stdout }\ndrain: 1s\nlimits: { headers: 5 }\nvip: { domain: x }\nresolver: { hold: 1s }",
        );
        let changes = diff(&old, &new);
        assert_eq!(changes.restart, ["listen.observe", "listen.admin", "workers"]);
        assert_eq!(changes.live, ["vip.domain", "vip", "resolver", "limits", "log.access", "log.level", "drain"]);
    }
}
