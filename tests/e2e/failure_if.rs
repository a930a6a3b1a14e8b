//! Failures in a 200: what marks them, what they count as, and what may be tried again.

use std::sync::{Arc, Mutex};

use crate::support::{Origin, Reply, Sidecar};

/// Answers each request with the next of these: headers, and a body.
async fn answering(answers: &[(&str, &str)]) -> (Origin, Arc<Mutex<Vec<String>>>) {
    let answers: Vec<_> = answers.iter().map(|(head, body)| ((*head).to_owned(), (*body).to_owned())).collect();
    let (answers, asked) = (Arc::new(answers), Arc::new(Mutex::new(Vec::new())));
    let log: Arc<Mutex<Vec<String>>> = asked.clone();
    let origin = Origin::scripted(move |mut exchange| {
        let (answers, log) = (answers.clone(), log.clone());
        async move {
            while let Some(request) = exchange.request().await {
                let n = {
                    let mut log = log.lock().unwrap();
                    log.push(request);
                    log.len() - 1
                };
                let (head, body) = &answers[n.min(answers.len() - 1)];
                let length = body.len();
                exchange.send(format!("HTTP/1.1 200 OK\r\n{head}content-length: {length}\r\n\r\n{body}")).await;
            }
        }
    })
    .await;
    (origin, asked)
}

const JSON: &str = "content-type: application/json\r\n";
const FAILED: &str = r#"{"errors":[{"message":"down"}],"data":null}"#;
const GOOD: &str = r#"{"data":{"a":1}}"#;

async fn graphql(sidecar: &Sidecar, query: &str) -> Reply {
    let body = serde_json::json!({ "query": query }).to_string();
    let mut client = sidecar.client().await;
    let length = body.len();
    let head = "POST /graphql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=utf-8\r\n";
    client.send(format!("{head}Content-Length: {length}\r\n\r\n{body}")).await;
    client.reply().await
}

async fn counted(sidecar: &Sidecar, series: &str) -> u64 {
    sidecar.metrics().await.get(series).copied().unwrap_or(0.0) as u64
}

#[tokio::test]
async fn what_is_marked_counts_as_a_failure_and_reaches_the_app_as_it_is() {
    for (rule, head, body) in [
        ("{graphql_errors: on}", JSON, FAILED),
        ("{graphql_errors: on}", "content-type: application/graphql-response+json\r\n", FAILED),
        ("{json: /state, equals: failed}", JSON, r#"{"state":"failed"}"#),
        ("{header: x-error}", "x-error: 1\r\n", "plain"),
        ("{header: x-error, value: '1'}", "x-error: 1\r\n", ""),
    ] {
        let (origin, _) = answering(&[(head, body)]).await;
        let rest = format!(", failure_if: {rule}, breaker: {{min_calls: 2, window: 1h, open_for: 1h}}");
        let sidecar = Sidecar::before(&origin, &rest).await;
        for _ in 0..2 {
            let reply = sidecar.get("a", "/x").await;
            assert_eq!((reply.status, reply.text().as_str(), reply.complete), (200, body, true), "{rule}");
        }
        assert_eq!(sidecar.get("a", "/x").await.reason(), "breaker_open", "{rule}");
        sidecar.settles("a", &[("upstream_error", 2), ("breaker_open", 1)]).await;
    }
}

#[tokio::test]
async fn what_is_not_marked_is_fine() {
    for (head, body) in [
        (JSON, GOOD),
        (JSON, r#"{"errors":[{"message":"part"}],"data":{"a":null}}"#),
        (JSON, "{ broken"),
        (JSON, ""),
        ("content-type: text/html\r\n", FAILED),
        ("content-type: application/json\r\ncontent-encoding: gzip\r\n", FAILED),
    ] {
        let (origin, _) = answering(&[(head, body)]).await;
        let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}").await;
        assert_eq!(sidecar.get("a", "/x").await.text(), body);
        sidecar.settles("a", &[("ok", 1)]).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_passes_unjudged() {
    let long = format!(r#"{{"errors":[1],"pad":"{}"}}"#, "x".repeat(300_000));
    let (origin, _) = answering(&[(JSON, &long)]).await;
    let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}").await;
    assert_eq!(sidecar.get("a", "/x").await.text(), long);
    assert_eq!(counted(&sidecar, "outrigger_failure_if_unjudged_total{service=\"a\"}").await, 1);
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn a_long_answer_of_unknown_length_is_let_go() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for _ in 0..40 {
            exchange.send(format!("4000\r\n{}\r\n", "x".repeat(0x4000))).await;
        }
        exchange.send("0\r\n\r\n").await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}").await;
    let reply = sidecar.get("a", "/x").await;
    assert_eq!((reply.complete, reply.body.len()), (true, 40 * 0x4000));
}

#[tokio::test]
async fn queries_are_tried_again_and_mutations_are_not() {
    for (query, attempts) in [
        ("{ a }", 2),
        ("query Orders { mutation }", 2),
        ("mutation Buy { buy { id } }", 1),
        ("query A { a } mutation B { b }", 1),
        ("subscription { a }", 1),
        ("{ broken", 1),
    ] {
        let (origin, asked) = answering(&[(JSON, FAILED), (JSON, GOOD)]).await;
        let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}, retry: {backoff: 0ms}").await;
        let reply = graphql(&sidecar, query).await;
        assert_eq!(asked.lock().unwrap().len(), attempts, "{query}");
        assert_eq!(reply.text(), if attempts == 2 { GOOD } else { FAILED }, "{query}");
    }
}

#[tokio::test]
async fn operations_are_counted_by_name_within_a_bound() {
    let (origin, _) = answering(&[(JSON, GOOD)]).await;
    let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}").await;
    graphql(&sidecar, "query Orders { a }").await;
    graphql(&sidecar, "{ a }").await;
    for n in 0..120 {
        graphql(&sidecar, &format!("query Q{n} {{ a }}")).await;
    }
    let of =
        |name: &str| format!("outrigger_graphql_operations_total{{operation=\"{name}\",outcome=\"ok\",service=\"a\"}}");
    assert_eq!(counted(&sidecar, &of("Orders")).await, 1);
    assert_eq!(counted(&sidecar, &of("anonymous")).await, 1);
    assert_eq!(counted(&sidecar, &of("other")).await, 22);
}
