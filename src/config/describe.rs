//! The policies in force, as config text: what `explain` shows, and what could be pasted into a file.

use super::{PeerName, Protocol, Provenance, Service, TlsVersion, fallback, scalar::GRPC_CODES, units};
use crate::policy::{
    balance::{HashKey, Settings as Balance},
    breaker::Mode,
    bulkhead::Priority,
    health::Probe,
    retry::{Conditions, Hedge},
};

/// Each policy value in force for a service: its key, its value as config text, and who said so.
///
/// Of a policy that is off there is one line, `bulkhead` or `breaker.mode`, and it says `off`.
pub fn describe(service: &Service) -> Vec<(&'static str, String, Provenance)> {
    let in_force = super::keys::leaves().filter_map(|key| Some((key.path, service.provenance.get(key.path)?)));
    in_force.filter_map(|(path, provenance)| Some((path, value(service, path)?, provenance))).collect()
}

fn value(service: &Service, path: &str) -> Option<String> {
    let policy = &service.policy;
    let limit = |limit: Option<std::time::Duration>| Some(limit.map_or("off".to_owned(), units::show_duration));
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    let (timeout, bulkhead, breaker) = (&policy.timeout, policy.bulkhead.as_ref(), policy.breaker.as_ref());
    let (tls, cors) = (policy.tls.as_ref(), policy.cors.as_ref());
    let (retry, ejection) = (policy.retry.as_ref(), policy.ejection.as_ref());
    let (health, failure_if) = (policy.health_check.as_ref(), policy.failure_if.as_ref());
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
        "bulkhead.adaptive" => Some(switch(bulkhead?.adaptive.is_some())),
        "bulkhead.adaptive.floor" => Some(bulkhead?.adaptive.as_ref()?.floor.to_string()),
        "bulkhead.priorities" => Some(priorities(&bulkhead?.priorities)),
        "retry" => Some(switch(retry.is_some())),
        "retry.attempts" => Some(retry?.attempts.to_string()),
        "retry.on" => Some(retry_on(&retry?.on)),
        "retry.budget" => Some(units::show_share(retry?.budget)),
        "retry.min_per_second" => Some(retry?.min_per_second.to_string()),
        "retry.backoff" => Some(units::show_duration(retry?.backoff)),
        "retry.max_backoff" => Some(units::show_duration(retry?.max_backoff)),
        "retry.body" => Some(units::show_size(retry?.body as u64)),
        "hedge" => Some(match policy.hedge {
            None => "off".to_owned(),
            Some(Hedge::After(time)) => units::show_duration(time),
            Some(Hedge::Percentile(percentile)) => format!("p{percentile}"),
        }),
        "ejection" => Some(switch(ejection.is_some())),
        "ejection.consecutive" => Some(ejection?.consecutive.map_or("off".to_owned(), |n| n.to_string())),
        "ejection.error_rate" => Some(ejection?.error_rate.map_or("off".to_owned(), units::show_share)),
        "ejection.min_calls" => Some(ejection?.min_calls.to_string()),
        "ejection.window" => Some(units::show_duration(ejection?.window)),
        "ejection.for" => Some(units::show_duration(ejection?.first)),
        "ejection.max_for" => Some(units::show_duration(ejection?.longest)),
        "ejection.max_ejected" => Some(units::show_share(ejection?.max_ejected)),
        "ejection.slow_start" => limit(ejection?.slow_start),
        "health_check" => Some(match health.map(|health| &health.probe) {
            None => "off".to_owned(),
            Some(Probe::Tcp) => "tcp".to_owned(),
            Some(Probe::Http(_)) => "http".to_owned(),
            Some(Probe::Grpc(_)) => "grpc".to_owned(),
        }),
        "health_check.http" | "health_check.grpc" => match &health?.probe {
            Probe::Tcp => None,
            Probe::Http(path) => Some(path.clone()),
            Probe::Grpc(service) => Some(item(service)),
        },
        "health_check.every" => Some(units::show_duration(health?.every)),
        "health_check.timeout" => Some(units::show_duration(health?.timeout)),
        "health_check.healthy" => Some(health?.healthy.to_string()),
        "health_check.unhealthy" => Some(health?.unhealthy.to_string()),
        "fallback" => Some(match &*policy.fallback {
            [] => "off".to_owned(),
            steps => {
                let steps: Vec<_> = steps.iter().map(|step| format!("{{ {} }}", fallback::show(step))).collect();
                format!("[{}]", steps.join(", "))
            }
        }),
        "coalesce" => Some(switch(policy.coalesce)),
        "failure_if" => Some(switch(failure_if.is_some())),
        "failure_if.graphql_errors" => Some(switch(failure_if?.graphql_errors)),
        "failure_if.json" => Some(failure_if?.json.as_ref()?.0.clone()),
        "failure_if.equals" => Some(item(failure_if?.json.as_ref()?.1.as_ref()?)),
        "failure_if.header" => Some(failure_if?.header.as_ref()?.0.to_string()),
        "failure_if.value" => Some(item(failure_if?.header.as_ref()?.1.as_ref()?.to_str().ok()?)),
        _ => None,
    }
}

fn retry_on(on: &Conditions) -> String {
    let words = [("connect", on.connect), ("reset", on.reset), ("timeout", on.timeout), ("5xx", on.server_errors)];
    let words = words.into_iter().filter(|(_, is_on)| *is_on).map(|(word, _)| word.to_owned());
    let statuses = on.statuses.iter().map(|status| status.as_str().to_owned());
    let codes = on.grpc.iter().map(|code| GRPC_CODES[usize::from(*code)].to_owned());
    format!("[{}]", words.chain(statuses).chain(codes).collect::<Vec<_>>().join(", "))
}

fn priorities(rules: &[(String, Priority)]) -> String {
    let rule = |(path, priority): &(String, Priority)| {
        let word = match priority {
            Priority::Critical => "critical",
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        };
        format!("{{ path: {path}, priority: {word} }}")
    };
    format!("[{}]", rules.iter().map(rule).collect::<Vec<_>>().join(", "))
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::On => "on",
        Mode::Observe => "observe",
    }
}

/// An item of a list, quoted where YAML would take it for something else: `*`, `https://[::1]`.
fn item(text: &str) -> String {
    let is_plain = !text.is_empty() && !text.contains(['*', '[', '{', '#', '\'', ':']);
    if is_plain || text.contains("://") && !text.contains(['*', '[']) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
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
        let of_what_is_off =
            ["tls.", "cors.", "health_check.", "failure_if.", "bulkhead.adaptive.", "bulkhead.priorities"];
        let is_shown = |path: &str| {
            !["bulkhead", "retry", "ejection"].contains(&path)
                && !of_what_is_off.iter().any(|off| path.starts_with(off))
        };
        let want: Vec<_> = keys::leaves().map(|key| key.path).filter(|path| is_shown(path)).collect();
        assert_eq!(all.iter().map(|(key, ..)| *key).collect::<Vec<_>>(), want);
        assert!(all.iter().all(|(.., provenance)| *provenance == Provenance::Default));
        for (path, text, _) in all {
            let same =
                |a: &str, b: &str| a == b || crate::config::units::duration(a) == crate::config::units::duration(b);
            let default = if path == "retry.on" { "[connect, reset, timeout, 5xx]" } else { keys::default(path) };
            assert!(same(&text, default), "{path}: {text}");
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
