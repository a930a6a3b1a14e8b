//! From the file as written to the file as meant: the policies of one service.
//!
//! A policy value is looked for in three layers: the service's own keys, `defaults:`, and the tables. The
//! layers are merged leaf by leaf, so that a service that writes one key of a policy keeps the others.
//! A policy that `defaults:` switches off is on again for a service that writes anything of it: who tunes
//! a breaker wants one.

use std::collections::BTreeMap;

use super::{
    Provenance, Provenances, keys,
    raw::{Entry, Node, Place},
    scalar::{Complaint, hash_key, switch},
};

/// One policy value, and who wrote it.
struct Leaf<'a> {
    text: &'a str,
    /// The items of a value that is a list; its text is empty.
    items: &'a [Node],
    provenance: Provenance,
    place: Place,
}

/// The policy values of one service, by the paths of the tables.
pub(super) struct Leaves<'a>(BTreeMap<&'static str, Leaf<'a>>);

/// The policies that are off as a whole: each with the leaf that says so. A mode is shown when it is on, too.
const SWITCHES: [(&str, &str); 8] = [
    ("bulkhead", "bulkhead"),
    ("breaker", "breaker.mode"),
    ("tls", "tls"),
    ("cors", "cors"),
    ("retry", "retry"),
    ("ejection", "ejection"),
    ("health_check", "health_check"),
    ("failure_if", "failure_if"),
];

/// The kinds of active checks.
const CHECKS: [&str; 3] = ["tcp", "http", "grpc"];

/// Policies that mean something for calls, and nothing for bytes.
pub(super) const OF_CALLS: [&str; 5] = ["cors", "fallback", "hedge", "coalesce", "failure_if"];

impl<'a> Leaves<'a> {
    /// The policies of a service: what it writes, over what `defaults` writes, over what is built in.
    pub(super) fn of_service(defaults: Option<&'a Node>, service: &'a Node) -> Self {
        let mut leaves = Self::built_in();
        for policy in defaults.map(Node::entries).unwrap_or_default() {
            leaves.overlay(policy, Provenance::Defaults);
        }
        for policy in service.entries() {
            leaves.overlay(policy, Provenance::Service);
        }
        if leaves.text("protocol") == "tcp" {
            leaves.fit_to_bytes();
        }
        leaves
    }

    /// The policies of the receiving side: of `defaults`, which speaks of calls to others, it takes nothing.
    pub(super) fn of_inbound(inbound: &'a Node) -> Self {
        let mut leaves = Self::built_in();
        let is_its = |path: &str| keys::INBOUND_POLICIES.contains(&path.split('.').next().unwrap_or(path));
        leaves.0.retain(|path, _| is_its(path));
        for policy in inbound.entries().iter().filter(|policy| is_its(&policy.key)) {
            leaves.overlay(policy, Provenance::Service);
        }
        leaves
    }

    fn built_in() -> Self {
        let leaves = keys::leaves().map(|key| (key.path, Leaf::built_in(key.default)));
        Self(leaves.collect())
    }

    /// Bytes are silent for longer than calls, and have nothing of a request: what `defaults` says of calls
    /// does not hold for them. What the service itself says stays, for the check to speak of.
    fn fit_to_bytes(&mut self) {
        if self.provenance_of("timeout.idle") == Provenance::Default {
            self.0.insert("timeout.idle", Leaf::built_in(keys::TCP_IDLE));
        }
        let balance = ("balance", hash_key(self.text("balance")).is_ok());
        let check = ("health_check", self.text("health_check") != "tcp");
        for (path, is_of_calls) in [balance, check].into_iter().chain(OF_CALLS.map(|path| (path, true))) {
            if is_of_calls && matches!(self.provenance_of(path), Provenance::Defaults(_)) {
                self.0.insert(path, Leaf::built_in(keys::default(path)));
            }
        }
    }

