//! From the file as written to the file as meant: the policies of one service.
//!
//! A policy value is looked for in three layers: the service's own keys, `defaults:`, and the tables. The
//! layers are merged leaf by leaf, so that a service that writes one key of a policy keeps the others.
//! A policy that `defaults:` switches off is on again for a service that writes anything of it: who tunes
//! a breaker wants one.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Policy, Provenance, keys,
    problem::{Report, join},
    raw::{Entry, Node, Place},
    scalar::{self, switch},
    units,
};
use crate::policy::{balance, breaker, bulkhead, deadline};

/// One policy value, and who wrote it.
struct Leaf<'a> {
    text: &'a str,
    provenance: Provenance,
    place: Place,
}

/// The policy values of one service, by the paths of the tables.
pub(super) struct Leaves<'a>(BTreeMap<&'static str, Leaf<'a>>);

impl<'a> Leaves<'a> {
    pub(super) fn built_in() -> Self {
        let leaf = |text| Leaf { text, provenance: Provenance::Default, place: Place::default() };
        Self(keys::leaves().map(|key| (key.path, leaf(key.default))).collect())
    }

    /// Lays one layer over what is there.
    pub(super) fn overlay(&mut self, layer: Option<&'a Node>, provenance: fn(u32) -> Provenance) {
        let Some(layer) = layer else { return };
        for policy in layer.entries() {
            match (policy.key.as_str(), policy.node.text().map(switch)) {
                ("timeout", Some("off")) => {
                    for path in keys::leaves().map(|key| key.path).filter(|path| path.starts_with("timeout.")) {
                        self.set(path, "off", policy.node.place, provenance);
                    }
                }
                ("timeout", Some(time)) => self.set("timeout.request", time, policy.node.place, provenance),
                ("bulkhead", Some(word @ ("on" | "off"))) => self.set("bulkhead", word, policy.node.place, provenance),
                ("bulkhead", Some(max)) => {
                    self.switch_on("bulkhead", policy.node.place, provenance);
                    self.set("bulkhead.max", max, policy.node.place, provenance);
                }
                ("breaker", Some(word @ ("on" | "observe" | "off"))) => {
                    self.set("breaker.mode", word, policy.node.place, provenance);
                }
                ("breaker", Some(rate)) => {
                    self.switch_on("breaker.mode", policy.node.place, provenance);
                    self.set("breaker.error_rate", rate, policy.node.place, provenance);
                }
                ("balance", Some(word)) => self.set("balance", word, policy.node.place, provenance),
                ("balance", None) => {
                    if let Some((node, key)) = policy.node.get("hash").and_then(|node| Some((node, node.text()?))) {
                        self.set("balance", key, node.place, provenance);
                    }
                }
                (name @ ("timeout" | "bulkhead" | "breaker"), None) => {
                    match name {
                        "bulkhead" => self.switch_on("bulkhead", policy.place, provenance),
                        "breaker" => self.switch_on("breaker.mode", policy.place, provenance),
                        _ => {}
                    }
                    for Entry { key, node, .. } in policy.node.entries() {
                        let leaf = keys::leaves().find(|leaf| leaf.path.split_once('.') == Some((name, key)));
                        if let (Some(leaf), Some(text)) = (leaf, node.text()) {
                            self.set(leaf.path, switch(text), node.place, provenance);
                        }
                    }
                }
                // The other policies are still to come: the check has refused whatever asks for them.
                _ => {}
            }
        }
    }

    fn set(&mut self, path: &'static str, text: &'a str, place: Place, provenance: fn(u32) -> Provenance) {
        self.0.insert(path, Leaf { text, provenance: provenance(place.line), place });
    }

    fn switch_on(&mut self, path: &'static str, place: Place, provenance: fn(u32) -> Provenance) {
        if self.text(path) == "off" {
            self.set(path, "on", place, provenance);
        }
    }

