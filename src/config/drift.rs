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
            Map::Keys(tables) | Map::OneOf(tables) => (tables, path.to_owned()),
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

/// A file with this value at this path, and a service `a`.
fn file(path: &str, value: &str) -> Result<Config, Problems> {
    let nest = |path: &str| {
        path.rsplit('.').fold(value.to_owned(), |inner, key| {
            if inner == value && !inner.contains(": ") {
                format!("{key}: {inner}")
            } else {
                format!("{key}: {{ {inner} }}")
            }
        })
    };
    let text = match path.strip_prefix("services.a.") {
        Some(rest) if SOURCES.iter().any(|key| key.path == rest) => {
            format!("services: {{ a: {{ {} }} }}", nest(rest))
        }
        Some(rest) => format!("services: {{ a: {{ dns: a:80, {} }} }}", nest(rest)),
        None if path.is_empty() => "services: { a: { dns: a:80 } }".to_owned(),
        None => format!("services: {{ a: {{ dns: a:80 }} }}\n{}", nest(path)),
    };
    Config::parse("t.yaml", &text, &|_| None).map(|loaded| loaded.config)
}

/// A value other than the default for every key that is alive, but for those that only hold others.
#[rustfmt::skip]
const SAMPLES: &[(&str, &str)] = &[
    ("listen.http", "1"), ("listen.observe", "1"), ("listen.admin", "/x"),
    ("vip.domain", "x"),
    ("resolver.servers", "10.0.0.1"), ("resolver.ttl.min", "2s"), ("resolver.ttl.max", "6s"),
    ("resolver.hold", "0s"), ("resolver.timeout", "1s"),
    ("workers", "3"),
    ("limits.connections", "1"), ("limits.header_bytes", "8KiB"), ("limits.headers", "1"), ("limits.header_timeout", "1s"),
    ("log.access", "stdout"), ("log.level", "warn"),
    ("drain", "1s"), ("drain.for", "1s"),
    ("services.a.listen", "1"), ("services.a.aliases", "b"),
    ("services.a.dns", "b:80"), ("services.a.srv", "b"), ("services.a.static", "10.0.0.1:80"), ("services.a.file", "/x"),
    ("timeout", "1s"), ("timeout.request", "1s"), ("timeout.connect", "2s"), ("timeout.attempt", "1s"),
    ("timeout.idle", "1s"), ("timeout.total", "20s"), ("timeout.tunnel", "1s"),
    ("bulkhead", "7"), ("bulkhead.max", "7"), ("bulkhead.queue", "7"), ("bulkhead.wait", "7ms"), ("bulkhead.per_endpoint", "7"),
    ("breaker", "7%"), ("breaker.mode", "observe"), ("breaker.error_rate", "7%"), ("breaker.min_calls", "7"),
    ("breaker.window", "7s"), ("breaker.open_for", "7s"), ("breaker.probes", "7"), ("breaker.slow_call", "7s"), ("breaker.slow_rate", "7%"),
    ("balance", "random"), ("balance.hash", "path"),
];

#[test]
fn every_key_that_is_alive_changes_what_is_meant() {
    let base = file("", "").unwrap();
    let mut tried = 0;
    let later: Vec<_> = rows().into_iter().filter(|(_, key)| key.later.is_some()).map(|(path, _)| path).collect();
    for (path, key) in rows() {
        let dead = later.iter().any(|later| {
            path.strip_prefix(later.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        // A section, or a list of maps: its own keys are tried.
        let holds_others = key.shape.scalars.is_empty() && key.shape.list.is_none();
        if dead || holds_others {
            continue;
        }
        let policy = path.strip_prefix("services.a.").or(path.strip_prefix("defaults."));
        let sample = SAMPLES.iter().find(|(sample, _)| *sample == path || Some(*sample) == policy);
        let (_, value) = sample.unwrap_or_else(|| panic!("no sample for {path}"));
        let config = file(&path, value).unwrap_or_else(|problems| panic!("{path}: {value}\n{problems}"));
        assert_ne!(config, base, "{path}: {value} has no effect");
        tried += 1;
    }
    assert!(tried > 60, "{tried}");
}

#[test]
fn a_key_that_is_to_come_takes_its_off_words_and_nothing_else() {
    let rows = rows();
    let later: Vec<_> = rows.iter().filter_map(|(path, key)| Some((path, key, key.later?))).collect();
    assert!(later.len() > 10);
    for (path, key, words) in later {
        for word in words {
            assert!(key.shape.scalars.iter().any(|scalar| scalar.check(word).is_ok()), "{path}: {word}");
            if !path.starts_with("fallback.") && !path.starts_with("inbound.") {
                file(path, word).unwrap_or_else(|problems| panic!("{path}: {word}\n{problems}"));
            }
        }
    }
    let refused = include_str!("../../tests/config/invalid/not-yet.txt");
    for (path, key) in rows
        .iter()
        .filter(|(path, key)| key.later.is_some() && !path.starts_with("inbound.") && !path.starts_with("defaults."))
    {
        assert!(refused.contains(&format!("error: `{}` is not supported yet", key.name())), "{path}");
    }
}

#[test]
fn defaults_in_the_tables_fit_their_keys() {
    for (path, key) in rows() {
        let fits = key.default.is_empty() || key.shape.scalars.iter().any(|scalar| scalar.check(key.default).is_ok());
        assert!(fits, "{path}: {}", key.default);
    }
    let built_in = file("", "").unwrap().services["a"].policy.timeout.clone();
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
        let dead = key.later.is_some() || path.contains("inbound.") || path.starts_with("vip.");
        let below_dead =
            POLICIES.iter().any(|policy| policy.later.is_some() && path.contains(&format!("{}.", policy.path)));
        // `ttl` only holds others.
        if !dead && !below_dead && path != "resolver.ttl" {
            let said = [key.name(), key.path]
                .iter()
                .any(|name| page.contains(&format!("`{name}`")) || page.contains(&format!("`{name}:")));
            assert!(said || page.contains(&format!("{{ {}", key.name())), "{path}");
        }
    }
}
