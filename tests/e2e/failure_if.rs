//! Failures in a 200: what marks them, what they count as, and what may be tried again.

use std::sync::{Arc, Mutex};

use crate::support::{Origin, Sidecar};

/// Answers each request with the next of these: headers, and a body.
pub(super) async fn answering(answers: &[(&str, &str)]) -> (Origin, Arc<Mutex<Vec<String>>>) {
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

pub(super) const JSON: &str = "content-type: application/json\r\n";
pub(super) const FAILED: &str = r#"{"errors":[{"message":"down"}],"data":null}"#;
pub(super) const GOOD: &str = r#"{"data":{"a":1}}"#;

pub(super) async fn counted(sidecar: &Sidecar, series: &str) -> u64 {
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

/// Nothing that is being told piece by piece waits for its end.
#[tokio::test]
async fn streams_are_let_through_as_they_come() {
    for kind in ["text/event-stream", "application/x-ndjson", "application/stream+json", "multipart/mixed"] {
        let go_on = Arc::new(tokio::sync::Semaphore::new(0));
        let waits = go_on.clone();
        let origin = Origin::scripted(move |mut exchange| {
            let waits = waits.clone();
            async move {
                exchange.request().await;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
                exchange.send(format!("{head}3\r\none\r\n")).await;
                waits.acquire().await.unwrap().forget();
                exchange.send("3\r\ntwo\r\n0\r\n\r\n").await;
            }
        })
        .await;
        let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}").await;
        let mut client = sidecar.client().await;
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.head().await.unwrap().contains("200"), "{kind}");
        assert_eq!(client.chunk().await.as_deref(), Some("one"), "{kind}");
        go_on.add_permits(1);
        assert_eq!(client.chunk().await.as_deref(), Some("two"), "{kind}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_counted() {
    let gzip = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    let (origin, _) = answering(&[(gzip, FAILED)]).await;
    let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}").await;
    assert_eq!(sidecar.get("a", "/x").await.text(), FAILED);
    assert_eq!(counted(&sidecar, "outrigger_failure_if_unjudged_total{service=\"a\"}").await, 1);
}

/// A 4xx is about the request, and GraphQL says there what is wrong with it.
#[tokio::test]
async fn a_4xx_is_no_failure_whatever_its_body_says() {
    let kind = "application/graphql-response+json";
    let length = FAILED.len();
    let head = format!("HTTP/1.1 400 Bad Request\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
    let origin = Origin::answering(format!("{head}{FAILED}")).await;
    let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}").await;
    let reply = sidecar.get("a", "/x").await;
    assert_eq!((reply.status, reply.text().as_str()), (400, FAILED));
    sidecar.settles("a", &[("ok", 1)]).await;
}

#[tokio::test]
async fn odd_json_is_read_in_one_way_or_not_at_all() {
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    for (body, outcome) in [
        (r#"{"state":"fine","state":"failed"}"#, "upstream_error"),
        (r#"{"state":"failed","state":"fine"}"#, "ok"),
        (r#"{"state":"failed"} trailing"#, "ok"),
        (r#"{"state":"\u0066ailed"}"#, "upstream_error"),
        (deep.as_str(), "ok"),
    ] {
        let (origin, _) = answering(&[(JSON, body)]).await;
        let sidecar = Sidecar::before(&origin, ", failure_if: {json: /state, equals: failed}").await;
        assert_eq!(sidecar.get("a", "/x").await.text(), body);
        sidecar.settles("a", &[(outcome, 1)]).await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_while_it_is_judged_is_a_local_reply() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{").await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}").await;
    assert_eq!(sidecar.get("a", "/x").await.reason(), "upstream_reset");
}
