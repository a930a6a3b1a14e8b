//! A fallback's chain of steps: from the list as written to what each step does, and what is wrong with one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};

use super::{
    Protocol, Service, keys,
    problem::{Report, did_you_mean, join, quoted},
    raw::{Node, Place, Value},
    scalar::{self, Complaint, switch},
    units,
};
use crate::{
    model::ServiceName,
    policy::fallback::{Body, Grpc, LastGood, Respond, Step, With},
};

/// What a step can be.
const KINDS: [&str; 3] = ["last_good", "service", "respond"];

/// What a fixed answer's body can be.
const BODIES: [&str; 3] = ["json", "body", "file"];

/// The steps of a checked list. One that has its problem already is left out.
pub(super) fn steps(items: &[Node]) -> Arc<[Step]> {
    items.iter().filter_map(step).collect()
}

fn step(node: &Node) -> Option<Step> {
    let with = match node.entries().iter().find(|entry| KINDS.contains(&entry.key.as_str())) {
        Some(entry) if entry.key == "service" => With::Service(scalar::service(entry.node.text()?).ok()?),
        Some(entry) if entry.key == "respond" => With::Respond(Arc::new(respond(&entry.node)?)),
        Some(entry) => With::LastGood(last_good(&entry.node)),
        None => return None,
    };
    let on = node.get("on").map(|on| on.items().iter().filter_map(|item| scalar::cause(item.text()?).ok()).collect());
    Some(Step { with, on, max: read(node, "max", "fallback.max", count) })
}

fn last_good(node: &Node) -> LastGood {
    LastGood {
        age: read(node, "for", "fallback.last_good.for", units::duration),
        max_body: read(node, "max_body", "fallback.last_good.max_body", size),
        force: read(node, "force", "fallback.last_good.force", |text| Ok(switch(text) == "on")),
    }
}

fn respond(node: &Node) -> Option<Respond> {
    let text = |key| node.get(key).and_then(Node::text);
    let mut headers: Vec<_> =
        node.get("headers").map(Node::entries).unwrap_or_default().iter().filter_map(header).collect();
    let mut says = |kind: &'static str| {
        if !headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
            headers.push((CONTENT_TYPE, HeaderValue::from_static(kind)));
        }
    };
    let body = if let Some(json) = node.get("json") {
        says("application/json");
        Body::Bytes(serde_json::to_vec(&self::json(json)).ok()?.into())
    } else if let Some(text) = text("body") {
        says("text/plain; charset=utf-8");
        Body::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    } else {
        text("file").map_or(Body::Bytes(Bytes::new()), |path| Body::File(path.into()))
    };
    let grpc = match (text("grpc_message"), text("grpc_status")) {
        (Some(message), _) => Some(Grpc::Message(scalar::base64(message).ok()?.into())),
        (None, Some(code)) => {
            Some(Grpc::Status(scalar::grpc_code(code).ok()?, text("grpc_detail").unwrap_or_default().to_owned()))
        }
        (None, None) => None,
    };
    let status = read(node, "status", "fallback.respond.status", scalar::count);
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok())?;
    Some(Respond { status, headers, body, grpc })
}

fn header(entry: &super::raw::Entry) -> Option<(HeaderName, HeaderValue)> {
    Some((scalar::header(&entry.key).ok()?, HeaderValue::from_str(entry.node.text()?).ok()?))
}

/// YAML as JSON: plain scalars are numbers, booleans and null where they look like it, as in YAML's core schema.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null | Value::Unfilled => serde_json::Value::Null,
        Value::Text { text, .. } => match serde_json::from_str(text) {
            Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_) | serde_json::Value::Null)) => value,
            _ => serde_json::Value::String(text.clone()),
        },
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), json(&entry.node))).collect(),
    }
}

fn read<T>(node: &Node, key: &str, path: &str, read: impl Fn(&str) -> Result<T, Complaint>) -> T {
    let written = node.get(key).and_then(Node::text).and_then(|text| read(text).ok());
    written.unwrap_or_else(|| read(keys::default(path)).expect("a default in the tables can be read"))
}

