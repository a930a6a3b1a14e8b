//! From layered policy values to a [`Policy`]: each text read by the reader of its kind.

use std::time::Duration;

use http::HeaderValue;

use super::{
    Cors, KeyPair, PeerName, Policy, Protocol, Tls, TlsVersion, fallback, identity,
    layers::Leaves,
    problem::quoted,
    raw::Node,
    scalar::{self, Complaint, RetryOn},
    units,
};
use crate::policy::{
    adaptive, balance, breaker,
    bulkhead::{self, Priority},
    deadline, ejection, failure_if, health, retry,
};

impl Leaves<'_> {
    pub(super) fn policy(&self) -> Policy {
        let protocol = self.read("protocol", protocol);
        Policy {
            timeout: deadline::Settings {
                request: self.limit("timeout.request"),
                connect: self.limit("timeout.connect"),
                attempt: self.limit("timeout.attempt"),
                idle: self.limit("timeout.idle"),
                total: self.limit("timeout.total"),
                tunnel: self.limit("timeout.tunnel").filter(|_| protocol != Protocol::Tcp),
            },
            bulkhead: self.is_on("bulkhead").then(|| bulkhead::Settings {
                max: self.read("bulkhead.max", number),
                queue: self.read("bulkhead.queue", number),
                wait: self.read("bulkhead.wait", units::duration),
                per_endpoint: self.read("bulkhead.per_endpoint", |text| {
                    if text == "off" { Ok(None) } else { number(text).map(Some) }
                }),
                adaptive: self
                    .is_on("bulkhead.adaptive")
                    .then(|| adaptive::Settings { floor: self.read("bulkhead.adaptive.floor", number) }),
                priorities: self.priorities(),
            }),
            breaker: self.breaker(),
            balance: self.read("balance", balance),
            protocol,
            tls: self.is_on("tls").then(|| self.tls()),
            cors: self.is_on("cors").then(|| self.cors()),
            retry: self.is_on("retry").then(|| self.retry()),
            hedge: self.read("hedge", hedge),
            ejection: self.is_on("ejection").then(|| self.ejection()),
            health_check: self.health_check(),
            fallback: fallback::steps(self.items("fallback")),
            coalesce: self.is_on("coalesce"),
            failure_if: self.is_on("failure_if").then(|| self.failure_if()),
        }
    }

    fn priorities(&self) -> Vec<(String, Priority)> {
        let rule = |node: &Node| {
            let priority = match node.get("priority")?.text()? {
                "critical" => Priority::Critical,
                "high" => Priority::High,
                "low" => Priority::Low,
                _ => Priority::Normal,
            };
            Some((node.get("path")?.text()?.to_owned(), priority))
        };
        self.items("bulkhead.priorities").iter().filter_map(rule).collect()
    }

    fn retry(&self) -> retry::Settings {
        retry::Settings {
            attempts: self.read("retry.attempts", number),
            on: self.retry_on(),
            budget: self.read("retry.budget", units::share),
            min_per_second: self.read("retry.min_per_second", number),
            backoff: self.read("retry.backoff", units::duration),
            max_backoff: self.read("retry.max_backoff", units::duration),
            body: self.read("retry.body", |text| units::size(text).map(|bytes| bytes as usize)),
        }
    }

    fn retry_on(&self) -> retry::Conditions {
        let written = self.items("retry.on");
        if written.is_empty() {
            return retry::Conditions::default();
        }
        let (statuses, grpc) = (Vec::new(), Vec::new());
        let none =
            retry::Conditions { connect: false, reset: false, timeout: false, server_errors: false, statuses, grpc };
        written.iter().filter_map(|item| scalar::retry_on(item.text()?).ok()).fold(none, |mut on, condition| {
            match condition {
                RetryOn::Connect => on.connect = true,
                RetryOn::Reset => on.reset = true,
                RetryOn::Timeout => on.timeout = true,
                RetryOn::ServerErrors => on.server_errors = true,
                RetryOn::Status(status) => on.statuses.push(status),
                RetryOn::Grpc(code) => on.grpc.push(code),
            }
            on
        })
    }

    fn ejection(&self) -> ejection::Settings {
        ejection::Settings {
            consecutive: self
                .read("ejection.consecutive", |text| if text == "off" { Ok(None) } else { number(text).map(Some) }),
            error_rate: self.read("ejection.error_rate", |text| {
                if text == "off" { Ok(None) } else { units::share(text).map(Some) }
            }),
            min_calls: self.read("ejection.min_calls", number),
            window: self.read("ejection.window", units::duration),
            first: self.read("ejection.for", units::duration),
            longest: self.read("ejection.max_for", units::duration),
            max_ejected: self.read("ejection.max_ejected", units::share),
            slow_start: self.limit("ejection.slow_start"),
        }
    }

    fn health_check(&self) -> Option<health::Settings> {
        let probe = match self.text("health_check") {
            "tcp" => health::Probe::Tcp,
            "http" => health::Probe::Http(self.text("health_check.http").to_owned()),
            "grpc" => health::Probe::Grpc(self.text("health_check.grpc").to_owned()),
            _ => return None,
        };
        Some(health::Settings {
            probe,
            every: self.read("health_check.every", units::duration),
            timeout: self.read("health_check.timeout", units::duration),
            healthy: self.read("health_check.healthy", number),
            unhealthy: self.read("health_check.unhealthy", number),
        })
    }

    fn failure_if(&self) -> failure_if::Settings {
        let written = |path| self.is_written(path).then(|| self.text(path).to_owned());
        let header = written("failure_if.header").and_then(|name| scalar::header(&name).ok());
        let value = written("failure_if.value").and_then(|value| HeaderValue::try_from(value).ok());
        failure_if::Settings {
            graphql_errors: self.is_on("failure_if.graphql_errors"),
            json: written("failure_if.json").map(|pointer| (pointer, written("failure_if.equals"))),
            header: header.map(|name| (name, value)),
        }
    }

    fn breaker(&self) -> Option<breaker::Settings> {
        let mode = match self.text("breaker.mode") {
            "off" => return None,
            "observe" => breaker::Mode::Observe,
            _ => breaker::Mode::On,
        };
        Some(breaker::Settings {
            error_rate: self.read("breaker.error_rate", units::share),
            min_calls: self.read("breaker.min_calls", number),
            window: self.read("breaker.window", units::duration),
            open_for: self.read("breaker.open_for", units::duration),
            probes: self.read("breaker.probes", number),
            slow_call: self.limit("breaker.slow_call"),
            slow_rate: self.read("breaker.slow_rate", units::share),
            mode,
        })
    }

    fn tls(&self) -> Tls {
        let file = |path, none: &str| Some(self.text(path)).filter(|text| *text != none);
        Tls {
            ca: file("tls.ca", "system").map(Into::into),
            identity: file("tls.cert", "off").zip(file("tls.key", "off")).map(KeyPair::of),
            name: self.read("tls.name", peer_name),
            min_version: self.read("tls.min_version", tls_version),
            unverified: self.is_on("tls.dangerously_accept_any_certificate"),
        }
    }

    fn cors(&self) -> Cors {
        let origins = self.items("cors.origins").iter();
        Cors {
            origins: origins.filter_map(|item| identity::origin(item.text()?).ok()).collect(),
            credentials: self.is_on("cors.credentials"),
            max_age: self.read("cors.max_age", units::duration),
        }
    }

    fn limit(&self, path: &'static str) -> Option<Duration> {
        self.read(path, |text| if text == "off" { Ok(None) } else { units::duration(text).map(Some) })
    }
}