    fn text(&self, path: &str) -> &'a str {
        self.0.get(path).map_or("", |leaf| leaf.text)
    }

    /// The value at a path; the default where the check has refused what is written.
    fn read<T, E>(&self, path: &'static str, read: impl Fn(&str) -> Result<T, E>) -> T {
        let value = read(self.text(path)).or_else(|_| read(keys::default(path)));
        value.ok().expect("a default in the tables can be read")
    }

    fn limit(&self, path: &'static str) -> Option<Duration> {
        self.read(path, |text| if text == "off" { Ok(None) } else { units::duration(text).map(Some) })
    }

    pub(super) fn policy(&self) -> Policy {
        Policy {
            timeout: deadline::Settings {
                request: self.limit("timeout.request"),
                connect: self.limit("timeout.connect"),
                attempt: self.limit("timeout.attempt"),
                idle: self.limit("timeout.idle"),
                total: self.limit("timeout.total"),
                tunnel: self.limit("timeout.tunnel"),
            },
            bulkhead: (self.text("bulkhead") != "off").then(|| bulkhead::Settings {
                max: self.read("bulkhead.max", number),
                queue: self.read("bulkhead.queue", number),
                wait: self.read("bulkhead.wait", units::duration),
                per_endpoint: self.read("bulkhead.per_endpoint", |text| {
                    if text == "off" { Ok(None) } else { number(text).map(Some) }
                }),
            }),
            breaker: self.breaker(),
            balance: self.read("balance", balance),
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

    /// Where each value in force came from. Of a policy that is off, only what switched it off is in force.
    pub(super) fn provenance(&self) -> BTreeMap<&'static str, Provenance> {
        let is_off = |switch: &str| self.text(switch) == "off";
        let in_force = |path: &str| match path.split_once('.') {
            Some(("bulkhead", _)) => !is_off("bulkhead"),
            Some(("breaker", key)) => key == "mode" || !is_off("breaker.mode"),
            None if path == "bulkhead" => is_off("bulkhead"),
            _ => true,
        };
        self.0.iter().filter(|(path, _)| in_force(path)).map(|(path, leaf)| (*path, leaf.provenance)).collect()
    }

    /// Pairs of values that are fine apart and hardly meant together.
    pub(super) fn warn(&self, path: &str, report: &mut Report<'_>) {
        let policy = self.policy();
        let timeout = &policy.timeout;
        let attempt = ("timeout.attempt", timeout.attempt);
        let connect = ("timeout.connect", timeout.connect);
        let request = ("timeout.request", timeout.request);
        let mut pairs = vec![
            (attempt, request, "it has no effect"),
            (connect, attempt, "it has no effect"),
            (connect, request, "it has no effect"),
            (request, ("timeout.total", timeout.total), "it has no effect"),
        ];
        if let Some(bulkhead) = policy.bulkhead.as_ref() {
            let wait = (bulkhead.queue > 0).then_some(bulkhead.wait);
            pairs.push((("bulkhead.wait", wait), request, "it has no effect"));
            if bulkhead.per_endpoint.is_some_and(|each| each > bulkhead.max) {
                let message =
                    format!("`bulkhead.per_endpoint` is more than `bulkhead.max` ({}): it has no effect", bulkhead.max);
                self.warn_at("bulkhead.per_endpoint", message, path, report);
            }
        }
        if let Some(breaker) = policy.breaker.as_ref() {
            pairs.push((("breaker.slow_call", breaker.slow_call), request, "no call is ever slow"));
            let written = self.0.get("breaker.slow_rate").is_some_and(|leaf| leaf.provenance != Provenance::Default);
            if written && breaker.slow_call.is_none() {
                let message = "`breaker.slow_rate` counts only with `breaker.slow_call`".to_owned();
                self.warn_at("breaker.slow_rate", message, path, report);
            }
        }
        for ((key, value), (bound_key, bound), so) in pairs {
            let (Some(value), Some(bound)) = (value, bound) else { continue };
            // What is built in, or shared and then tightened by one service, is not a mistake of the file.
            let by = |key| self.0.get(key).map_or(Provenance::Default, |leaf| leaf.provenance);
            let meant = match by(key) {
                Provenance::Default => true,
                Provenance::Defaults(_) => matches!(by(bound_key), Provenance::Service(_)),
                Provenance::Service(_) => false,
            };
            if value > bound && !meant {
                let (value, bound) = (units::show_duration(value), units::show_duration(bound));
                let message = format!("`{key}` ({value}) is longer than `{bound_key}` ({bound}): {so}");
                self.warn_at(key, message, path, report);
            }
        }
    }

    fn warn_at(&self, key: &'static str, message: String, path: &str, report: &mut Report<'_>) {
        let place = self.0.get(key).map(|leaf| leaf.place).unwrap_or_default();
        report.warning(place, &join(path, key), message, None);
    }
}