fn count(text: &str) -> Result<u32, Complaint> {
    scalar::count(text).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

fn size(text: &str) -> Result<usize, Complaint> {
    units::size(text).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// What the tables cannot say of a chain as it is written, under `path`.
pub(super) fn check(fallback: Option<&Node>, path: &str, report: &mut Report<'_>) {
    let Some(Node { value: Value::List(items), .. }) = fallback else { return };
    for (index, item) in items.iter().enumerate() {
        let Value::Map(entries) = &item.value else { continue };
        let path = format!("{path}[{index}]");
        let kinds = entries.iter().filter(|entry| KINDS.contains(&entry.key.as_str())).count();
        if kinds != 1 {
            let message = format!("exactly one of {} belongs here", KINDS.map(|kind| format!("`{kind}`")).join(", "));
            report.error(item.place, &path, message, Some("each step of the list answers in one way".to_owned()));
        }
        if let Some(respond) = item.get("respond") {
            check_respond(respond, &join(&path, "respond"), report);
        }
    }
}

fn check_respond(node: &Node, path: &str, report: &mut Report<'_>) {
    for alternatives in [&BODIES[..], &["grpc_message", "grpc_status"]] {
        let mut written = node.entries().iter().filter(|entry| alternatives.contains(&entry.key.as_str()));
        if let (Some(first), Some(second)) = (written.next(), written.next()) {
            let message = format!("{} and {} do not go together", quoted(&first.key), quoted(&second.key));
            report.error(second.place, &join(path, &second.key), message, Some("keep one of them".to_owned()));
        }
    }
    if let (Some(detail), None) = (node.entry("grpc_detail"), node.get("grpc_status")) {
        let hint = Some("add `grpc_status: unavailable`, or whichever it is".to_owned());
        report.error(detail.place, &join(path, "grpc_detail"), "`grpc_detail` says more about no `grpc_status`", hint);
    }
    let Some(headers) = node.entry("headers") else { return };
    let path = join(path, "headers");
    if !matches!(headers.node.value, Value::Map(_)) {
        report.error(headers.place, &path, "expected a map of headers", Some("write `{ retry-after: 5 }`".to_owned()));
    }
    for entry in headers.node.entries() {
        let fits = entry.node.text().is_some_and(|text| HeaderValue::from_str(text).is_ok());
        match scalar::header(&entry.key) {
            Err((message, hint)) => report.error(entry.place, &path, message, hint),
            Ok(name) if IS_FRAMING.contains(&name.as_str()) => {
                let hint = Some("leave it out: it follows from the body and the connection".to_owned());
                report.error(entry.place, &path, format!("{} is not for an answer to say", quoted(&entry.key)), hint);
            }
            Ok(_) if !fits => {
                report.error(
                    entry.place,
                    &path,
                    format!("{} has no value that a header can have", quoted(&entry.key)),
                    None,
                );
            }
            Ok(_) => {}
        }
    }
}

/// Headers that speak of the message or the connection.
const IS_FRAMING: [&str; 6] =
    ["content-length", "transfer-encoding", "connection", "upgrade", "keep-alive", "proxy-status"];

/// A step in one line, as `explain` shows it.
pub(super) fn show(step: &Step) -> String {
    let mut text = match &step.with {
        With::LastGood(last_good) => format!("last_good: {}", units::show_duration(last_good.age)),
        With::Service(name) => format!("service: {name}"),
        With::Respond(respond) => format!("respond: {}", respond.status.as_u16()),
    };
    if let Some(on) = &step.on {
        let on: Vec<_> = on.iter().map(|cause| cause.as_str()).collect();
        text += &format!(", on: [{}]", on.join(", "));
    }
    text
}

/// The services that a chain leads to.
fn services(steps: &[Step]) -> impl Iterator<Item = &ServiceName> {
    steps.iter().filter_map(|step| match &step.with {
        With::Service(name) => Some(name),
        _ => None,
    })
}

/// Chains lead to services that exist, and never back: a call that falls from one service to another must come to
/// an end. `place` finds where a service's chain is written.
pub(super) fn check_ways(
    services_by_name: &BTreeMap<ServiceName, Arc<Service>>,
    place: &dyn Fn(&ServiceName) -> (Place, String),
    report: &mut Report<'_>,
) {
    let named = |name: &ServiceName| {
        services_by_name.get(name).or_else(|| services_by_name.values().find(|service| service.aliases.contains(name)))
    };
    for (name, service) in services_by_name {
        for to in services(&service.policy.fallback) {
            let (at, path) = place(name);
            match named(to) {
                None => {
                    let near = did_you_mean(to.as_str(), services_by_name.keys().map(ServiceName::as_str));
                    report.error(at, &path, format!("no service is called {}", quoted(to.as_str())), near);
                }
                Some(other) if other.policy.protocol == Protocol::Tcp => {
                    let message = format!(
                        "{} carries bytes, and cannot answer for {}",
                        quoted(to.as_str()),
                        quoted(name.as_str())
                    );
                    report.error(at, &path, message, Some("name a service that speaks HTTP".to_owned()));
                }
                Some(_) => {}
            }
        }
    }
    let mut seen: BTreeSet<&ServiceName> = BTreeSet::new();
    for start in services_by_name.keys().filter(|name| !services_by_name[*name].policy.fallback.is_empty()) {
        if let Some(way) = way_back(start, start, &named, &mut vec![start])
            && way.iter().all(|name| !seen.contains(name))
        {
            let (at, path) = place(start);
            let round = way.iter().chain([&start]).map(|name| name.as_str()).collect::<Vec<_>>().join(" → ");
            let hint = Some("let the last of them answer by `respond`, or not at all".to_owned());
            report.error(at, &path, format!("the fallbacks go round in a circle: {round}"), hint);
            seen.extend(way);
        }
    }
}

/// The way from `here` on that ends where it began.
fn way_back<'a>(
    start: &ServiceName,
    here: &ServiceName,
    named: &dyn Fn(&ServiceName) -> Option<&'a Arc<Service>>,
    way: &mut Vec<&'a ServiceName>,
) -> Option<Vec<&'a ServiceName>> {
    let service = named(here)?;
    for next in services(&service.policy.fallback).filter_map(named) {
        if next.name == *start {
            return Some(way.clone());
        }
        if way.iter().any(|name| **name == next.name) {
            continue;
        }
        way.push(&next.name);
        if let Some(found) = way_back(start, &next.name, named, way) {
            return Some(found);
        }
        way.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, describe};

    #[test]
    fn what_is_written_is_what_answers() {
        let text = "services: { a: { dns: a:80, fallback: [{ respond: { status: 203, headers: { X-Degraded: 1 }, json: { state: unknown, n: 1.5, ok: false, no: null, text: '7 days', list: [a] } } }, { respond: { body: sorry, headers: { content-type: text/html } } }, { last_good: on, on: [upstream_error, no_endpoints], max: 3 }] } }";
        let loaded = Config::parse("t.yaml", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        let service = &loaded.config.services["a"];
        let [Step { with: With::Respond(json), .. }, Step { with: With::Respond(html), .. }, last] =
            &service.policy.fallback[..]
        else {
            panic!("{:?}", service.policy.fallback)
        };
        let shown = |respond: &Respond| {
            let headers = respond.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
            (respond.status.as_u16(), headers.collect::<Vec<_>>(), respond.body.clone())
        };
        let body = r#"{"list":["a"],"n":1.5,"no":null,"ok":false,"state":"unknown","text":"7 days"}"#;
        let headers = vec!["x-degraded: 1".to_owned(), "content-type: application/json".to_owned()];
        assert_eq!(shown(json), (203, headers, Body::Bytes(body.into())));
        assert_eq!(shown(html), (200, vec!["content-type: text/html".to_owned()], Body::Bytes("sorry".into())));
        assert_eq!((last.max, last.with.clone()), (3, With::LastGood(LastGood::default())));
        let described = describe(service);
        let (_, chain, _) = described.iter().find(|(key, ..)| *key == "fallback").unwrap();
        assert_eq!(
            chain,
            "[{ respond: 203 }, { respond: 200 }, { last_good: 10m, on: [upstream_error, no_endpoints] }]"
        );
    }

    #[test]
    fn a_service_s_own_chain_replaces_that_of_defaults() {
        let text = "defaults: { fallback: [{ last_good: on }] }\nservices: { a: { dns: a:80 }, b: { dns: b:80, fallback: off }, c: { dns: c:80, fallback: [{ service: a }] }, d: { dns: d:1, listen: 0, protocol: tcp } }";
        let loaded = Config::parse("t.yaml", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        let of = |name: &str| {
            loaded.config.services[name].policy.fallback.iter().map(|step| step.with.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("a"), [With::LastGood(LastGood::default())]);
        assert_eq!(of("c"), [With::Service(ServiceName::parse("a").unwrap())]);
        assert_eq!((of("b"), of("d")), (vec![], vec![]));
    }
}
