//! A fallback's chain of steps: from the list as written to what each step does, and what is wrong with one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};

use super::{
    keys,
    problem::{Report, join, quoted},
    raw::{Node, Value},
    scalar::{self, Complaint, switch},
    units,
};
use crate::policy::fallback::{Body, Grpc, LastGood, Respond, Step, With};

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
        With::LastGood(last_good) => format!("last_good: {}", show_time(last_good.age)),
        With::Service(name) => format!("service: {name}"),
        With::Respond(respond) => format!("respond: {}", respond.status.as_u16()),
    };
    if let Some(on) = &step.on {
        let on: Vec<_> = on.iter().map(|cause| cause.as_str()).collect();
        text += &format!(", on: [{}]", on.join(", "));
    }
    text
}

fn show_time(time: Duration) -> String {
    units::show_duration(time)
}