fn number(text: &str) -> Result<u32, scalar::Complaint> {
    scalar::count(text).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

fn balance(text: &str) -> Result<balance::Settings, scalar::Complaint> {
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
    use crate::config::{Config, Provenance, Service, describe};

    fn service(text: &str) -> std::sync::Arc<Service> {
        let loaded = Config::parse("t.yaml", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        loaded.config.services["a"].clone()
    }

    /// What is in force under this key, and who said so.
    fn value(service: &Service, key: &str) -> Option<(String, Provenance)> {
        describe(service).into_iter().find(|(path, ..)| *path == key).map(|(_, text, by)| (text, by))
    }

    fn of(text: &str, by: Provenance) -> Option<(String, Provenance)> {
        Some((text.to_owned(), by))
    }

    #[test]
    fn layers_are_merged_leaf_by_leaf() {
        let text =
            "defaults:\n  timeout: { request: 5s, attempt: 2s }\nservices:\n  a:\n    dns: a:80\n    timeout: 800ms\n";
        let a = service(text);
        assert_eq!(value(&a, "timeout.request"), of("800ms", Provenance::Service(6)));
        assert_eq!(value(&a, "timeout.attempt"), of("2s", Provenance::Defaults(2)));
        assert_eq!(value(&a, "timeout.idle"), of("1m", Provenance::Default));
    }

    #[test]
    fn a_service_switches_off_what_defaults_tune() {
        let a = service(
            "defaults: { breaker: 30%, bulkhead: 5 }\nservices: { a: { dns: a:80, breaker: off, bulkhead: false } }",
        );
        assert_eq!((&a.policy.breaker, &a.policy.bulkhead), (&None, &None));
        assert_eq!(value(&a, "breaker.mode"), of("off", Provenance::Service(2)));
        assert_eq!(value(&a, "breaker.error_rate"), None);
        assert_eq!(value(&a, "bulkhead"), of("off", Provenance::Service(2)));
    }

    #[test]
    fn a_service_that_tunes_a_policy_switches_it_on() {
        for (breaker, bulkhead) in [("on", "on"), ("{ min_calls: 5 }", "{ queue: 5 }"), ("30%", "5"), ("{}", "{}")] {
            let text = format!(
                "defaults: {{ breaker: off, bulkhead: off }}\nservices: {{ a: {{ dns: a:80, breaker: {breaker}, bulkhead: {bulkhead} }} }}"
            );
            let a = service(&text);
            assert_eq!(value(&a, "breaker.mode"), of("on", Provenance::Service(2)), "{breaker}");
            assert!(a.policy.bulkhead.is_some(), "{bulkhead}");
        }
    }

    #[test]
    fn observe_is_kept_by_a_service_that_tunes() {
        let a = service("defaults: { breaker: observe }\nservices: { a: { dns: a:80, breaker: 30% } }");
        assert_eq!(value(&a, "breaker.mode"), of("observe", Provenance::Defaults(1)));
        assert_eq!(value(&a, "breaker.error_rate"), of("30%", Provenance::Service(2)));
    }

    #[test]
    fn timeout_off_is_no_limit_at_all() {
        let a = service("defaults: { timeout: off }\nservices: { a: { dns: a:80, timeout: 1s } }");
        assert_eq!(value(&a, "timeout.request"), of("1s", Provenance::Service(2)));
        for key in ["connect", "attempt", "idle", "total", "tunnel"] {
            assert_eq!(value(&a, &format!("timeout.{key}")), of("off", Provenance::Defaults(1)));
        }
    }

    #[test]
    fn what_is_described_can_be_written_again() {
        let text = "services: { a: { dns: a:80, timeout: { request: 1500us }, breaker: { error_rate: 33.3%, slow_call: 2s }, balance: { hash: header X-User } } }";
        let a = service(text);
        let mut again = "services:\n  a:\n    dns: a:80\n".to_owned();
        for policy in ["timeout", "bulkhead", "breaker"] {
            again += &format!("    {policy}:\n");
            for (key, value, _) in describe(&a) {
                if let Some(leaf) = key.strip_prefix(policy).and_then(|rest| rest.strip_prefix('.')) {
                    again += &format!("      {leaf}: {value}\n");
                }
            }
        }
        again += &format!("    balance: {}\n", value(&a, "balance").unwrap().0);
        assert_eq!(service(&again).policy, a.policy);
    }

    #[test]
    fn thousands_of_services_are_read() {
        let mut text = "services:\n".to_owned();
        for n in 0..2_000 {
            text += &format!(
                "  s{n}: {{ dns: s{n}.internal:80, listen: 127.1.{}.{}:7000, aliases: [t{n}], timeout: 1s }}\n",
                n / 250,
                n % 250
            );
        }
        let loaded = Config::parse("t.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.config.services.len(), 2_000);
    }
}
