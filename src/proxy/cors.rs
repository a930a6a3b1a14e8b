//! Pages of other origins (the Fetch standard, §3.3 "CORS protocol").
//!
//! A browser asks before it lets a page read another origin's answer, or send what a form could not. gRPC
//! services do not know that question, so a service's `cors` answers it for them: the preflight, and the
//! headers that let the page read.
//!
//! `cors` lets pages in and keeps nobody out. The preflight of an origin that it does not name goes on to
//! the service, and the answer comes back as the service wrote it: what a service allows by itself stays
//! allowed. For the origins that it names it has the last word, since a browser refuses an answer in which
//! two have spoken.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_LENGTH,
        CONTENT_TYPE, EXPIRES, LAST_MODIFIED, ORIGIN, PRAGMA, SET_COOKIE, VARY,
    },
};

use super::grpc::Dialect;
use crate::config::Cors;

/// What a page may always read: how a gRPC call went, and what a local reply says.
const EXPOSED: &str = "grpc-status, grpc-message, grpc-status-details-bin, proxy-status, retry-after";

/// What depends on the request in the answer to a preflight.
const PREFLIGHT_VARY: &str = "origin, access-control-request-method, access-control-request-headers";

/// The headers of the answer to a preflight: a 204 without a body. `None` for a request that is no preflight,
/// or of an origin that may not call; such a one goes on.
///
/// A page that may call may use any method and any header: which ones mean anything is the service's affair.
pub(super) fn preflight(cors: &Cors, method: &Method, headers: &HeaderMap) -> Option<HeaderMap> {
    if *method != Method::OPTIONS {
        return None;
    }
    let asked =
        headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|asked| Method::from_bytes(asked.as_bytes()).is_ok())?;
    let allowed = allowed(cors, headers.get(ORIGIN)?)?;
    let mut answer = HeaderMap::with_capacity(8);
    allow(cors, allowed, &mut answer);
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, asked.clone());
    for name in headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.append(ACCESS_CONTROL_ALLOW_HEADERS, name.clone());
    }
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age.as_secs()));
    answer.insert(VARY, HeaderValue::from_static(PREFLIGHT_VARY));
    Some(answer)
}

/// Lets the page that called read the answer, a local reply included. `origin` is the request's.
///
/// Replaces the service's own `Access-Control-Allow-Origin` and `-Credentials`; what it exposes stays exposed.
/// A gRPC-Web app may read all headers of its answers: they are its metadata. A request without an origin, or of one
/// that may not call, gets no more than the `Vary` that keeps its answer from being kept for others (Fetch,
/// "CORS protocol and HTTP caches").
pub(super) fn decorate(cors: &Cors, dialect: Dialect, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
    if !any_origin(cors) {
        vary_by_origin(answer);
    }
    let Some(allowed) = origin.and_then(|origin| allowed(cors, origin)) else { return };
    if matches!(dialect, Dialect::GrpcWeb { .. }) {
        expose_all(answer);
    }
    answer.append(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    allow(cors, allowed, answer);
}

/// What `Access-Control-Allow-Origin` says to a page of this origin, if it may call.
fn allowed(cors: &Cors, origin: &HeaderValue) -> Option<HeaderValue> {
    if any_origin(cors) {
        return Some(HeaderValue::from_static("*"));
    }
    let named = cors.origins.iter().any(|named| origin.as_bytes().eq_ignore_ascii_case(named.as_bytes()));
    named.then(|| origin.clone())
}

fn any_origin(cors: &Cors) -> bool {
    cors.origins.iter().any(|origin| &**origin == "*")
}

/// Who may read, and whether the user's cookies may come along. A `*` that allows cookies is no answer to a browser.
fn allow(cors: &Cors, allowed: HeaderValue, answer: &mut HeaderMap) {
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if cors.credentials && !any_origin(cors) {
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    } else {
        answer.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
    }
}

fn vary_by_origin(answer: &mut HeaderMap) {
    let names = answer.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let said = |name: &[u8]| name == b"*" || name.eq_ignore_ascii_case(b"origin");
    if !names.map(<[u8]>::trim_ascii).any(said) {
        answer.append(VARY, HeaderValue::from_static("origin"));
    }
}

/// Names every header of the answer that is not exposed, or out of a page's reach, anyway.
fn expose_all(answer: &mut HeaderMap) {
    let mut names = Vec::with_capacity(128);
    for name in answer.keys().filter(|name| !is_known_to_browsers(name)) {
        if !names.is_empty() {
            names.extend_from_slice(b", ");
        }
        names.extend_from_slice(name.as_str().as_bytes());
    }
    if !names.is_empty() {
        let names = HeaderValue::from_maybe_shared(Bytes::from(names)).expect("names of headers make a value");
        answer.append(ACCESS_CONTROL_EXPOSE_HEADERS, names);
    }
}

/// Fetch, "CORS-safelisted response-header name" and "forbidden response-header name", and the protocol's own.
fn is_known_to_browsers(name: &HeaderName) -> bool {
    matches!(
        *name,
        CACHE_CONTROL
            | CONTENT_LANGUAGE
            | CONTENT_LENGTH
            | CONTENT_TYPE
            | EXPIRES
            | LAST_MODIFIED
            | PRAGMA
            | SET_COOKIE
            | VARY
    ) || name.as_str().starts_with("access-control-")
}

#[cfg(test)]
mod tests;