fn number(text: &str) -> Result<u32, Complaint> {
    scalar::count(text).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

fn hedge(text: &str) -> Result<Option<retry::Hedge>, Complaint> {
    match (text, scalar::percentile(text)) {
        ("off", _) => Ok(None),
        (_, Some(percentile)) => Ok(Some(retry::Hedge::Percentile(percentile))),
        (time, None) => units::duration(time).map(|time| Some(retry::Hedge::After(time))),
    }
}

fn protocol(text: &str) -> Result<Protocol, Complaint> {
    match text {
        "auto" => Ok(Protocol::Auto),
        "http1" => Ok(Protocol::Http1),
        "http2" => Ok(Protocol::Http2),
        "tcp" => Ok(Protocol::Tcp),
        other => Err((format!("{} is not a protocol", quoted(other)), None)),
    }
}

fn peer_name(text: &str) -> Result<Option<PeerName>, Complaint> {
    if text == "auto" { Ok(None) } else { identity::peer_name(text).map(Some) }
}

/// Reads a version of TLS.
pub(super) fn tls_version(text: &str) -> Result<TlsVersion, Complaint> {
    match text {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        other => Err((format!("{} is not a version of TLS", quoted(other)), None)),
    }
}

fn balance(text: &str) -> Result<balance::Settings, Complaint> {
    match text {
        "p2c" => Ok(balance::Settings::P2c),
        "round_robin" => Ok(balance::Settings::RoundRobin),
        "random" => Ok(balance::Settings::Random),
        "least_request" => Ok(balance::Settings::LeastRequest),
        key => scalar::hash_key(key).map(balance::Settings::Hash),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Config, Provenance, Service, describe};

    fn service(text: &str) -> Arc<Service> {
        let loaded = Config::parse("t.yaml", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        loaded.config.services["a"].clone()
    }

    /// What is in force of a policy, as `explain` shows it: key, value, and the line that says so.
    fn lines(service: &Service, policy: &str) -> Vec<String> {
        let described = describe(service).into_iter().filter(|(path, ..)| path.split('.').next() == Some(policy));
        let line = |by| match by {
            Provenance::Default => "-".to_owned(),
            Provenance::Defaults(line) => format!("defaults {line}"),
            Provenance::Service(line) => line.to_string(),
        };
        described.map(|(path, value, by)| format!("{path} {value} ({})", line(by))).collect()
    }

    const DEFAULTS: &str = "defaults:\n  tls: { ca: ca.pem, cert: me.pem, key: me.key, name: spiffe://prod/x }\nservices:\n  a:\n    dns: a:443\n";

    #[test]
    fn tls_is_layered_leaf_by_leaf() {
        let a = service(&format!("{DEFAULTS}    tls: {{ name: A.Internal, min_version: 1.3 }}\n"));
        let want = Tls {
            ca: Some("ca.pem".into()),
            identity: Some(KeyPair { cert: "me.pem".into(), key: "me.key".into() }),
            name: Some(PeerName::Host("a.internal".into())),
            min_version: TlsVersion::V1_3,
            unverified: false,
        };
        assert_eq!(a.policy.tls, Some(want));
        let want = [
            "tls.ca ca.pem (defaults 2)",
            "tls.cert me.pem (defaults 2)",
            "tls.key me.key (defaults 2)",
            "tls.name a.internal (6)",
            "tls.min_version 1.3 (6)",
            "tls.dangerously_accept_any_certificate off (-)",
        ];
        assert_eq!(lines(&a, "tls"), want);
    }

    #[test]
    fn a_service_takes_back_what_defaults_say_of_tls() {
        let a = service(&format!("{DEFAULTS}    tls: off\n"));
        assert_eq!((&a.policy.tls, lines(&a, "tls")), (&None, vec!["tls off (6)".to_owned()]));
        for half in ["cert: off", "key: off", "cert: off, key: false"] {
            let a = service(&format!("{DEFAULTS}    tls: {{ ca: system, name: auto, {half} }}\n"));
            let tls = a.policy.tls.clone().unwrap();
            assert_eq!((tls.ca, tls.identity, tls.name), (None, None, None), "{half}");
            let [ca, cert, key, ..] = &lines(&a, "tls")[..] else { panic!("{half}") };
            assert_eq!([ca, cert, key], ["tls.ca system (6)", "tls.cert off (6)", "tls.key off (6)"]);
        }
    }

    #[test]
    fn whatever_is_said_of_tls_switches_it_on() {
        for tls in ["on", "{}", "{ ca: x }", "{ dangerously_accept_any_certificate: on }"] {
            for defaults in ["", "defaults: { tls: off }"] {
                let a = service(&format!("{defaults}\nservices: {{ a: {{ dns: a:443, tls: {tls} }} }}"));
                let settings = a.policy.tls.as_ref().unwrap_or_else(|| panic!("{tls} after {defaults}"));
                assert_eq!(settings.unverified, tls.contains("dangerously"));
            }
        }
        assert_eq!(service("services: { a: { dns: a:443 } }").policy.tls, None);
        // `off` is a word for a pair of files; as an authority it is the name of a file, and never `system`.
        let a = service("services: { a: { dns: a:443, tls: { ca: off } } }");
        assert_eq!(a.policy.tls.as_ref().unwrap().ca, Some("off".into()));
    }

    #[test]
    fn cors_is_layered_leaf_by_leaf() {
        let defaults = "defaults: { cors: { origins: '*', max_age: 5m } }\nservices:\n  a:\n    dns: a:80\n";
        let a = service(&format!(
            "{defaults}    cors: {{ origins: [https://B.example:443, https://a:1], credentials: on }}"
        ));
        let origins = "cors.origins [https://b.example, https://a:1] (5)";
        assert_eq!(lines(&a, "cors"), [origins, "cors.credentials on (5)", "cors.max_age 5m (defaults 1)"]);
        let a = service(&format!("{defaults}    cors: off"));
        assert_eq!((&a.policy.cors, lines(&a, "cors")), (&None, vec!["cors off (5)".to_owned()]));
        let a = service(defaults);
        assert_eq!(lines(&a, "cors")[0], "cors.origins ['*'] (defaults 1)");
    }

    #[test]
    fn bytes_have_what_means_something_for_them() {
        let defaults = "defaults:\n  cors: { origins: '*' }\n  balance: { hash: path }\n  timeout: { attempt: 2s }\n";
        let a = service(&format!("{defaults}services:\n  a: {{ dns: a:1, listen: 0, protocol: tcp }}"));
        let want = ["request 10s (-)", "connect 1s (-)", "attempt 2s (defaults 4)", "idle 1h (-)", "total off (-)"];
        assert_eq!(lines(&a, "timeout"), want.map(|line| format!("timeout.{line}")));
        assert_eq!(
            (lines(&a, "balance"), lines(&a, "cors")),
            (vec!["balance p2c (-)".into()], vec!["cors off (-)".into()])
        );
        assert_eq!(lines(&a, "protocol"), ["protocol tcp (6)"]);
        assert_eq!((a.policy.timeout.tunnel, a.policy.timeout.idle), (None, Some(Duration::from_secs(3600))));
        // A balance that means something goes on.
        let a = service("defaults: { protocol: tcp, balance: random }\nservices: { a: { dns: a:1, listen: 0 } }");
        assert_eq!(lines(&a, "balance"), ["balance random (defaults 1)"]);
        // Another protocol takes all of it back.
        let a = service("defaults: { protocol: tcp }\nservices: { a: { dns: a:1, protocol: auto } }");
        assert_eq!(a.policy.timeout, deadline::Settings::default());
    }

    #[test]
    fn a_silence_that_the_file_allows_wins() {
        for (defaults, own, idle) in [
            ("5s", "", Some(5)),
            ("5s", ", timeout: { idle: 7s }", Some(7)),
            ("5s", ", timeout: { idle: off }", None),
            ("off", "", None),
            ("off", ", timeout: 1s", None),
            ("1h", ", timeout: off", None),
        ] {
            let text = format!(
                "defaults: {{ timeout: {{ idle: {defaults} }} }}\nservices: {{ a: {{ dns: a:1, listen: 0, protocol: tcp{own} }} }}"
            );
            assert_eq!(service(&text).policy.timeout.idle, idle.map(Duration::from_secs), "{defaults}{own}");
        }
    }

    #[test]
    fn what_is_described_of_tls_and_cors_can_be_written_again() {
        let text = "services: { a: { dns: a:80, tls: { ca: /x y.pem, cert: c, key: k, name: 'urn:a:b' }, cors: { origins: ['*', 'https://[::1]:1'], max_age: 90s } } }";
        let a = service(text);
        let mut again = "services:\n  a:\n    dns: a:80\n".to_owned();
        for policy in ["tls", "cors"] {
            again += &format!("    {policy}:\n");
            for (key, value, _) in describe(&a) {
                if let Some(leaf) = key.strip_prefix(policy).and_then(|rest| rest.strip_prefix('.')) {
                    again += &format!("      {leaf}: {value}\n");
                }
            }
        }
        assert_eq!(service(&again).policy, a.policy);
    }
}
