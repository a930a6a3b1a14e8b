//! The tables, the resolver, the schema and the reference must not drift apart: tests alone.

use std::collections::BTreeSet;

use super::{
    Config, Problems,
    keys::*,
    schema,
    shape::{Key, Map, Shape},
};

/// Every row with its whole path; `a` stands for a service's name.
fn rows() -> Vec<(String, &'static Key)> {
    fn walk(shape: &Shape, path: &str, rows: &mut Vec<(String, &'static Key)>) {
        let (tables, path) = match shape.map {
            Map::Keys(tables) => (tables, path.to_owned()),
            Map::Names(tables) => (tables, format!("{path}a.")),
            Map::None | Map::Json => return,
        };
        for key in tables.iter().copied().flatten() {
            rows.push((format!("{path}{}", key.name()), key));
            let below = format!("{path}{}.", key.name());
            walk(&key.shape, &below, rows);
            if let Some(list) = key.shape.list {
                walk(list.item, &below, rows);
            }
        }
    }
    let mut rows = Vec::new();
    walk(&ROOT, "", &mut rows);
    assert!(rows.len() > 150, "{}", rows.len());
    rows
}

/// A file with this value at this path and more beside it, a service `a`, and what a receiving side needs.
fn file(path: &str, value: &str, beside: &str) -> Result<Config, Problems> {
    let value =
        if value.contains(": ") && !value.starts_with('[') { format!("{{ {value} }}") } else { value.to_owned() };
    let mut steps = path.rsplit('.');
    let mut inner = format!("{}: {value}{beside}", steps.next().unwrap_or_default());
    for step in steps {
        let is_written = |key: &str| inner.starts_with(&format!("{key}:"));
        let needs = match step {
            "a" if !SOURCES.iter().any(|key| is_written(key.path)) => ", dns: a:80",
            "inbound" if is_written("listen") => ", app: 2",
            "inbound" if is_written("app") => ", listen: 1",
            "inbound" => ", listen: 1, app: 2",
            // The steps of a chain, and the rules of a bulkhead, are items of a list.
            "fallback" | "priorities" => {
                inner = format!("{step}: [{{ {inner} }}]");
                continue;
            }
            _ => "",
        };
        inner += needs;
        inner = format!("{step}: {{ {inner} }}");
    }
    if path.ends_with("fallback.service") {
        // It has to lead to a service.
        let (own, shared) = if path.starts_with("services.") { (inner, String::new()) } else { (String::new(), inner) };
        let of_a =
            own.strip_prefix("services: { a: ").and_then(|own| own.strip_suffix(" }")).unwrap_or("{ dns: a:80 }");
        let text = format!("{shared}\nservices: {{ a: {of_a}, b: {{ dns: b:80 }}, c: {{ dns: c:80 }} }}");
        return Config::parse("t.yaml", &text, &|_| None).map(|loaded| loaded.config);
    }
    let a = match path {
        path if path.starts_with("services.") => "",
        path if path.starts_with("limits.wildcard") => "services: { a: { dns: a:80 }, '*': { dns: '{name}:80' } }",
        _ => "services: { a: { dns: a:80 } }",
    };
    Config::parse("t.yaml", &format!("{a}\n{inner}"), &|_| None).map(|loaded| loaded.config)
}

/// The file that one with this path is held against: the same without it.
fn base(path: &str) -> Config {
    let (path, value) =
        if path.starts_with("inbound.") { ("inbound", "listen: 1, app: 2") } else { ("services.a.dns", "a:80") };
    file(path, value, "").unwrap()
}

/// A value other than the default for every key, but for those that only hold others.
#[rustfmt::skip]
const SAMPLES: &[(&str, &str)] = &[
    ("listen.http", "1"), ("listen.observe", "1"), ("listen.admin", "/x"),
    ("listen.dns", "1"), ("listen.override", "on"),
    ("vip.range", "127.85.0.0/16"), ("vip.ports", "81"), ("vip.domain", "x"), ("vip.state", "/x"), ("vip.hosts", "/x"),
    ("dns.bare", "on"), ("dns.forward", "off"), ("dns.ttl", "1s"), ("dns.recursion", "10.0.0.0/8"), ("dns.rate", "7"),
    ("intercept", "listen: 3"), ("intercept.listen", "3"), ("intercept.ports", "81"), ("intercept.user", "x"), ("intercept.mark", "7"),
    ("ready", "1s"), ("ready.limit", "1s"),
    ("services.a.vip", "off"), ("services.a.vip.address", "off"), ("services.a.vip.ports", "81"),
    ("resolver.servers", "10.0.0.1"), ("resolver.ttl.min", "2s"), ("resolver.ttl.max", "6s"),
    ("resolver.hold", "0s"), ("resolver.timeout", "1s"),
    ("workers", "3"),
    ("limits.connections", "1"), ("limits.header_bytes", "8KiB"), ("limits.headers", "1"), ("limits.header_timeout", "1s"),
    ("log.access", "stdout"), ("log.level", "warn"),
    ("drain", "1s"), ("drain.for", "1s"), ("drain.until", "app"),
    ("services.a.listen", "1"), ("services.a.aliases", "b"),
    ("services.a.dns", "b:80"), ("services.a.srv", "b"), ("services.a.static", "10.0.0.1:80"), ("services.a.file", "/x"),
    ("timeout", "1s"), ("timeout.request", "1s"), ("timeout.connect", "2s"), ("timeout.attempt", "1s"),
    ("timeout.idle", "1s"), ("timeout.total", "20s"), ("timeout.tunnel", "1s"),
    ("bulkhead", "7"), ("bulkhead.max", "7"), ("bulkhead.queue", "7"), ("bulkhead.wait", "7ms"), ("bulkhead.per_endpoint", "7"),
    ("breaker", "7%"), ("breaker.mode", "observe"), ("breaker.error_rate", "7%"), ("breaker.min_calls", "7"),
    ("breaker.window", "7s"), ("breaker.open_for", "7s"), ("breaker.probes", "7"), ("breaker.slow_call", "7s"), ("breaker.slow_rate", "7%"),
    ("balance", "random"), ("balance.hash", "path"),
    ("protocol", "http2"),
    ("bulkhead.adaptive", "on"), ("limits.last_good", "1MiB"),
    ("retry", "7"), ("retry.attempts", "7"), ("retry.on", "connect"), ("retry.budget", "7%"), ("retry.min_per_second", "7"),
    ("retry.backoff", "7ms"), ("retry.max_backoff", "7s"), ("retry.body", "7KiB"), ("hedge", "p95"),
    ("ejection", "7"), ("ejection.consecutive", "7"), ("ejection.error_rate", "7%"), ("ejection.min_calls", "7"), ("ejection.window", "7s"),
    ("ejection.for", "7s"), ("ejection.max_for", "7s"), ("ejection.max_ejected", "7%"), ("ejection.slow_start", "7s"),
    ("health_check", "tcp"), ("health_check.tcp", "on"), ("health_check.http", "/x"), ("health_check.grpc", "x"),
    ("coalesce", "on"), ("failure_if.graphql_errors", "on"), ("failure_if.json", "/x"), ("failure_if.header", "x"), ("failure_if", "header: x"),
    ("fallback", "[{ last_good: on }]"), ("bulkhead.priorities", "[{ path: /x, priority: low }]"),
    ("tls", "on"), ("tls.ca", "/x"), ("tls.name", "x"), ("tls.min_version", "1.3"), ("tls.dangerously_accept_any_certificate", "on"),
    ("cors", "origins: https://a.example"), ("cors.origins", "https://a.example"),
    ("intercept", "listen: 1"), ("intercept.listen", "1"), ("intercept.ports", "81"), ("intercept.user", "x"), ("intercept.mark", "7"),
    ("inbound", "listen: 1, app: 2"), ("inbound.listen", "3"), ("inbound.app", "3"), ("inbound.tls", "cert: /x, key: /x"),
];

/// Keys that do not stand alone: what stands beside each, and two values that must not mean the same.
#[rustfmt::skip]
const TOGETHER: &[(&str, &str, [&str; 2])] = &[
    ("limits.wildcard.services", "", ["7", "8"]), ("limits.wildcard.idle", "", ["7s", "8s"]), ("limits.wildcard.series", "", ["7", "8"]),
    ("bulkhead.adaptive.floor", "", ["7", "8"]), ("bulkhead.priorities.path", ", priority: low", ["/x", "/y"]), ("bulkhead.priorities.priority", ", path: /x", ["low", "high"]),
    ("health_check.every", ", tcp: on", ["1s", "3s"]), ("health_check.timeout", ", tcp: on", ["2s", "3s"]),
    ("health_check.healthy", ", tcp: on", ["7", "8"]), ("health_check.unhealthy", ", tcp: on", ["7", "8"]),
    ("failure_if.equals", ", json: /x", ["x", "y"]), ("failure_if.value", ", header: x", ["x", "y"]),
    ("fallback.last_good", ", max: 7", ["on", "for: 7s"]), ("fallback.service", ", max: 7", ["b", "c"]),
    ("fallback.on", ", last_good: on", ["no_endpoints", "breaker_open"]), ("fallback.max", ", last_good: on", ["7", "8"]),
    ("fallback.last_good.for", "", ["7s", "8s"]), ("fallback.last_good.max_body", "", ["7KiB", "8KiB"]), ("fallback.last_good.force", "", ["on", "off"]),
    ("fallback.respond.status", "", ["200", "201"]), ("fallback.respond.headers", "", ["a: b", "a: c"]), ("fallback.respond.json", "", ["a: b", "a: c"]),
    ("fallback.respond.body", "", ["a", "b"]), ("fallback.respond.file", "", ["a", "b"]), ("fallback.respond.grpc_message", "", ["AAAA", "AAAB"]),
    ("fallback.respond.grpc_status", "", ["5", "unavailable"]), ("fallback.respond.grpc_detail", ", grpc_status: 5", ["a", "b"]),
    ("tls.cert", ", key: /k", ["/x", "/y"]), ("tls.key", ", cert: /c", ["/x", "/y"]),
    ("cors.credentials", ", origins: https://a.example", ["on", "off"]), ("cors.max_age", ", origins: https://a.example", ["1s", "2s"]),
    ("inbound.tls.cert", ", key: /k", ["/x", "/y"]), ("inbound.tls.key", ", cert: /c", ["/x", "/y"]),
    ("inbound.tls.ca", ", cert: /c, key: /k", ["/x", "/y"]), ("inbound.tls.min_version", ", cert: /c, key: /k", ["1.2", "1.3"]),
    ("inbound.allow", ", tls: { cert: /c, key: /k, ca: /a }", ["x", "y"]),
];

#[test]
fn every_key_changes_what_is_meant() {
    let mut tried = 0;
    for (path, key) in rows() {
        // A section, or a list of maps: its own keys are tried.
        let holds_others = key.shape.scalars.is_empty() && key.shape.list.is_none();
        if holds_others {
            continue;
        }
        let read = |value: &str, beside: &str| {
            file(&path, value, beside).unwrap_or_else(|problems| panic!("{path}: {value}\n{problems}"))
        };
        let policy = ["services.a.", "defaults.", "inbound."].iter().find_map(|prefix| path.strip_prefix(prefix));
        let names = [Some(path.as_str()), policy.filter(|policy| !path.starts_with("inbound.tls") || *policy == path)];
        let named = |key: &str| names.contains(&Some(key));
        if let Some((_, beside, [one, other])) = TOGETHER.iter().find(|(sample, ..)| named(sample)) {
            assert_ne!(read(one, beside), read(other, beside), "{path} has no effect");
        } else {
            let sample = SAMPLES.iter().find(|(sample, _)| named(sample));
            let (_, value) = sample.unwrap_or_else(|| panic!("no sample for {path}"));
            assert_ne!(read(value, ""), base(&path), "{path}: {value} has no effect");
        }
        tried += 1;
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn defaults_in_the_tables_fit_their_keys() {
    for (path, key) in rows() {
        let fits = key.default.is_empty() || key.shape.scalars.iter().any(|scalar| scalar.check(key.default).is_ok());
        assert!(fits, "{path}: {}", key.default);
    }
    let built_in = base("").services["a"].policy.timeout.clone();
    assert_eq!(built_in, crate::policy::deadline::Settings::default());
}

#[test]
fn the_schema_has_the_keys_of_the_tables_and_no_others() {
    fn walk(schema: &serde_json::Value, path: &str, keys: &mut BTreeSet<String>) {
        let forms = schema["anyOf"].as_array().cloned().unwrap_or_else(|| vec![schema.clone()]);
        for form in forms {
            for (name, below) in form["properties"].as_object().into_iter().flatten() {
                assert!(below["description"].as_str().is_some_and(|text| text.ends_with('.')), "{path}{name}");
                keys.insert(format!("{path}{name}"));
                walk(below, &format!("{path}{name}."), keys);
            }
            if form["additionalProperties"].is_object() {
                walk(&form["additionalProperties"], &format!("{path}a."), keys);
            }
            if form["items"].is_object() {
                walk(&form["items"], path, keys);
            }
        }
    }
    let mut keys = BTreeSet::new();
    walk(&schema(), "", &mut keys);
    assert_eq!(keys, rows().into_iter().map(|(path, _)| path).collect());
}

#[test]
fn every_key_is_in_the_reference() {
    let page = include_str!("../../docs/configuration.md");
    for (path, key) in rows() {
        // A key of the same name elsewhere does not count.
        let page = match key.path.split_once('.').map(|(section, _)| section) {
            Some(section @ ("inbound" | "tls" | "cors")) => page.split_once(&format!("# `{section}`\n")).unwrap().1,
            _ => page,
        };
        // These two only hold others.
        if !["resolver.ttl", "limits.wildcard"].contains(&path.as_str()) {
            let within = key.path.split_once('.').map_or(key.path, |(_, rest)| rest);
            let said = [key.name(), key.path, within]
                .iter()
                .any(|name| page.contains(&format!("`{name}`")) || page.contains(&format!("`{name}:")));
            assert!(said || page.contains(&format!("{{ {}", key.name())), "{path}");
        }
    }
}
