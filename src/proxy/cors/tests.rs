//! What browsers send, and what they need to see.

use std::{sync::Arc, time::Duration};

use super::*;

const SHOP: &str = "https://shop.example";

fn cors(origins: &[&str], credentials: bool) -> Cors {
    let origins = origins.iter().map(|origin| Arc::from(*origin)).collect();
    Cors { origins, credentials, max_age: Duration::from_secs(3600) }
}

fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

/// What Chromium sends before a call of grpc-web's.
fn asking(origin: &'static str) -> HeaderMap {
    map(&[
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-grpc-web,x-user-agent"),
        ("sec-fetch-mode", "cors"),
    ])
}

fn decorated(
    cors: &Cors,
    dialect: Dialect,
    origin: &'static str,
    answer: &[(&'static str, &'static str)],
) -> HeaderMap {
    let mut answer = map(answer);
    decorate(cors, dialect, Some(&HeaderValue::from_static(origin)), &mut answer);
    answer
}

/// All that a list says, whatever lines it is written in.
fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter().flat_map(|line| line.to_str().unwrap().split(", ").map(str::to_owned));
    lines.collect()
}

#[test]
fn a_page_of_a_named_origin_may_call() {
    let answer = preflight(&cors(&["https://other.example", SHOP], false), &Method::OPTIONS, &asking(SHOP));
    let expected = map(&[
        ("access-control-allow-origin", SHOP),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "content-type,x-grpc-web,x-user-agent"),
        ("access-control-max-age", "3600"),
        ("vary", PREFLIGHT_VARY),
    ]);
    assert_eq!(answer, Some(expected));
}

#[test]
fn any_origin_is_a_star_and_never_with_cookies() {
    for credentials in [false, true] {
        let cors = cors(&["*"], credentials);
        let answer = preflight(&cors, &Method::OPTIONS, &asking(SHOP)).unwrap();
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
        let answer = decorated(&cors, Dialect::Grpc, SHOP, &[("access-control-allow-credentials", "true")]);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
        assert!(!answer.contains_key(VARY), "the same for all");
    }
}

#[test]
fn cookies_come_along_where_they_may() {
    let cors = cors(&[SHOP], true);
    let answer = preflight(&cors, &Method::OPTIONS, &asking(SHOP)).unwrap();
    assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    assert_eq!(decorated(&cors, Dialect::Http, SHOP, &[])[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
}

#[test]
fn what_is_no_preflight_or_of_another_origin_goes_on() {
    let cors = cors(&[SHOP], false);
    for origin in [
        "https://shop.example.evil",
        "https://shop.exampl",
        "http://shop.example",
        "https://shop.example:8443",
        "null",
        "",
    ] {
        assert_eq!(preflight(&cors, &Method::OPTIONS, &asking(origin)), None, "{origin}");
    }
    for method in [Method::POST, Method::GET, Method::HEAD] {
        assert_eq!(preflight(&cors, &method, &asking(SHOP)), None);
    }
    for missing in [ORIGIN, ACCESS_CONTROL_REQUEST_METHOD] {
        let mut headers = asking(SHOP);
        headers.remove(missing);
        assert_eq!(preflight(&cors, &Method::OPTIONS, &headers), None);
    }
    let mut odd = asking(SHOP);
    odd.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET, POST"));
    assert_eq!(preflight(&cors, &Method::OPTIONS, &odd), None);
}

#[test]
fn a_preflight_that_asks_for_no_header_or_in_two_lines_is_answered_alike() {
    let cors = cors(&[SHOP], false);
    let mut headers = asking(SHOP);
    headers.append(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("authorization"));
    let answer = preflight(&cors, &Method::OPTIONS, &headers).unwrap();
    assert_eq!(
        list(&answer, "access-control-allow-headers"),
        ["content-type,x-grpc-web,x-user-agent", "authorization"]
    );
    headers.remove(ACCESS_CONTROL_REQUEST_HEADERS);
    let answer = preflight(&cors, &Method::OPTIONS, &headers).unwrap();
    assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_HEADERS));
}

#[test]
fn ours_is_the_last_word_on_who_may_read() {
    let answer = decorated(
        &cors(&[SHOP], false),
        Dialect::Http,
        SHOP,
        &[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-origin", "https://other.example"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-total"),
            ("vary", "accept-encoding"),
        ],
    );
    assert_eq!(list(&answer, "access-control-allow-origin"), [SHOP]);
    assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    assert_eq!(list(&answer, "vary"), ["accept-encoding", "origin"]);
    let exposed = ["x-total", "grpc-status", "grpc-message", "grpc-status-details-bin", "proxy-status", "retry-after"];
    assert_eq!(list(&answer, "access-control-expose-headers"), exposed);
}

#[test]
fn a_grpc_web_app_reads_all_of_its_metadata() {
    let dialect = Dialect::GrpcWeb { text: false };
    let answer = [
        ("content-type", "application/grpc-web"),
        ("set-cookie", "a=b"),
        ("x-request-id", "7"),
        ("trace-bin", "AAEC"),
        ("vary", "Origin"),
    ];
    let answer = decorated(&cors(&[SHOP], false), dialect, SHOP, &answer);
    let exposed = list(&answer, "access-control-expose-headers");
    assert_eq!(&exposed[..2], ["x-request-id", "trace-bin"]);
    assert_eq!(exposed.len(), 7, "{exposed:?}");
    assert_eq!(list(&answer, "vary"), ["Origin"]);
    let plain = decorated(&cors(&[SHOP], false), Dialect::Http, SHOP, &[("x-request-id", "7")]);
    assert!(!list(&plain, "access-control-expose-headers").contains(&"x-request-id".to_owned()));
}

#[test]
fn an_answer_for_nobody_named_stays_the_services_own() {
    let cors = cors(&[SHOP], true);
    let own = [("access-control-allow-origin", "https://other.example"), ("access-control-expose-headers", "x")];
    let mut expected = map(&own);
    expected.insert(VARY, HeaderValue::from_static("origin"));
    assert_eq!(decorated(&cors, Dialect::Http, "https://other.example", &own), expected);
    let mut answer = map(&own);
    decorate(&cors, Dialect::GrpcWeb { text: true }, None, &mut answer);
    assert_eq!(answer, expected);
    assert_eq!(decorated(&cors, Dialect::Http, "null", &[("vary", "accept, *")]), map(&[("vary", "accept, *")]));
}

#[test]
fn an_origin_is_named_whatever_the_case() {
    let answer = decorated(&cors(&["https://Shop.Example"], false), Dialect::Http, SHOP, &[]);
    assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], SHOP, "as the browser writes it");
}
