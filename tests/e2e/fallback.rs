//! Fallbacks over real sockets: what is answered instead of a failure, to whom, and that it says so.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::support::{Held, Origin, Reply, Sidecar, free, ok};

/// An upstream that answers what its path and its caller say, until its switch is on: then it resets.
async fn fragile() -> (Origin, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let switch = broken.clone();
    let origin = Origin::scripted(move |mut exchange| {
        let broken = switch.clone();
        async move {
            while let Some(request) = exchange.request().await {
                if broken.load(Ordering::SeqCst) {
                    return exchange.reset();
                }
                let line = |name: &str| {
                    let line = request.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
                    line.and_then(|line| line.split_once(": ")).map_or("-", |(_, value)| value).to_owned()
                };
                let path = request.split(' ').nth(1).unwrap().to_owned();
                let body = format!("{path} {} {} {}", line("authorization"), line("cookie"), line("accept-language"));
                let more = match path.as_str() {
                    "/vary" => "vary: Accept-Language\r\n",
                    "/star" => "vary: *\r\n",
                    "/secret" => "cache-control: private, No-Store\r\n",
                    "/session" => "set-cookie: sid=1\r\n",
                    "/old" => "age: 7\r\n",
                    "/cut" => {
                        return exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf").await;
                    }
                    _ => "",
                };
                let status = if path == "/404" { "404 x" } else { "200 OK" };
                let length = body.len();
                let body = if request.starts_with("HEAD") { String::new() } else { body };
                exchange
                    .send(format!("HTTP/1.1 {status}\r\n{more}content-length: {length}\r\nx-own: 1\r\n\r\n{body}"))
                    .await;
            }
        }
    })
    .await;
    (origin, broken)
}

fn said(reply: &Reply) -> &str {
    reply.header("proxy-status").unwrap_or("-")
}

async fn get(sidecar: &Sidecar, path: &str, lines: &str) -> Reply {
    sidecar.client().await.get("a", path, lines).await
}

async fn count(sidecar: &Sidecar, series: &str) -> u64 {
    sidecar.metrics().await.get(series).copied().unwrap_or(0.0) as u64
}

/// istio/istio#20778, envoyproxy/envoy#18624: no default answer could be sent instead of an error when a breaker trips.
#[tokio::test]
async fn an_open_breaker_is_answered_by_a_default() {
    let origin = Origin::answering("HTTP/1.1 500 x\r\ncontent-length: 3\r\n\r\nbad").await;
    let rest = ", breaker: {min_calls: 2, window: 1h, open_for: 1h}, fallback: [{respond: {json: {state: unknown}}}]";
    let sidecar = Sidecar::before(&origin, rest).await;
    for _ in 0..2 {
        let reply = get(&sidecar, "/x", "").await;
        assert_eq!((reply.status, reply.text().as_str(), said(&reply)), (500, "bad", "-"), "its own error is its own");
    }
    let reply = get(&sidecar, "/x", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"state":"unknown"}"#));
    assert_eq!(said(&reply), "outrigger; fallback=respond; details=\"breaker_open\"");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    sidecar.settles("a", &[("upstream_error", 2), ("breaker_open", 1)]).await;
    assert_eq!(count(&sidecar, "outrigger_fallbacks_total{kind=\"respond\",service=\"a\"}").await, 1);
}

/// envoyproxy/envoy#1178: custom error responses were faked by an endpoint that led back to the proxy.
#[tokio::test]
async fn a_refused_connection_is_answered_with_status_headers_and_body() {
    let fixed = "{status: 203, headers: {x-degraded: yes}, body: 'sorry, later'}";
    let yaml = format!("services: {{a: {{static: ['{}'], fallback: [{{respond: {fixed}}}]}}}}", free());
    let sidecar = Sidecar::start(&yaml).await;
    let reply = get(&sidecar, "/x", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (203, "sorry, later"));
    assert_eq!((reply.header("x-degraded"), reply.header("content-length")), (Some("yes"), Some("12")));
    assert_eq!(said(&reply), "outrigger; fallback=respond; details=\"connect_refused\"");
    let mut client = sidecar.client().await;
    client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.reply_to_head().await;
    assert_eq!((head.status, head.header("content-length")), (203, Some("12")));
    assert_eq!(
        client.post("a", "/x", "order").await.text(),
        "sorry, later",
        "the connection lives on, and POST is answered"
    );
}

