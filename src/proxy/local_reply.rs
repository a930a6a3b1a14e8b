//! Answers that outrigger makes itself.
//!
//! Each says three times what happened, for three kinds of reader: the status and `Retry-After` for any
//! client, `Proxy-Status` (RFC 9209) for a tool that looks at headers, a problem document (RFC 9457) for a
//! person. All three come from one [`Reason`].

use bytes::Bytes;
use http::{
    HeaderValue, Method, Response, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER},
};
use serde::Serialize;

use super::{Failure, answer::Answer, grpc::status, manner::Manner};
use crate::model::Reason;

/// RFC 9209.
pub(super) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// RFC 9457 §3.1, with our own members `service` and `reason`.
#[derive(Serialize)]
struct Problem<'a> {
    status: u16,
    title: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    reason: &'static str,
}

/// The local reply to a call; `closing` also ends the app's connection, since what follows on it cannot be trusted.
pub(super) fn reply(failure: &Failure, service: Option<&str>, manner: &Manner, closing: bool) -> Response<Answer> {
    let mut response = match manner.dialect.content_type() {
        Some(content_type) => trailers_only(failure, content_type),
        None => problem(failure, service, &manner.method),
    };
    let headers = response.headers_mut();
    headers.insert(PROXY_STATUS, proxy_status(failure.reason));
    if let Some(seconds) = retry_after(failure) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if closing && manner.version != Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// gRPC's way: everything stands in the head, under a 200 (grpc/grpc, `doc/PROTOCOL-HTTP2.md`, "Trailers-Only").
fn trailers_only(failure: &Failure, content_type: HeaderValue) -> Response<Answer> {
    let code = failure.grpc_status.unwrap_or_else(|| failure.reason.grpc_status().into());
    let text = format!("{}: {}", failure.reason.as_str(), failure.detail);
    let mut response = Response::new(Answer::Empty);
    *response.headers_mut() = status::trailers(code, &text);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// HTTP's way: a status, and a problem document.
fn problem(failure: &Failure, service: Option<&str>, method: &Method) -> Response<Answer> {
    let body = body(failure, service);
    let mut response = Response::new(Answer::Empty);
    *response.status_mut() = failure.reason.http_status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if *method != Method::HEAD {
        *response.body_mut() = Answer::Local(Some(body));
    }
    response
}

/// The same as bytes of HTTP/1.1, for a connection that hyper has given up.
pub(super) fn raw(failure: &Failure) -> Vec<u8> {
    let (status, body) = (failure.reason.http_status(), body(failure, None));
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nproxy-status: {}\r\n\
         connection: close\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
        proxy_status_text(failure.reason),
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

fn body(failure: &Failure, service: Option<&str>) -> Bytes {
    let problem = Problem {
        status: failure.reason.http_status().as_u16(),
        title: failure.reason.title(),
        detail: &failure.detail,
        service,
        reason: failure.reason.as_str(),
    };
    let mut json = serde_json::to_vec(&problem).expect("texts and a number always serialise");
    json.push(b'\n');
    json.into()
}

fn proxy_status_text(reason: Reason) -> String {
    format!("outrigger; error={}; details=\"{}\"", reason.proxy_error(), reason.as_str())
}

fn proxy_status(reason: Reason) -> HeaderValue {
    HeaderValue::from_str(&proxy_status_text(reason)).expect("the words of the failure table are plain ASCII")
}

/// Whole seconds, rounded up, as RFC 9110 §10.2.3 wants them; at least one.
fn retry_after(failure: &Failure) -> Option<u64> {
    let after = failure.retry_after?;
    Some((after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proxy::grpc::Dialect;

    fn manner(method: Method, dialect: Dialect) -> Manner {
        Manner { method, version: Version::HTTP_11, dialect, origin: None }
    }

    #[test]
    fn a_grpc_call_gets_trailers_only() {
        for reason in Reason::ALL {
            let failure =
                Failure { retry_after: Some(Duration::from_millis(1200)), ..Failure::new(reason, "\u{fc}ber") };
            let response = reply(&failure, Some("orders"), &manner(Method::POST, Dialect::Grpc), true);
            assert_eq!(
                (response.status().as_u16(), response.headers()[CONTENT_TYPE].as_bytes()),
                (200, &b"application/grpc"[..])
            );
            assert!(matches!(response.body(), Answer::Empty));
            assert_eq!(response.headers()["grpc-status"], reason.grpc_status().to_string());
            assert_eq!(response.headers()["grpc-message"], format!("{}: %C3%BCber", reason.as_str()));
            assert!(response.headers()[PROXY_STATUS].to_str().unwrap().contains(reason.as_str()));
            assert_eq!(response.headers()[RETRY_AFTER], "2");
        }
    }

    #[test]
    fn a_reset_stream_is_told_by_its_code() {
        let failure = Failure { grpc_status: Some(8), ..Failure::new(Reason::UpstreamReset, "calm down") };
        let response = reply(&failure, None, &manner(Method::POST, Dialect::Grpc), false);
        assert_eq!(response.headers()["grpc-status"], "8");
    }

    #[test]
    fn a_reply_says_the_same_thing_three_times() {
        for reason in Reason::ALL {
            let failure = Failure { retry_after: Some(Duration::from_millis(1200)), ..Failure::new(reason, "why") };
            let response = reply(&failure, Some("orders"), &manner(Method::GET, Dialect::Http), false);
            assert_eq!(response.status(), reason.http_status());
            let status = response.headers()[PROXY_STATUS].to_str().unwrap();
            assert_eq!(status, format!("outrigger; error={}; details=\"{}\"", reason.proxy_error(), reason.as_str()));
            assert_eq!(response.headers()[RETRY_AFTER], "2");
            let Answer::Local(Some(body)) = response.body() else { panic!("a body") };
            let problem: serde_json::Value = serde_json::from_slice(body).unwrap();
            assert_eq!(problem["status"], reason.http_status().as_u16());
            assert_eq!(problem["reason"], reason.as_str());
            assert_eq!(problem["service"], "orders");
            assert_eq!(problem["detail"], "why");
        }
    }

    #[test]
    fn a_head_request_gets_the_length_but_no_body() {
        let response =
            reply(&Failure::new(Reason::NoEndpoints, "none"), None, &manner(Method::HEAD, Dialect::Http), false);
        assert!(matches!(response.body(), Answer::Empty));
        assert!(response.headers()[CONTENT_LENGTH].to_str().unwrap().parse::<u64>().unwrap() > 50);
    }

    #[test]
    fn raw_bytes_carry_the_same_body() {
        let failure = Failure::new(Reason::BadRequest, "no HTTP");
        let raw = String::from_utf8(raw(&failure)).unwrap();
        let (head, sent) = raw.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"));
        assert!(head.contains(&format!("content-length: {}", sent.len())));
        assert_eq!(sent.as_bytes(), body(&failure, None));
    }
}
