//! What only the access log wants to know of a call.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, Response, header::HOST, request::Parts};

use super::{Failure, answer::Answer, connection::Peer, upload::Progress};
use crate::{
    model::Outcome,
    telemetry::{AccessLog, access_log::Record},
};

/// A line in the making.
#[derive(Debug)]
pub(super) struct Note {
    log: AccessLog,
    at: SystemTime,
    method: Method,
    path: String,
    host: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    peer: Option<SocketAddr>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) status: Option<u16>,
    pub(super) details: Option<String>,
    pub(super) upload: Option<Rc<Progress>>,
    /// Of a tunnel; an upload counts for itself.
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Note {
    /// What the head of the request tells.
    pub(super) fn of(log: &AccessLog, head: &Parts, peer: &Peer) -> Self {
        Self {
            path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            host: head.headers.get(HOST).cloned(),
            request_id: head.headers.get("x-request-id").cloned(),
            ..Self::begun(log, head.method.clone(), peer.addr)
        }
    }

    /// Of a connection that carries no HTTP: its method is `TCP`.
    pub(super) fn of_connection(log: &AccessLog, peer: Option<SocketAddr>) -> Self {
        Self::begun(log, Method::from_bytes(b"TCP").expect("three letters are a token"), peer)
    }

    fn begun(log: &AccessLog, method: Method, peer: Option<SocketAddr>) -> Self {
        Self {
            log: log.clone(),
            at: SystemTime::now(),
            method,
            path: String::new(),
            host: None,
            request_id: None,
            peer,
            endpoint: None,
            status: None,
            details: None,
            upload: None,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// What a local reply says.
    pub(super) fn reply(&mut self, reply: &Response<Answer>, failure: &Failure) {
        self.status = Some(reply.status().as_u16());
        self.details = Some(failure.detail.to_string());
        self.bytes_out = http_body::Body::size_hint(reply.body()).exact().unwrap_or(0);
    }

    /// The call has ended: writes the line.
    pub(super) fn record(&self, service: Option<&str>, outcome: Outcome, duration: Duration, attempts: u32) {
        self.log.record(&Record {
            at: self.at,
            service,
            method: &self.method,
            path: &self.path,
            host: self.host.as_ref().map_or(b"", HeaderValue::as_bytes),
            status: self.status,
            outcome,
            details: self.details.as_deref(),
            duration,
            attempts,
            endpoint: self.endpoint,
            bytes_in: self.upload.as_ref().map_or(self.bytes_in, |upload| upload.bytes()),
            bytes_out: self.bytes_out,
            peer: self.peer,
            request_id: self.request_id.as_ref().map(HeaderValue::as_bytes),
        });
    }
}
