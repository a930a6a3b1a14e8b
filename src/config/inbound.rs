//! From the file as written to the file as meant: the receiving side.
//!
//! Our own app is a service with one endpoint, so that what holds for calls to others holds for calls to it:
//! limits on time, a bulkhead. It has no breaker: refusing callers helps nobody while the app alone can say
//! how it is. `defaults:` speaks of calls to others and does not reach it.

use std::sync::Arc;

use super::{
    Inbound, InboundTls, KeyPair, Policy, Service, ServiceVip, Source, TlsVersion, VipAddress, address, identity, keys,
    layers::Leaves,
    pairs, policies,
    problem::{Report, join, quoted},
    raw::{Entry, Node, Value},
    scalar::switch,
};
use crate::model::ServiceName;

const PATH: &str = "inbound";

/// Reads the checked section; `None` when there is none, when it is off, or when it lacks what it needs.
pub(super) fn resolve(entry: Option<&Entry>, report: &mut Report<'_>) -> Option<Inbound> {
    let entry = entry.filter(|entry| matches!(entry.node.value, Value::Map(_)))?;
    let leaves = Leaves::of_inbound(&entry.node);
    pairs::check(&leaves, PATH, report);
    let tls = tls(&entry.node, report);
    let allow = allow(&entry.node, report);
    let [listen, app] = ["listen", "app"].map(|key| required(entry, key, report));
    let listen = address::listen(listen?).ok()?;
    plain_text(entry, listen, report);
    let service = Service {
        name: ServiceName::parse(Inbound::NAME).ok()?,
        aliases: Vec::new(),
        listen: None,
        vip: ServiceVip { address: VipAddress::Off, ports: Vec::new() },
        source: Source::Static(vec![address::app(app?).ok()?]),
        policy: Policy { breaker: None, ..leaves.policy() },
        provenance: leaves.provenance(),
    };
    Some(Inbound { listen, tls, allow, service: Arc::new(service) })
}

fn required<'a>(entry: &'a Entry, key: &str, report: &mut Report<'_>) -> Option<&'a str> {
    let example = match key {
        "listen" => "listen: 0.0.0.0:8480",
        _ => "app: 127.0.0.1:8080",
    };
    let written = entry.node.get(key);
    if written.is_none() {
        let message = format!("{} has no {}", quoted(PATH), quoted(key));
        report.error(entry.place, PATH, message, Some(format!("add it, as `{example}`")));
    }
    written?.text()
}

fn tls(inbound: &Node, report: &mut Report<'_>) -> Option<InboundTls> {
    let entry = inbound.entry("tls").filter(|entry| matches!(entry.node.value, Value::Map(_)))?;
    let path = join(PATH, "tls");
    if !["cert", "key"].iter().any(|key| entry.node.get(key).is_some_and(pairs::is_file)) {
        let hint = Some("add `cert: FILE` and `key: FILE`: callers verify them".to_owned());
        report.error(entry.place, &path, format!("{} has no certificate", quoted(&path)), hint);
    }
    pairs::key_pair(Some(&entry.node), &path, report);
    let file = |key: &str| entry.node.get(key)?.text();
    let written = file("min_version").unwrap_or_else(|| keys::default("inbound.tls.min_version"));
    Some(InboundTls {
        identity: KeyPair::of((file("cert")?, file("key")?)),
        ca: file("ca").map(Into::into),
        min_version: policies::tls_version(written).unwrap_or(TlsVersion::V1_2),
    })
}

fn allow(inbound: &Node, report: &mut Report<'_>) -> Option<Vec<Arc<str>>> {
    let entry = inbound.entry("allow")?;
    if inbound.get("tls").is_none_or(|tls| tls.get("ca").is_none()) {
        let hint = Some("add `tls: { ca: FILE, ... }`: an identity is what a caller's certificate says".to_owned());
        report.error(entry.place, &join(PATH, "allow"), "`allow` needs `tls.ca`", hint);
    }
    Some(entry.node.items().iter().filter_map(|item| identity::caller(item.text()?).ok()).collect())
}

