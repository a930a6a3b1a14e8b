//! Retries over real sockets: what is tried again, where, how often, and what never is.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{Client, Origin, Reply, Sidecar, eventually, free, ok};

/// What an upstream was asked, in order.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn push(&self, request: String) -> usize {
        let mut asked = self.0.lock().unwrap();
        asked.push(request);
        asked.len()
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A header of a request as it was read.
fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Answers the first requests with these, and then with 200: `reset` and `close` are what they say.
async fn failing_at_first(answers: &[&str]) -> (Origin, Asked) {
    let (asked, log) = (Asked::default(), Asked::default());
    let answers: Arc<[String]> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let seen = log.clone();
    let origin = Origin::scripted(move |mut exchange| {
        let (answers, asked, seen) = (answers.clone(), asked.clone(), seen.clone());
        async move {
            while let Some(request) = exchange.request().await {
                seen.push(request);
                match answers.get(asked.push(String::new()) - 1).map(String::as_str) {
                    None => exchange.send(ok("fine")).await,
                    Some("reset") => return exchange.reset(),
                    Some("close") => return,
                    Some("silence") => return exchange.closed().await,
                    Some(answer) if answer.starts_with("HTTP") => exchange.send(answer).await,
                    Some(status) => {
                        exchange.send(format!("HTTP/1.1 {status} x\r\ncontent-length: 4\r\n\r\nfail")).await;
                    }
                }
            }
        }
    })
    .await;
    (origin, log)
}

async fn sidecar(origin: &Origin, retry: &str) -> Sidecar {
    Sidecar::before(origin, &format!(", retry: {retry}")).await
}

async fn retries(sidecar: &Sidecar, reason: &str) -> u64 {
    let name = format!("outrigger_retries_total{{reason=\"{reason}\",service=\"a\"}}");
    sidecar.metrics().await.get(&name).copied().unwrap_or(0.0) as u64
}

async fn send(sidecar: &Sidecar, method: &str, lines: &str, body: &str) -> Reply {
    let mut client = sidecar.client().await;
    let length = body.len();
    client.send(format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{lines}\r\n{body}")).await;
    client.reply().await
}

#[tokio::test]
async fn a_failure_that_is_over_is_never_seen_by_the_app() {
    for (answer, reason) in
        [("503", "status"), ("500", "status"), ("502", "status"), ("reset", "reset"), ("close", "reset")]
    {
        let (origin, asked) = failing_at_first(&[answer, answer]).await;
        let sidecar = sidecar(&origin, "on").await;
        let reply = sidecar.get("a", "/x").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "fine"), "{answer}");
        let numbers: Vec<_> =
            asked.all().iter().map(|request| header(request, "x-outrigger-attempt").unwrap().to_owned()).collect();
        assert_eq!(numbers, ["1", "2", "3"], "{answer}");
        assert_eq!(retries(&sidecar, reason).await, 2, "{answer}");
        sidecar.settles("a", &[("ok", 1)]).await;
    }
}

#[tokio::test]
async fn the_last_failure_is_the_app_s() {
    let (origin, asked) = failing_at_first(&["503", "503", "500", "503"]).await;
    let sidecar = sidecar(&origin, "on").await;
    let reply = sidecar.get("a", "/x").await;
    assert_eq!((reply.status, reply.text().as_str(), asked.count()), (500, "fail", 3));
    sidecar.settles("a", &[("upstream_error", 1)]).await;
}

#[tokio::test]
async fn what_is_no_failure_is_not_tried_again() {
    for status in ["404", "429", "501", "505", "301"] {
        let (origin, asked) = failing_at_first(&[status]).await;
        let sidecar = sidecar(&origin, "on").await;
        assert_eq!(sidecar.get("a", "/x").await.status.to_string(), status);
        assert_eq!(asked.count(), 1, "{status}");
    }
}

#[tokio::test]
async fn statuses_can_be_named() {
    let (origin, asked) = failing_at_first(&["429", "503"]).await;
    let sidecar = sidecar(&origin, "{on: [429]}").await;
    assert_eq!((sidecar.get("a", "/x").await.status, asked.count()), (503, 2), "503 is not among them");
}