    /// Lays one policy of one layer over what is there.
    fn overlay(&mut self, policy: &'a Entry, provenance: fn(u32) -> Provenance) {
        let Entry { place: at, node, .. } = policy;
        match (policy.key.as_str(), node.text().map(switch)) {
            ("timeout", Some("off")) => {
                for path in keys::leaves().map(|key| key.path).filter(|path| path.starts_with("timeout.")) {
                    self.set(path, "off", node.place, provenance);
                }
            }
            ("timeout", Some(time)) => self.set("timeout.request", time, node.place, provenance),
            ("bulkhead", Some(word @ ("on" | "off"))) => self.set("bulkhead", word, node.place, provenance),
            ("bulkhead", Some(max)) => {
                self.switch_on("bulkhead", node.place, provenance);
                self.set("bulkhead.max", max, node.place, provenance);
            }
            ("breaker", Some(word @ ("on" | "observe" | "off"))) => {
                self.set("breaker.mode", word, node.place, provenance);
            }
            ("breaker", Some(rate)) => {
                self.switch_on("breaker.mode", node.place, provenance);
                self.set("breaker.error_rate", rate, node.place, provenance);
            }
            ("balance", Some(word)) => self.set("balance", word, node.place, provenance),
            ("balance", None) => {
                if let Some((node, key)) = node.get("hash").and_then(|node| Some((node, node.text()?))) {
                    self.set("balance", key, node.place, provenance);
                }
            }
            ("retry" | "ejection", Some("on" | "off")) | ("cors" | "failure_if" | "fallback", Some("off")) => {
                self.set_by_name(&policy.key, switch(node.text().unwrap_or_default()), node.place, provenance);
            }
            ("retry", Some(attempts)) => {
                self.switch_on("retry", node.place, provenance);
                self.set("retry.attempts", attempts, node.place, provenance);
            }
            ("ejection", Some(consecutive)) => {
                self.switch_on("ejection", node.place, provenance);
                self.set("ejection.consecutive", consecutive, node.place, provenance);
            }
            ("fallback", None) => self.set_items("fallback", node, provenance),
            ("protocol" | "tls" | "hedge" | "coalesce" | "health_check", Some(word)) => {
                self.set_by_name(&policy.key, word, node.place, provenance);
            }
            (
                name @ ("timeout" | "bulkhead" | "breaker" | "tls" | "cors" | "retry" | "ejection" | "health_check"
                | "failure_if"),
                None,
            ) => {
                match SWITCHES.iter().find(|(policy, _)| *policy == name) {
                    // Who wrote any of it is who switched it on.
                    Some((_, leaf @ ("cors" | "failure_if"))) => self.set(leaf, "on", *at, provenance),
                    Some((_, leaf @ "health_check")) => {
                        let kind = node.entries().iter().find_map(|e| CHECKS.into_iter().find(|kind| *kind == e.key));
                        if let Some(kind) = kind {
                            self.set(leaf, kind, *at, provenance);
                        }
                    }
                    Some((_, leaf)) => self.switch_on(leaf, *at, provenance),
                    None => {}
                }
                for Entry { key, node, .. } in node.entries() {
                    let leaf = keys::leaves().find(|leaf| leaf.path.split_once('.') == Some((name, key)));
                    match (leaf.map(|leaf| leaf.path), node.text()) {
                        (Some(path @ ("cors.origins" | "retry.on" | "bulkhead.priorities")), _) => {
                            self.set_items(path, node, provenance);
                        }
                        (Some(path @ "bulkhead.adaptive"), None) => {
                            self.set(path, "on", node.place, provenance);
                            if let Some(floor) = node.get("floor")
                                && let Some(text) = floor.text()
                            {
                                self.set("bulkhead.adaptive.floor", text, floor.place, provenance);
                            }
                        }
                        (Some(path), Some(text)) => self.set(path, switch(text), node.place, provenance),
                        _ => {}
                    }
                }
            }
            // Keys of other kinds: where to listen, what to be called.
            _ => {}
        }
    }

    /// Sets the policy that has one value, or whose switch bears its name.
    fn set_by_name(&mut self, name: &str, text: &'a str, place: Place, provenance: fn(u32) -> Provenance) {
        if let Some(key) = keys::leaves().find(|leaf| leaf.path == name) {
            self.set(key.path, text, place, provenance);
        }
    }