/// Plain text for other hosts is worth a warning, unless the file says that it is meant.
fn plain_text(entry: &Entry, listen: std::net::SocketAddr, report: &mut Report<'_>) {
    let says_off = |tls: &Node| tls.text().map(switch) == Some("off");
    let meant = entry.node.get("tls").is_some_and(|tls| says_off(tls) || matches!(tls.value, Value::Map(_)));
    if !meant && !listen.ip().to_canonical().is_loopback() {
        let place = entry.node.get("listen").map_or(entry.place, |node| node.place);
        let message = format!("whoever reaches `{listen}` may call, in plain text");
        let hint = "add `tls:` with a `ca`, or write `tls: off` where that is meant".to_owned();
        report.warning(place, &join(PATH, "listen"), message, Some(hint));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{Config, Protocol, Provenance, describe},
        policy::deadline,
    };

    fn inbound(text: &str) -> Inbound {
        let loaded = Config::parse("t.yaml", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        loaded.config.inbound.unwrap()
    }

    #[test]
    fn the_app_is_a_service_of_one_endpoint() {
        let all = inbound(
            "inbound:\n  listen: 0.0.0.0:8480\n  app: 8080\n  tls: { cert: c, key: k, ca: a, min_version: 1.3 }\n  allow: [spiffe://prod/Orders, Web.internal.]\n  bulkhead: 200\n  timeout: 3s\n  protocol: http1\n",
        );
        assert_eq!(all.listen, ([0, 0, 0, 0], 8480).into());
        let identity = KeyPair { cert: "c".into(), key: "k".into() };
        assert_eq!(all.tls, Some(InboundTls { identity, ca: Some("a".into()), min_version: TlsVersion::V1_3 }));
        assert_eq!(all.allow, Some(vec!["spiffe://prod/Orders".into(), "web.internal".into()]));
        let service = &all.service;
        assert_eq!((service.name.as_str(), &service.aliases, service.listen), ("inbound", &vec![], None));
        assert_eq!(service.source, Source::Static(vec![([127, 0, 0, 1], 8080).into()]));
        let policy = &service.policy;
        assert_eq!((&policy.breaker, &policy.tls, &policy.cors), (&None, &None, &None));
        assert_eq!((policy.protocol, policy.bulkhead.as_ref().unwrap().max), (Protocol::Http1, 200));
        assert_eq!(policy.timeout.request, Some(Duration::from_secs(3)));
        let described = describe(service);
        assert!(described.contains(&("bulkhead.max", "200".into(), Provenance::Service(6))));
        assert!(described.contains(&("timeout.idle", "1m".into(), Provenance::Default)));
        let policies = described.iter().map(|(path, ..)| path.split('.').next().unwrap());
        assert!(policies.clone().all(|policy| keys::INBOUND_POLICIES.contains(&policy)), "{described:?}");
        assert_eq!((policies.count(), described.len()), (service.provenance.count(), 12));
    }

    #[test]
    fn defaults_do_not_reach_it() {
        let plain = inbound(
            "defaults: { timeout: 1s, bulkhead: off, protocol: tcp, tls: on, cors: { origins: '*' }, balance: random }\ninbound: { listen: 8480, app: '[::1]:8080' }",
        );
        let policy = &plain.service.policy;
        assert_eq!((&plain.tls, &plain.allow), (&None, &None));
        assert_eq!((&policy.timeout, policy.protocol), (&deadline::Settings::default(), Protocol::Auto));
        assert!(policy.bulkhead.is_some() && policy.tls.is_none() && policy.cors.is_none());
    }

    #[test]
    fn off_is_none() {
        for text in ["", "inbound: off", "inbound: false"] {
            assert_eq!(Config::parse("t.yaml", text, &|_| None).unwrap().config.inbound, None, "{text}");
        }
    }

    #[test]
    fn plain_text_for_others_is_warned_of_unless_it_is_meant() {
        for (text, warnings) in [
            ("listen: 8480, app: 1", 0),
            ("listen: '[::1]:8480', app: 1", 0),
            ("listen: '[::ffff:127.0.0.1]:8480', app: 1", 0),
            ("listen: 0.0.0.0:8480, app: 1", 1),
            ("listen: '[::]:8480', app: 1", 1),
            ("listen: 10.0.0.1:8480, app: 1", 1),
            ("listen: 0.0.0.0:8480, app: 1, tls: off", 0),
            ("listen: 0.0.0.0:8480, app: 1, tls: { cert: c, key: k }", 0),
        ] {
            let loaded = Config::parse("t.yaml", &format!("inbound: {{ {text} }}"), &|_| None).unwrap();
            assert_eq!(loaded.warnings.len(), warnings, "{text}: {:?}", loaded.warnings);
        }
    }
}