/// traefik/traefik#8990, #1104: a POST that failed was sent again, and the order was placed twice.
#[tokio::test]
async fn a_post_is_not_sent_twice_by_default() {
    for answer in ["503", "reset", "close"] {
        let (origin, asked) = failing_at_first(&[answer]).await;
        let sidecar = sidecar(&origin, "on").await;
        let reply = send(&sidecar, "POST", "", "order").await;
        assert_ne!(reply.status, 200, "{answer}");
        assert_eq!(asked.count(), 1, "{answer}");
    }
}

/// linkerd/linkerd2#4430, #6130: whatever had a body was never retried.
#[tokio::test]
async fn a_body_goes_out_again_from_its_beginning() {
    for (method, line) in
        [("PUT", ""), ("DELETE", ""), ("POST", "Idempotency-Key: \"7\"\r\n"), ("PATCH", "idempotency-key: 7\r\n")]
    {
        let (origin, asked) = failing_at_first(&["503", "reset"]).await;
        let sidecar = sidecar(&origin, "on").await;
        let body = "0123456789".repeat(2_000);
        assert_eq!(send(&sidecar, method, line, &body).await.status, 200, "{method}");
        for request in asked.all() {
            assert!(request.ends_with(&body), "{method}: the body is whole each time");
            assert_eq!(header(&request, "content-length"), Some("20000"));
        }
        assert_eq!(asked.count(), 3, "{method}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_sent_once() {
    let (origin, asked) = failing_at_first(&["503"]).await;
    let sidecar = sidecar(&origin, "{body: 16KiB}").await;
    let reply = send(&sidecar, "PUT", "", &"x".repeat(100_000)).await;
    assert_eq!((reply.status, asked.count()), (503, 1));
    let reply = send(&sidecar, "PUT", "", &"x".repeat(100)).await;
    assert_eq!((reply.status, asked.count()), (200, 2));
}

#[tokio::test]
async fn a_chunked_upload_that_still_streams_goes_to_both() {
    // The first endpoint answers before it has read the body.
    let (seen, second) = (Asked::default(), Arc::new(AtomicUsize::new(0)));
    let log = seen.clone();
    let origin = Origin::scripted(move |mut exchange| {
        let (log, second) = (log.clone(), second.clone());
        async move {
            exchange.head().await;
            if second.fetch_add(1, Ordering::SeqCst) == 0 {
                exchange.until(b"one\r\n").await;
                return exchange.send("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n").await;
            }
            let body = exchange.until(b"0\r\n\r\n").await.unwrap();
            log.push(String::from_utf8(body).unwrap());
            exchange.send(ok("fine")).await;
        }
    })
    .await;
    let sidecar = sidecar(&origin, "on").await;
    let mut client = sidecar.client().await;
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    eventually("the second attempt", async || origin.connections() == 2).await;
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(seen.all().concat().replace("\r\n", ""), "3one3two0");
}

/// Nothing was sent, so that any method may go elsewhere.
#[tokio::test]
async fn an_endpoint_that_refuses_connections_costs_no_call() {
    let origin = Origin::ok("fine").await;
    let yaml = format!(
        "services: {{a: {{static: ['{}', '{}'], balance: round_robin, retry: on, breaker: off}}}}",
        free(),
        origin.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    for _ in 0..6 {
        assert_eq!(send(&sidecar, "POST", "", "order").await.status, 200);
    }
    assert!(retries(&sidecar, "connect").await > 0, "one of the two was tried in vain");
}

#[tokio::test]
async fn another_endpoint_is_tried_before_the_same_again() {
    for _ in 0..4 {
        let (bad, asked) = failing_at_first(&["503"; 9]).await;
        let good = Origin::ok("fine").await;
        let yaml = format!("services: {{a: {{static: ['{}', '{}'], retry: on}}}}", bad.addr(), good.addr());
        let sidecar = Sidecar::start(&yaml).await;
        assert_eq!(sidecar.get("a", "/x").await.status, 200);
        assert!(asked.count() <= 1);
    }
}

#[tokio::test]
async fn off_is_off() {
    let (origin, asked) = failing_at_first(&["503"]).await;
    for retry in ["off", "1"] {
        let before = asked.count();
        let sidecar = sidecar(&origin, retry).await;
        sidecar.get("a", "/x").await;
        assert_eq!(asked.count(), before + 1);
    }
    assert!(asked.all()[0].contains("GET /x"));
}

/// Retries at each hop of a chain multiply: three attempts at each of three hops are twenty-seven calls.
#[tokio::test]
async fn the_retry_of_a_caller_s_sidecar_is_not_retried() {
    let (origin, asked) = failing_at_first(&["503", "503"]).await;
    let sidecar = sidecar(&origin, "on").await;
    let reply = sidecar.client().await.get("a", "/x", "x-outrigger-attempt: 2\r\n").await;
    assert_eq!((reply.status, asked.count()), (503, 1));
    assert_eq!(header(&asked.all()[0], "x-outrigger-attempt"), Some("2"));
    let reply = sidecar.client().await.get("a", "/x", "x-outrigger-attempt: 1\r\n").await;
    assert_eq!((reply.status, asked.count()), (200, 3));
}

#[tokio::test]
async fn two_sidecars_in_a_row_do_not_multiply() {
    let (origin, asked) = failing_at_first(&["503"; 20]).await;
    let inner = sidecar(&origin, "on").await;
    let yaml = format!("services: {{a: {{static: ['{}'], retry: on}}}}", inner.http());
    let outer = Sidecar::start(&yaml).await;
    assert_eq!(outer.get("a", "/x").await.status, 503);
    assert_eq!(asked.count(), 5, "three for the first attempt of the outer one, one for each of its retries");
}

/// envoyproxy/envoy#10869, istio/istio#42065: without a budget, retries are what takes a service down for good.
#[tokio::test]
async fn a_service_that_fails_altogether_gets_few_retries() {
    let (origin, asked) = failing_at_first(&["503"; 1_000]).await;
    let sidecar =
        Sidecar::before(&origin, ", retry: {backoff: 0ms, budget: 20%, min_per_second: 0}, breaker: off").await;
    let mut client = sidecar.client().await;
    for _ in 0..100 {
        assert_eq!(client.get("a", "/x", "").await.status, 503);
    }
    let extra = asked.count() - 100;
    assert!((15..=20).contains(&extra), "{extra} retries of 100 calls at 20 %");
    let exhausted = sidecar.metrics().await["outrigger_retry_budget_exhausted_total{service=\"a\"}"] as u64;
    assert!(exhausted >= 80, "{exhausted}");
}

#[tokio::test]
async fn a_breaker_that_opens_ends_the_retries_and_the_app_gets_what_there_is() {
    let (origin, asked) = failing_at_first(&["503"; 9]).await;
    let sidecar = Sidecar::before(&origin, ", retry: 5, breaker: {min_calls: 2, window: 1h, open_for: 1h}").await;
    let reply = sidecar.get("a", "/x").await;
    assert_eq!((reply.status, reply.text().as_str(), asked.count()), (503, "fail", 2), "its own 503, not ours");
    assert_eq!(sidecar.get("a", "/x").await.reason(), "breaker_open");
}

/// linkerd/linkerd2#3743: an attempt that timed out was the end of the call.
#[tokio::test]
async fn an_attempt_that_takes_too_long_is_made_again() {
    let (origin, asked) = failing_at_first(&["silence"]).await;
    let sidecar = Sidecar::before(&origin, ", retry: on, timeout: {attempt: 100ms}").await;
    assert_eq!((sidecar.get("a", "/x").await.status, asked.count()), (200, 2));
    assert_eq!(retries(&sidecar, "timeout").await, 1);
}

#[tokio::test]
async fn no_retry_begins_that_the_deadline_leaves_no_time_for() {
    let (origin, asked) = failing_at_first(&["503"]).await;
    let sidecar = Sidecar::before(&origin, ", retry: {backoff: 1h, max_backoff: 1h}").await;
    let reply = sidecar.get("a", "/x").await;
    assert_eq!(
        (reply.status, reply.text().as_str(), asked.count()),
        (503, "fail", 1),
        "at once, and not in ten seconds"
    );
}

#[tokio::test]
async fn an_endpoint_that_asks_for_time_gets_it() {
    let busy = "HTTP/1.1 503 x\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let (origin, asked) = failing_at_first(&[busy]).await;
    let sidecar = sidecar(&origin, "{backoff: 0ms}").await;
    let begun = tokio::time::Instant::now();
    assert_eq!((sidecar.get("a", "/x").await.status, asked.count()), (200, 2));
    assert!(begun.elapsed().as_millis() >= 1000, "no earlier than it was asked to");
    // More than the call has: then the answer is what there is.
    let busy = "HTTP/1.1 503 x\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n";
    let (origin, asked) = failing_at_first(&[busy]).await;
    let sidecar = self::sidecar(&origin, "{backoff: 0ms}").await;
    assert_eq!((sidecar.get("a", "/x").await.status, asked.count()), (503, 1));
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_taken_back() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    let origin = Origin::scripted(move |mut exchange| async move {
        exchange.request().await;
        exchange.send(half).await;
    })
    .await;
    let sidecar = sidecar(&origin, "on").await;
    let reply = sidecar.get("a", "/x").await;
    assert!(!reply.complete && reply.text() == "half" && origin.requests() == 1, "{reply:?}");
    sidecar.settles("a", &[("upstream_reset", 1)]).await;
}

#[tokio::test]
async fn an_app_that_goes_away_between_attempts_leaves_nothing_behind() {
    let (origin, asked) = failing_at_first(&["503"; 9]).await;
    let sidecar = Sidecar::before(&origin, ", retry: {backoff: 20s, max_backoff: 20s}, timeout: 1h, bulkhead: 1").await;
    let mut client = sidecar.client().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the first attempt", async || asked.count() == 1).await;
    drop(client);
    eventually("the place to be free", async || sidecar.view("a").await.bulkhead.unwrap().in_flight == 0).await;
}

#[tokio::test]
async fn connections_of_answers_that_were_given_up_are_used_again() {
    let (origin, asked) = failing_at_first(&["503", "500"]).await;
    let sidecar = sidecar(&origin, "{backoff: 0ms}").await;
    assert_eq!((sidecar.get("a", "/x").await.status, asked.count()), (200, 3));
    assert_eq!(origin.connections(), 1);
}

/// Whoever gets a deadline obeys it, and passes on what is left.
#[tokio::test]
async fn a_caller_s_deadline_shortens_and_is_passed_on() {
    let (origin, asked) = failing_at_first(&["503"]).await;
    let sidecar = sidecar(&origin, "on").await;
    let reply = sidecar.client().await.get("a", "/x", "x-request-timeout: 5s\r\n").await;
    assert_eq!(reply.status, 200);
    let left: Vec<u64> = asked.all().iter().map(|r| header(r, "x-request-timeout").unwrap().parse().unwrap()).collect();
    assert!(left[0] <= 5_000 && left[1] <= left[0] && left[1] > 0, "{left:?}");
    assert_eq!(header(&asked.all()[0], "x-request-timeout-scope"), None, "all of the call");
    // It never lengthens, and what only the policy says is for the head alone.
    for line in ["x-request-timeout: 1h\r\n", "x-request-timeout: soon\r\n", ""] {
        let before = asked.count();
        assert_eq!(sidecar.client().await.get("a", "/x", line).await.status, 200);
        let request = &asked.all()[before];
        let left: u64 = header(request, "x-request-timeout").unwrap().parse().unwrap();
        assert!(left <= 10_000 && left > 5_000, "{left}");
        assert_eq!(header(request, "x-request-timeout-scope"), Some("head"), "{line}");
    }
}

#[tokio::test]
async fn a_call_whose_time_is_over_is_never_sent() {
    let (origin, asked) = failing_at_first(&[]).await;
    let sidecar = sidecar(&origin, "on").await;
    let reply = sidecar.client().await.get("a", "/x", "x-request-timeout: 0\r\n").await;
    assert_eq!((reply.status, reply.reason().as_str(), asked.count()), (504, "request_timeout", 0));
}

#[tokio::test]
async fn a_caller_s_deadline_ends_an_answer_that_goes_on() {
    let origin = Origin::scripted(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
        exchange.closed().await;
    })
    .await;
    let sidecar = Sidecar::before(&origin, ", timeout: {idle: 1h}").await;
    let reply = sidecar.client().await.get("a", "/x", "x-request-timeout: 200ms\r\n").await;
    assert!(!reply.complete && reply.text() == "hello");
    sidecar.settles("a", &[("request_timeout", 1)]).await;
}

/// A connection that nobody serves: the pooled one that the origin closes is no attempt of its own.
#[tokio::test]
async fn keep_alive_races_are_no_retries_of_the_policy() {
    let (origin, _) = failing_at_first(&[]).await;
    let sidecar = sidecar(&origin, "1").await;
    let mut client = Client::connect(sidecar.http()).await;
    assert_eq!(client.get("a", "/x", "").await.status, 200);
    assert_eq!(client.get("a", "/x", "").await.status, 200);
    assert_eq!(retries(&sidecar, "reset").await, 0);
}