/// traefik/traefik#7113, #10152: a breaker should have another service answer.
#[tokio::test]
async fn another_service_answers_under_its_own_policy() {
    let (second, mut asked) = Origin::recording(ok("second")).await;
    let yaml = format!(
        "services: {{a: {{static: ['{}'], fallback: [{{service: b}}]}}, b: {{static: ['{}']}}}}",
        free(),
        second.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    let mut client = sidecar.client().await;
    let reply = client.post("a", "/order", "0123456789").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "second"));
    assert_eq!(said(&reply), "outrigger; fallback=service; details=\"connect_refused\"");
    let request = asked.recv().await.unwrap();
    assert!(request.starts_with("POST /order ") && request.ends_with("0123456789"), "{request}");
    assert!(request.to_ascii_lowercase().contains(&format!("host: {}", second.addr())), "{request}");
    sidecar.settles("a", &[("connect_refused", 1)]).await;
    sidecar.settles("b", &[("ok", 1)]).await;
}

#[tokio::test]
async fn a_chain_goes_on_to_whoever_can_answer() {
    let yaml = format!(
        "services: {{a: {{static: ['{}'], fallback: [{{last_good: on}}, {{service: b}}, {{respond: {{body: last}}}}]}}, b: {{static: ['{}']}}}}",
        free(),
        free()
    );
    let sidecar = Sidecar::start(&yaml).await;
    let reply = get(&sidecar, "/x", "").await;
    assert_eq!(
        (reply.text().as_str(), said(&reply)),
        ("last", "outrigger; fallback=respond; details=\"connect_refused\"")
    );
    assert_eq!(
        count(&sidecar, "outrigger_fallback_refused_total{kind=\"last_good\",service=\"a\",why=\"nothing\"}").await,
        1
    );
    sidecar.settles("b", &[("connect_refused", 1)]).await;
    // The fallback of a fallback.
    let yaml = format!(
        "services: {{a: {{static: ['{}'], fallback: [{{service: b}}]}}, b: {{static: ['{}'], fallback: [{{respond: {{body: of b}}}}]}}}}",
        free(),
        free()
    );
    let sidecar = Sidecar::start(&yaml).await;
    let reply = get(&sidecar, "/x", "").await;
    assert_eq!(reply.text(), "of b");
}

#[tokio::test]
async fn reasons_can_be_chosen() {
    let (origin, broken) = fragile().await;
    let chain = "[{respond: {body: open}, on: [breaker_open]}, {respond: {body: reset}, on: upstream_reset}]";
    let sidecar = Sidecar::before(&origin, &format!(", fallback: {chain}")).await;
    broken.store(true, Ordering::SeqCst);
    assert_eq!(get(&sidecar, "/x", "").await.text(), "reset");
    drop(origin);
    let reply = get(&sidecar, "/x", "").await;
    assert_eq!((reply.status, reply.reason().as_str()), (502, "connect_refused"));
}

#[tokio::test]
async fn an_upstream_s_own_error_is_replaced_where_the_file_says_so() {
    let origin = Origin::answering("HTTP/1.1 503 x\r\ncontent-length: 3\r\n\r\nbad").await;
    let sidecar = Sidecar::before(&origin, ", fallback: [{respond: {body: fine}, on: [upstream_error]}]").await;
    let reply = get(&sidecar, "/x", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "fine"));
    assert_eq!(said(&reply), "outrigger; fallback=respond; details=\"upstream_error\"");
    sidecar.settles("a", &[("upstream_error", 1)]).await;
}

