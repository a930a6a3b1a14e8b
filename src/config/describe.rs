//! The policies in force, as config text: what `explain` shows, and what could be pasted into a file.

use super::{PeerName, Protocol, Provenance, Service, TlsVersion, units};
use crate::policy::{
    balance::{HashKey, Settings as Balance},
    breaker::Mode,
};

/// Each policy value in force for a service: its key, its value as config text, and who said so.
///
/// Of a policy that is off there is one line, `bulkhead` or `breaker.mode`, and it says `off`.
pub fn describe(service: &Service) -> Vec<(&'static str, String, Provenance)> {
    let in_force = super::keys::leaves().filter_map(|key| Some((key.path, *service.provenance.get(key.path)?)));
    in_force.filter_map(|(path, provenance)| Some((path, value(service, path)?, provenance))).collect()
}

fn value(service: &Service, path: &str) -> Option<String> {
    let policy = &service.policy;
    let limit = |limit: Option<std::time::Duration>| Some(limit.map_or("off".to_owned(), units::show_duration));
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    let (timeout, bulkhead, breaker) = (&policy.timeout, policy.bulkhead.as_ref(), policy.breaker.as_ref());
    let (tls, cors) = (policy.tls.as_ref(), policy.cors.as_ref());
    match path {
        "timeout.request" => limit(timeout.request),
        "timeout.connect" => limit(timeout.connect),
        "timeout.attempt" => limit(timeout.attempt),
        "timeout.idle" => limit(timeout.idle),
        "timeout.total" => limit(timeout.total),
        "timeout.tunnel" => limit(timeout.tunnel),
        "bulkhead" => Some(switch(bulkhead.is_some())),
        "bulkhead.max" => Some(bulkhead?.max.to_string()),
        "bulkhead.queue" => Some(bulkhead?.queue.to_string()),
        "bulkhead.wait" => Some(units::show_duration(bulkhead?.wait)),
        "bulkhead.per_endpoint" => Some(bulkhead?.per_endpoint.map_or("off".to_owned(), |each| each.to_string())),
        "breaker.mode" => Some(breaker.map_or("off", |breaker| mode(breaker.mode)).to_owned()),
        "breaker.error_rate" => Some(units::show_share(breaker?.error_rate)),
        "breaker.min_calls" => Some(breaker?.min_calls.to_string()),
        "breaker.window" => Some(units::show_duration(breaker?.window)),
        "breaker.open_for" => Some(units::show_duration(breaker?.open_for)),
        "breaker.probes" => Some(breaker?.probes.to_string()),
        "breaker.slow_call" => limit(breaker?.slow_call),
        "breaker.slow_rate" => Some(units::show_share(breaker?.slow_rate)),
        "balance" => Some(balance(&policy.balance)),
        "protocol" => Some(protocol(policy.protocol).to_owned()),
        "tls" => Some(switch(tls.is_some())),
        "tls.ca" => Some(tls?.ca.as_ref().map_or("system".to_owned(), |ca| ca.display().to_string())),
        "tls.cert" => Some(tls?.identity.as_ref().map_or("off".to_owned(), |own| own.cert.display().to_string())),
        "tls.key" => Some(tls?.identity.as_ref().map_or("off".to_owned(), |own| own.key.display().to_string())),
        "tls.name" => Some(match &tls?.name {
            None => "auto".to_owned(),
            Some(PeerName::Host(name) | PeerName::Uri(name)) => name.to_string(),
        }),
        "tls.min_version" => Some(tls_version(tls?.min_version).to_owned()),
        "tls.dangerously_accept_any_certificate" => Some(switch(tls?.unverified)),
        "cors" => Some(switch(cors.is_some())),
        "cors.origins" => {
            Some(format!("[{}]", cors?.origins.iter().map(|origin| item(origin)).collect::<Vec<_>>().join(", ")))
        }
        "cors.credentials" => Some(switch(cors?.credentials)),
        "cors.max_age" => Some(units::show_duration(cors?.max_age)),
        _ => None,
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::On => "on",
        Mode::Observe => "observe",
    }
}

/// An item of a list, quoted where YAML would take it for something else: `*`, `https://[::1]`.
fn item(text: &str) -> String {
    if text.contains(['*', '[']) { format!("'{text}'") } else { text.to_owned() }
}

fn tls_version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Auto => "auto",
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
        Protocol::Tcp => "tcp",
    }
}

fn balance(settings: &Balance) -> String {
    match settings {
        Balance::P2c => "p2c".to_owned(),
        Balance::RoundRobin => "round_robin".to_owned(),
        Balance::Random => "random".to_owned(),
        Balance::LeastRequest => "least_request".to_owned(),
        Balance::Hash(HashKey::Header(name)) => format!("{{hash: header {name}}}"),
        Balance::Hash(HashKey::Cookie(name)) => format!("{{hash: cookie {name}}}"),
        Balance::Hash(HashKey::Path) => "{hash: path}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Provenance, describe, keys};

    fn described(text: &str) -> Vec<(&'static str, String, Provenance)> {
        let loaded = Config::parse("t.yaml", text, &|_| None).unwrap();
        describe(&loaded.config.services["a"])
    }

    #[test]
    fn every_value_in_force_is_there() {
        let all = described("services: { a: { dns: a:80 } }");
        // Of a policy that is on, its leaves; of one that is off, the word.
        let is_shown = |path: &str| path != "bulkhead" && !path.starts_with("tls.") && !path.starts_with("cors.");
        let want: Vec<_> = keys::leaves().map(|key| key.path).filter(|path| is_shown(path)).collect();
        assert_eq!(all.iter().map(|(key, ..)| *key).collect::<Vec<_>>(), want);
        assert!(all.iter().all(|(.., provenance)| *provenance == Provenance::Default));
        for (path, text, _) in all {
            let same =
                |a: &str, b: &str| a == b || crate::config::units::duration(a) == crate::config::units::duration(b);
            assert!(same(&text, keys::default(path)), "{path}: {text}");
        }
    }

    #[test]
    fn what_is_off_is_one_line() {
        let all = described("services:\n  a:\n    dns: a:80\n    bulkhead: off\n    breaker: { mode: false }\n");
        let of = |key: &str| all.iter().filter(|(path, ..)| path.starts_with(key)).cloned().collect::<Vec<_>>();
        assert_eq!(of("bulkhead"), [("bulkhead", "off".to_owned(), Provenance::Service(4))]);
        assert_eq!(of("breaker"), [("breaker.mode", "off".to_owned(), Provenance::Service(5))]);
    }
}
