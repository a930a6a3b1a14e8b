//! What the sidecar tells about itself: metrics, views, the access log.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::{Held, Origin, Process, Sidecar, eventually};

/// The contract's metrics that exist at this stage, with their labels.
const METRICS: &[(&str, &[&str])] = &[
    ("outrigger_calls_total", &["outcome", "service"]),
    ("outrigger_call_duration_seconds", &["service"]),
    ("outrigger_attempts_total", &["outcome", "service"]),
    ("outrigger_breaker_state", &["service"]),
    ("outrigger_breaker_transitions_total", &["service", "to"]),
    ("outrigger_bulkhead_in_flight", &["service"]),
    ("outrigger_bulkhead_limit", &["service"]),
    ("outrigger_retries_total", &["reason", "service"]),
    ("outrigger_endpoints", &["service", "state"]),
    ("outrigger_discovery_updates_total", &["result", "service", "source"]),
    ("outrigger_discovery_age_seconds", &["service"]),
    ("outrigger_connections", &["service", "side"]),
    ("outrigger_build_info", &["version"]),
];

const OUTCOMES: &[&str] = &[
    "ok",
    "upstream_error",
    "cancelled",
    "unknown_service",
    "no_endpoints",
    "breaker_open",
    "bulkhead_full",
    "connect_refused",
    "connect_timeout",
    "request_timeout",
    "upstream_reset",
    "bad_response",
    "tls_failed",
    "loop",
    "bad_request",
    "shutting_down",
];

/// Label names and values of a sample's name as rendered.
fn labels(sample: &str) -> BTreeMap<&str, &str> {
    let Some((_, rest)) = sample.split_once('{') else { return BTreeMap::new() };
    rest.trim_end_matches('}')
        .split("\",")
        .filter_map(|pair| {
            let (name, value) = pair.split_once("=\"")?;
            Some((name, value.trim_end_matches('"')))
        })
        .collect()
}