#[tokio::test]
async fn the_last_good_answer_is_given_with_its_age_and_only_on_failure() {
    let (origin, broken) = fragile().await;
    let sidecar = Sidecar::before(&origin, ", fallback: [{last_good: on}]").await;
    assert_eq!(get(&sidecar, "/x?q=1", "").await.header("age"), None);
    assert_eq!(get(&sidecar, "/old", "").await.header("age"), Some("7"));
    assert_eq!(get(&sidecar, "/x?q=1", "").await.status, 200);
    assert_eq!(origin.requests(), 3, "it is no cache");
    broken.store(true, Ordering::SeqCst);
    let reply = get(&sidecar, "/x?q=1", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "/x?q=1 - - -"));
    assert_eq!(
        (reply.header("x-own"), reply.header("age").map(|age| age.parse::<u64>().is_ok())),
        (Some("1"), Some(true))
    );
    assert_eq!(said(&reply), "outrigger; fallback=last_good; details=\"upstream_reset\"");
    assert!(get(&sidecar, "/old", "").await.header("age").unwrap().parse::<u64>().unwrap() >= 7);
    // HEAD is what GET would be, less its body.
    let mut client = sidecar.client().await;
    client.send("HEAD /x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.reply_to_head().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("12")));
    for path in ["/x?q=2", "/x", "/"] {
        assert_eq!(get(&sidecar, path, "").await.status, 502, "{path} was never asked for");
    }
    assert!(count(&sidecar, "outrigger_last_good_bytes").await > 0);
}

#[tokio::test]
async fn nobody_is_given_another_s_answer() {
    let (origin, broken) = fragile().await;
    let sidecar = Sidecar::before(&origin, ", fallback: [{last_good: on}]").await;
    let users =
        ["", "Authorization: a\r\n", "Authorization: b\r\n", "Cookie: a\r\n", "Authorization: a\r\nCookie: a\r\n"];
    let mut good = Vec::new();
    for user in users {
        good.push(get(&sidecar, "/x", user).await.text());
    }
    broken.store(true, Ordering::SeqCst);
    for (user, good) in users.iter().zip(&good) {
        assert_eq!(get(&sidecar, "/x", user).await.text(), *good, "{user}");
    }
    for stranger in ["Authorization: c\r\n", "Cookie: b\r\n", "Cookie: a\r\nCookie: a\r\n", "Authorization: ab\r\n"] {
        assert_eq!(get(&sidecar, "/x", stranger).await.status, 502, "{stranger}");
    }
}

#[tokio::test]
async fn answers_that_vary_are_told_apart() {
    let (origin, broken) = fragile().await;
    let sidecar = Sidecar::before(&origin, ", fallback: [{last_good: on}]").await;
    for language in ["de", "en"] {
        get(&sidecar, "/vary", &format!("Accept-Language: {language}\r\n")).await;
    }
    get(&sidecar, "/star", "").await;
    broken.store(true, Ordering::SeqCst);
    for language in ["de", "en"] {
        let reply = get(&sidecar, "/vary", &format!("Accept-Language: {language}\r\n")).await;
        assert_eq!(reply.text(), format!("/vary - - {language}"));
    }
    assert_eq!(get(&sidecar, "/vary", "Accept-Language: fr\r\n").await.status, 502);
    assert_eq!(get(&sidecar, "/star", "").await.status, 502);
}

#[tokio::test]
async fn what_must_not_be_kept_is_not() {
    let (origin, broken) = fragile().await;
    let sidecar = Sidecar::before(&origin, ", fallback: [{last_good: {max_body: 20B}}]").await;
    for path in ["/secret", "/session", "/404", "/cut", "/much-too-long-for-that-limit"] {
        get(&sidecar, path, "").await;
    }
    get(&sidecar, "/x", "Cache-Control: no-store\r\n").await;
    assert_eq!(sidecar.client().await.post("a", "/posted", "1").await.status, 200);
    broken.store(true, Ordering::SeqCst);
    for path in ["/secret", "/session", "/404", "/cut", "/much-too-long-for-that-limit", "/x"] {
        assert_eq!(get(&sidecar, path, "").await.status, 502, "{path}");
    }
    assert_eq!(sidecar.client().await.post("a", "/posted", "1").await.status, 502);
}

