//! How an app speaks, and so how it is answered: its HTTP, its dialect, the web page that it is.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header::ORIGIN, request::Parts};

use super::{answer::Answer, call::Call, cors, grpc::Dialect};
use crate::service::Service;

/// How one call is to be answered.
#[derive(Debug)]
pub(super) struct Manner {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) dialect: Dialect,
    /// The origin of the web page that calls, where the service wants to know.
    pub(super) origin: Option<HeaderValue>,
}

impl Manner {
    /// What the head of a request tells.
    pub(super) fn of(head: &Parts) -> Self {
        let dialect = Dialect::of(&head.method, &head.headers);
        Self { method: head.method.clone(), version: head.version, dialect, origin: None }
    }

    /// Remembers what CORS needs to know.
    pub(super) fn cors_of(&mut self, service: &Service, headers: &HeaderMap) {
        if service.config().policy.cors.is_some() {
            self.origin = headers.get(ORIGIN).cloned();
        }
    }

    /// Lets the page that called read the answer.
    pub(super) fn decorate(&self, call: &Call, headers: &mut HeaderMap) {
        if let Some(cors) = &call.service.config().policy.cors {
            cors::decorate(cors, self.dialect, self.origin.as_ref(), headers);
        }
    }
}

/// The answer to a browser's question whether a page may call (Fetch §3.3.6), if this is one that we answer.
pub(super) fn preflight(call: &Call, head: &Parts) -> Option<Response<Answer>> {
    let cors = call.service.config().policy.cors.as_ref()?;
    let headers = cors::preflight(cors, &head.method, &head.headers)?;
    let mut reply = Response::new(Answer::Empty);
    *reply.status_mut() = StatusCode::NO_CONTENT;
    *reply.headers_mut() = headers;
    Some(reply)
}
