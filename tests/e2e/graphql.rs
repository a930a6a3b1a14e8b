//! GraphQL: queries are told from mutations, in bodies and in URIs, and counted by name.

use super::failure_if::{FAILED, GOOD, JSON, answering, counted};
use crate::support::{Reply, Sidecar};

async fn graphql(sidecar: &Sidecar, query: &str) -> Reply {
    let body = serde_json::json!({ "query": query }).to_string();
    let mut client = sidecar.client().await;
    let length = body.len();
    let head = "POST /graphql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=utf-8\r\n";
    client.send(format!("{head}Content-Length: {length}\r\n\r\n{body}")).await;
    client.reply().await
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

#[tokio::test]
async fn a_get_is_tried_again_unless_it_is_known_to_be_more_than_a_query() {
    for (path, attempts) in [
        ("/graphql?query=%7Ba%7D", 2),
        ("/graphql?query=query+A%7Ba%7D+mutation+B%7Bb%7D&operationName=A", 2),
        ("/graphql?query=query+A%7Ba%7D+mutation+B%7Bb%7D&operationName=B", 1),
        ("/graphql?query=mutation%7Ba%7D", 1),
        ("/graphql?query=%7Ba%7D&query=mutation%7Ba%7D", 1),
        ("/graphql?extensions=%7B%22persistedQuery%22%3A%7B%7D%7D", 2),
        ("/search?query=shoes", 2),
    ] {
        let (origin, asked) = answering(&[(JSON, FAILED), (JSON, GOOD)]).await;
        let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}, retry: {backoff: 0ms}").await;
        let reply = sidecar.get("a", path).await;
        assert_eq!(asked.lock().unwrap().len(), attempts, "{path}");
        assert_eq!(reply.text(), if attempts == 2 { GOOD } else { FAILED }, "{path}");
    }
}

/// The hash of a persisted query says nothing of what it does, nor does a body that says two things.
#[tokio::test]
async fn a_post_that_cannot_be_told_is_sent_once() {
    for body in [
        r#"{"operationName":"A","extensions":{"persistedQuery":{"sha256Hash":"0"}}}"#,
        r#"{"query":"{ a }","query":"mutation { a }"}"#,
        r#"[{"query":"{ a }"},{"query":"mutation { a }"}]"#,
        "{ broken",
    ] {
        let (origin, asked) = answering(&[(JSON, FAILED), (JSON, GOOD)]).await;
        let sidecar = Sidecar::before(&origin, ", failure_if: {graphql_errors: on}, retry: {backoff: 0ms}").await;
        let mut client = sidecar.client().await;
        let (head, length) = ("POST /graphql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n", body.len());
        client.send(format!("{head}Content-Length: {length}\r\n\r\n{body}")).await;
        assert_eq!((client.reply().await.text().as_str(), asked.lock().unwrap().len()), (FAILED, 1), "{body}");
    }
}

/// A query over the body's limit is not kept, and what is not kept cannot be sent again.
#[tokio::test]
async fn a_query_over_the_limit_is_sent_once_and_has_no_name() {
    let (origin, asked) = answering(&[(JSON, FAILED), (JSON, GOOD)]).await;
    let rest = ", failure_if: {graphql_errors: on}, retry: {backoff: 0ms, body: 1KiB}";
    let sidecar = Sidecar::before(&origin, rest).await;
    let query = format!("query Long {{ a(x: \"{}\") }}", "x".repeat(2_000));
    assert_eq!(graphql(&sidecar, &query).await.text(), FAILED);
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert!(!sidecar.metrics().await.keys().any(|name| name.contains("graphql_operations_total{")));
}