#[tokio::test]
async fn force_keeps_what_is_not_safe_by_its_body() {
    let (origin, broken) = fragile().await;
    let sidecar = Sidecar::before(&origin, ", fallback: [{last_good: {force: on}}]").await;
    assert_eq!(sidecar.client().await.post("a", "/search", "query one").await.status, 200);
    assert_eq!(get(&sidecar, "/secret", "").await.status, 200);
    broken.store(true, Ordering::SeqCst);
    assert_eq!(sidecar.client().await.post("a", "/search", "query one").await.status, 200);
    assert_eq!(sidecar.client().await.post("a", "/search", "query two").await.status, 502);
    assert_eq!(get(&sidecar, "/secret", "").await.status, 200);
}

#[tokio::test]
async fn the_store_stays_within_its_limit_over_all_services() {
    let (origin, broken) = fragile().await;
    let yaml = format!(
        "limits: {{last_good: 10KiB}}\nservices: {{a: {{static: ['{}'], fallback: [{{last_good: on}}]}}}}",
        origin.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    for n in 0..100 {
        get(&sidecar, &format!("/{n}"), "").await;
    }
    let held = count(&sidecar, "outrigger_last_good_bytes").await;
    assert!((1..=10 * 1024).contains(&held), "{held}");
    broken.store(true, Ordering::SeqCst);
    assert_eq!(
        (get(&sidecar, "/99", "").await.status, get(&sidecar, "/0", "").await.status),
        (200, 502),
        "the newest stay"
    );
}

#[tokio::test]
async fn a_step_answers_so_many_at_once_and_no_more() {
    let held = Held::start().await;
    let yaml = format!(
        "services: {{a: {{static: ['{}'], fallback: [{{service: b, max: 1}}, {{respond: {{body: full}}}}]}}, b: {{static: ['{}']}}}}",
        free(),
        held.addr()
    );
    let sidecar = Sidecar::start(&yaml).await;
    let mut first = sidecar.client().await;
    first.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    held.has_read(1).await;
    assert_eq!(get(&sidecar, "/x", "").await.text(), "full");
    assert_eq!(
        count(&sidecar, "outrigger_fallback_refused_total{kind=\"service\",service=\"a\",why=\"full\"}").await,
        1
    );
    held.release(1);
    assert_eq!(first.reply().await.status, 200);
    sidecar.settles("b", &[("ok", 1)]).await;
    let mut next = sidecar.client().await;
    next.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    held.has_read(2).await;
    held.release(1);
    assert_ne!(next.reply().await.text(), "full");
}

#[tokio::test]
async fn a_file_is_read_at_the_start_and_missed_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sorry.html");
    std::fs::write(&path, "<p>sorry").unwrap();
    let fixed = format!("{{file: '{}', headers: {{content-type: text/html}}}}", path.display());
    let yaml = format!("services: {{a: {{static: ['{}'], fallback: [{{respond: {fixed}}}]}}}}", free());
    let sidecar = Sidecar::start(&yaml).await;
    let reply = get(&sidecar, "/x", "").await;
    assert_eq!((reply.text().as_str(), reply.header("content-type")), ("<p>sorry", Some("text/html")));
}

#[tokio::test]
async fn the_app_s_own_faults_have_no_fallback() {
    let (origin, _) = fragile().await;
    let sidecar = Sidecar::before(&origin, ", fallback: [{respond: {body: no}}]").await;
    let reply = get(&sidecar, "/x", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n").await;
    assert_eq!(reply.status, 400);
}