#[tokio::test]
async fn names_labels_and_words_of_the_metrics_are_the_contracts() {
    let origin = Origin::ok("x").await;
    let sidecar = Sidecar::start(&format!("services: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    assert_eq!(sidecar.get("a", "/").await.status, 200);
    let samples = sidecar.metrics().await;
    for (name, expected) in METRICS {
        let found = samples.keys().find(|sample| {
            let bare = sample.split('{').next().unwrap_or_default();
            bare == *name || bare == format!("{name}_count")
        });
        let found = found.unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(labels(found).keys().copied().collect::<Vec<_>>(), *expected, "{found}");
    }
    let outcomes: BTreeSet<_> = samples.keys().filter_map(|sample| labels(sample).get("outcome").copied()).collect();
    assert_eq!(outcomes, OUTCOMES.iter().copied().collect());
    assert_eq!(samples["outrigger_calls_total{outcome=\"ok\",service=\"a\"}"], 1.0);
    assert_eq!(samples["outrigger_call_duration_seconds_count{service=\"a\"}"], 1.0);
    assert_eq!(samples["outrigger_bulkhead_limit{service=\"a\"}"], 100.0);
    assert_eq!(samples["outrigger_endpoints{service=\"a\",state=\"ready\"}"], 1.0);
    assert_eq!(samples["outrigger_connections{service=\"a\",side=\"upstream\"}"], 1.0);
    let looks = "outrigger_discovery_updates_total{result=\"changed\",service=\"a\",source=\"static\"}";
    assert_eq!(samples[looks], 1.0);
}

#[tokio::test]
async fn connections_are_counted_as_they_come_and_go() {
    let origin = Held::start().await;
    let sidecar = Sidecar::start(&format!("services: {{a: {{static: ['{}']}}}}", origin.addr())).await;
    let count = async |side: &str| {
        let label = if side == "upstream" { "a" } else { "" };
        sidecar.metrics().await[&format!("outrigger_connections{{service=\"{label}\",side=\"{side}\"}}")]
    };
    let mut clients = Vec::new();
    for n in 1..=5 {
        let mut client = sidecar.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
        origin.has_read(n).await;
    }
    assert_eq!((count("downstream").await, count("upstream").await), (5.0, 5.0));
    drop(clients);
    eventually("all to be closed", async || count("downstream").await + count("upstream").await == 0.0).await;
}

#[tokio::test]
async fn the_access_log_has_a_line_for_every_kind_of_call() {
    let held = Held::start().await;
    let ill = Origin::answering("HTTP/1.1 500 x\r\ncontent-length: 4\r\n\r\noops").await;
    let yaml = format!(
        "log: {{access: ./access.log}}\nservices:\n  a: {{static: ['{}']}}\n  b: {{static: ['{}']}}",
        held.addr(),
        ill.addr()
    );
    let mut process = Process::start(&yaml).await;
    let mut client = process.client().await;
    held.release(1);
    client
        .send("POST /ok?q=%221%22 HTTP/1.1\r\nHost: A:80\r\nX-Request-Id: id-1\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(client.reply().await.status, 200);
    process.get("b", "/error").await;
    process.get("nobody", "/unknown").await;
    process.admin("/breaker/b/open").await;
    let refused = process.get("b", "/refused").await;
    let mut gone = process.client().await;
    gone.send("GET /cancelled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    held.has_read(2).await;
    drop(gone);
    for malformed in ["no HTTP at all\r\n\r\n", "GET /twice HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"] {
        let mut client = process.client().await;
        client.send(malformed).await;
        assert_eq!(client.reply().await.status, 400);
    }
    eventually("the cancelled call to be counted", async || process.view("a").await.calls.get("cancelled") == Some(&1))
        .await;
    process.signal("TERM");
    assert_eq!(process.exit().await, Some(0));

    let text = std::fs::read_to_string(process.file("access.log")).unwrap();
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    assert_eq!(lines.len(), 7, "{text}");
    let line = |path: &str| {
        lines.iter().find(|line| line["path"].as_str().unwrap().starts_with(path)).unwrap_or_else(|| panic!("{path}"))
    };
    let ok = line("/ok");
    assert_eq!((&ok["service"], &ok["method"], &ok["status"]), (&"a".into(), &"POST".into(), &200.into()));
    assert_eq!((&ok["outcome"], &ok["attempts"], &ok["path"]), (&"ok".into(), &1.into(), &"/ok?q=%221%22".into()));
    assert_eq!((&ok["bytes_in"], &ok["bytes_out"], &ok["host"]), (&3.into(), &13.into(), &"A:80".into()));
    assert_eq!((&ok["request_id"], &ok["endpoint"]), (&"id-1".into(), &held.addr().to_string().into()));
    assert!(ok["duration_ms"].is_number() && ok["peer"].is_string() && ok["time"].is_string());
    let error = line("/error");
    assert_eq!(
        (&error["outcome"], &error["status"], &error["bytes_out"]),
        (&"upstream_error".into(), &500.into(), &4.into())
    );
    let unknown = line("/unknown");
    assert_eq!((&unknown["outcome"], unknown.get("service")), (&"unknown_service".into(), None));
    let breaker = line("/refused");
    assert_eq!((&breaker["outcome"], &breaker["attempts"]), (&"breaker_open".into(), &0.into()));
    assert_eq!(breaker["bytes_out"], refused.body.len());
    assert!(breaker["details"].as_str().is_some_and(|details| !details.is_empty()));
    let cancelled = line("/cancelled");
    assert_eq!((&cancelled["outcome"], cancelled.get("status")), (&"cancelled".into(), None));
    assert_eq!((&line("/twice")["outcome"], &line("/twice")["status"]), (&"bad_request".into(), &400.into()));
    assert!(lines.iter().any(|line| line["method"] == "-" && line["outcome"] == "bad_request"), "{text}");
}

#[tokio::test]
async fn thousands_of_services_start_and_answer() {
    let origin = Origin::ok("fine").await;
    let services: String = (0..2000).map(|n| format!("  service-{n}: {{static: ['{}']}}\n", origin.addr())).collect();
    let process = Process::start(&format!("services:\n{services}")).await;
    for name in ["service-0", "SERVICE-1999.vip.internal"] {
        assert_eq!(process.get(name, "/").await.text(), "fine");
    }
    assert_eq!(process.get("service-2000", "/").await.reason(), "unknown_service");
    let (code, text, _) = process.command("explain service-1234").await;
    assert_eq!((code, text.contains("service-1234")), (0, true));
    let metrics = process.observe("/metrics").await.text();
    assert_eq!(metrics.matches("\noutrigger_breaker_state{").count(), 2000);
    let reply = process.reload(&format!("services:\n{}", services)).await;
    assert_eq!(reply.status, 200);
    process.reload("services: {}").await;
    let metrics = process.observe("/metrics").await.text();
    assert_eq!(metrics.matches("\noutrigger_breaker_state{").count(), 0);
}