    fn set(&mut self, path: &'static str, text: &'a str, place: Place, provenance: fn(u32) -> Provenance) {
        self.0.insert(path, Leaf { text, items: &[], provenance: provenance(place.line), place });
        // Half a pair is none: who takes one back takes back both.
        if let ("tls.cert" | "tls.key", "off") = (path, text) {
            for path in ["tls.cert", "tls.key"] {
                self.0.insert(path, Leaf { text, items: &[], provenance: provenance(place.line), place });
            }
        }
    }

    fn set_items(&mut self, path: &'static str, node: &'a Node, provenance: fn(u32) -> Provenance) {
        let (items, place) = (node.items(), node.place);
        self.0.insert(path, Leaf { text: "", items, provenance: provenance(place.line), place });
    }

    fn switch_on(&mut self, path: &'static str, place: Place, provenance: fn(u32) -> Provenance) {
        if self.text(path) == "off" {
            self.set(path, "on", place, provenance);
        }
    }

    /// The value at a path, as it is written.
    pub(super) fn text(&self, path: &str) -> &'a str {
        self.0.get(path).map_or("", |leaf| leaf.text)
    }

    /// The items of a value that is a list.
    pub(super) fn items(&self, path: &str) -> &'a [Node] {
        self.0.get(path).map_or(&[], |leaf| leaf.items)
    }

    /// Whether anybody wrote the value at a path.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.provenance_of(path) != Provenance::Default
    }

    pub(super) fn is_on(&self, path: &str) -> bool {
        self.text(path) == "on"
    }

    /// The value at a path; the default where the check has refused what is written.
    pub(super) fn read<T>(&self, path: &'static str, read: impl Fn(&str) -> Result<T, Complaint>) -> T {
        let value = read(self.text(path)).or_else(|_| read(keys::default(path)));
        value.expect("a default in the tables can be read")
    }

    /// Who wrote the value at a path.
    pub(super) fn provenance_of(&self, path: &str) -> Provenance {
        self.0.get(path).map_or(Provenance::Default, |leaf| leaf.provenance)
    }

    /// Where the value at a path stands.
    pub(super) fn place(&self, path: &str) -> Place {
        self.0.get(path).map(|leaf| leaf.place).unwrap_or_default()
    }

    /// Whether there is anything to show under a path of a policy that is on.
    fn has_meaning(&self, path: &str) -> bool {
        match path {
            "bulkhead.adaptive.floor" => self.is_on("bulkhead.adaptive"),
            "bulkhead.priorities" => !self.items(path).is_empty(),
            "health_check.tcp" => false,
            "health_check.http" => self.text("health_check") == "http",
            "health_check.grpc" => self.text("health_check") == "grpc",
            "failure_if.json" | "failure_if.equals" | "failure_if.header" | "failure_if.value" => self.is_written(path),
            _ => true,
        }
    }

    /// Where each value in force came from. Of a policy that is off, only what switched it off is in force.
    pub(super) fn provenance(&self) -> Provenances {
        let is_tcp = self.text("protocol") == "tcp";
        let in_force = |path: &str| {
            let policy = path.split('.').next().unwrap_or(path);
            let switch = SWITCHES.iter().find(|(name, _)| *name == policy).map(|(_, switch)| *switch);
            match switch {
                Some(switch) if switch == path => {
                    matches!(path, "breaker.mode" | "health_check") || self.text(switch) == "off"
                }
                Some(switch) => self.text(switch) != "off" && self.has_meaning(path),
                // Bytes are never upgraded.
                None => !(is_tcp && path == "timeout.tunnel"),
            }
        };
        let in_force = self.0.iter().filter(|(path, _)| in_force(path)).map(|(path, leaf)| (*path, leaf.provenance));
        Provenances::new(&in_force.collect::<Vec<_>>())
    }
}

impl<'a> Leaf<'a> {
    fn built_in(text: &'a str) -> Self {
        Self { text, items: &[], provenance: Provenance::Default, place: Place::default() }
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
