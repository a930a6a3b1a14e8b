//! The last good answer to the same request: when one is kept, and when it is given.

use std::{sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{AGE, AUTHORIZATION, CACHE_CONTROL, COOKIE, SET_COOKIE, VARY},
    request, response,
};
use http_body::Frame;

use super::given::Given;
use crate::{
    model::Outcome,
    policy::fallback::{LastGood as Settings, With},
    proxy::{
        answer::Answer,
        asked::Asked,
        call::Call,
        grpc::{Dialect, status},
        manner::Manner,
        tongue::Heard,
    },
    service::{Kept, Key, KeyBuilder, LastGood, Service},
};

/// A good answer in the making, to be kept for bad times.
#[derive(Debug)]
pub(in crate::proxy) struct Recording {
    store: Arc<LastGood>,
    key: Key,
    asked: HeaderMap,
    vary: Vec<HeaderName>,
    status: StatusCode,
    headers: HeaderMap,
    body: BytesMut,
    trailers: Option<HeaderMap>,
    max_body: usize,
    is_grpc: bool,
    at: Instant,
}

/// Begins to record an answer, if its service falls back to such, and it is one that may be given again.
pub(in crate::proxy) fn record(call: &Call, asked: &Asked, heard: &Heard, head: &response::Parts) -> Option<Recording> {
    let settings = settings(&call.service)?;
    // A grpc-status that is still to come is looked at when it has.
    let is_good = heard.due || heard.outcome == Outcome::Ok;
    let is_whole = head.status.is_success() && head.status != StatusCode::PARTIAL_CONTENT;
    if !is_good || !is_whole || asked.head.method == Method::HEAD {
        return None;
    }
    let forbids = |headers| says_no_store(headers) && !settings.force;
    if head.headers.contains_key(SET_COOKIE) || forbids(&head.headers) || forbids(&asked.head.headers) {
        return None;
    }
    let vary = vary(&head.headers)?;
    Some(Recording {
        store: call.worker.table.current().last_good().clone(),
        key: key(&call.service, settings, asked)?,
        asked: vary.iter().flat_map(|name| lines(&asked.head.headers, name)).collect(),
        vary,
        status: head.status,
        headers: head.headers.clone(),
        body: BytesMut::new(),
        trailers: None,
        max_body: settings.max_body,
        is_grpc: asked.terms.dialect.is_grpc(),
        at: call.worker.now(),
    })
}

impl Recording {
    /// A piece of the answer.
    pub(in crate::proxy) fn frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            if self.body.len() + data.len() <= self.max_body {
                // Copied: a piece may be a small part of a large buffer.
                self.body.extend_from_slice(data);
            } else {
                // One byte too many says that there is nothing to be kept.
                self.max_body = 0;
                self.body = BytesMut::zeroed(1);
            }
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }

    /// The answer is whole.
    pub(in crate::proxy) fn complete(self, outcome: Outcome) {
        let Self { store, key, asked, vary, status, headers, body, trailers, max_body, is_grpc, at } = self;
        let is_unary = || {
            let length = body.get(1..5).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
            length.is_some_and(|length| body.len() == 5 + length as usize)
        };
        let has_ended_well = || {
            let code = trailers.as_ref().or(Some(&headers)).and_then(status::of);
            !is_grpc || (code == Some(0) && is_unary())
        };
        if outcome == Outcome::Ok && body.len() <= max_body && has_ended_well() {
            store.keep(key, &asked, vary, Kept { status, headers, body: body.freeze(), trailers, at });
        }
    }
}

/// The last good answer to what was asked.
pub(super) fn find(call: &Call, settings: &Settings, asked: &Asked, manner: &Manner) -> Option<Response<Answer>> {
    if says_no_store(&asked.head.headers) && !settings.force {
        return None;
    }
    let key = key(&call.service, settings, asked)?;
    let (store, now) = (call.worker.table.current().last_good().clone(), call.worker.now());
    let kept = store.find(key, &asked.head.headers, settings.age, now)?;
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = kept.status;
    head.headers = kept.headers.clone();
    let age = now.saturating_duration_since(kept.at).as_secs() + said_age(&kept.headers);
    head.headers.insert(AGE, HeaderValue::from(age));
    Some(Given { head, body: kept.body.clone(), trailers: kept.trailers.clone() }.render(asked, manner))
}

/// Whether a request's body is part of what is asked.
pub(super) fn needs_body(settings: &Settings, asked: &Asked) -> bool {
    let is_safe = matches!(asked.head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    asked.terms.dialect.is_grpc() || (!is_safe && settings.force)
}

/// What a service's fallback says of last good answers.
fn settings(service: &Service) -> Option<&Settings> {
    service.fallbacks().steps().iter().find_map(|step| match &step.step.with {
        With::LastGood(settings) => Some(settings),
        _ => None,
    })
}

/// What makes another request the same as this one; `None` for one whose answer is for once only.
fn key(service: &Service, settings: &Settings, asked: &Asked) -> Option<Key> {
    let request::Parts { method, uri, headers, .. } = &asked.head;
    let is_grpc = asked.terms.dialect.is_grpc();
    let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !(is_grpc || is_safe || settings.force) {
        return None;
    }
    // What is asked for by HEAD is what GET gets, less its body.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let kind: &[u8] = match asked.terms.dialect {
        Dialect::Http => b"http",
        Dialect::Grpc | Dialect::GrpcWeb { .. } => b"grpc",
    };
    let authority = headers.get(http::header::HOST).map_or(b"".as_slice(), HeaderValue::as_bytes);
    let authority = uri.authority().map_or(authority, |authority| authority.as_str().as_bytes());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut key =
        KeyBuilder::new().with(service.name().as_str().as_bytes()).with(kind).with(method.as_str().as_bytes());
    key = key.with(authority).with(path.as_bytes()).with_header(headers, &AUTHORIZATION).with_header(headers, &COOKIE);
    if is_grpc || !is_safe {
        // The message is part of what is asked.
        key = asked.upload.whole()?.iter().fold(key, |key, piece| key.with_more(piece));
    }
    if headers.contains_key(http::header::RANGE) {
        return None;
    }
    Some(key.build())
}

/// The request's headers that an answer varies by; `None` when it varies by more than that.
fn vary(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for line in headers.get_all(VARY) {
        for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            names.push(HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| name != "*")?);
        }
    }
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Some(names)
}

fn lines<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'a {
    headers.get_all(name).iter().map(move |value| (name.clone(), value.clone()))
}

fn says_no_store(headers: &HeaderMap) -> bool {
    let directives = headers.get_all(CACHE_CONTROL).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    directives.map(<[u8]>::trim_ascii).any(|directive| directive.eq_ignore_ascii_case(b"no-store"))
}

/// How old an answer was when it came.
fn said_age(headers: &HeaderMap) -> u64 {
    headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).unwrap_or(0)
}
