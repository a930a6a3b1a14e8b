//! One call, from its head to its outcome: the order of the policies stands here.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Version,
    header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, VIA},
    request::Parts,
};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};

use super::{
    Failure,
    alarm::Alarm,
    answer::Answer,
    attempt::{self, Attempted},
    connection::{HEAD_TOO_LARGE, Peer},
    entry::{self, Routed},
    head_scan::HeadFault,
    headers, local_reply, upgrade,
    upload::{Gate, GateKey, Progress, Upload, UploadFailure},
    worker::Worker,
};
use crate::{
    model::{Outcome, Reason},
    policy::{balance, deadline::Deadline},
    service::{Permit, Service},
    telemetry::{AccessLog, access_log::Record},
};

/// Everything known about one call under way. It ends with [`Call::end`]; one that is dropped before was
/// given up by its app.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) service: Arc<Service>,
    pub(super) deadline: Deadline,
    pub(super) attempts: u32,
    pub(super) worker: Rc<Worker>,
    started: Instant,
    permit: Option<Permit>,
    note: Option<Box<Note>>,
    ended: bool,
}

/// What only the access log wants to know.
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
    pub(super) bytes_out: u64,
}

/// What goes upstream: a request that knows all about its own next hop.
pub(super) struct Outgoing {
    pub(super) head: Parts,
    pub(super) upload: Upload,
    pub(super) progress: Option<Rc<Progress>>,
    /// Whether the Host is the app's own, or the endpoint's to be.
    pub(super) host_names_service: bool,
    pub(super) hash_key: Option<u64>,
    /// The app asked for another protocol.
    pub(super) upgrade: Option<OnUpgrade>,
    /// Opened when the endpoint says "100 Continue".
    pub(super) expects: Option<GateKey>,
}

/// Serves one request, always with an answer.
pub(super) async fn serve(worker: &Rc<Worker>, peer: &Peer, request: Request<Incoming>) -> Response<Answer> {
    let started = worker.now();
    let (mut head, body) = request.into_parts();
    let fault = peer.wire.call_begins(!body.is_end_stream());
    let (routed, note) = {
        let services = worker.table.current();
        let note = services.traffic().access_log.as_ref().map(|log| Box::new(Note::of(log, &head, peer)));
        let routed = admissible(worker, &head, fault);
        (routed.and_then(|()| entry::route(&peer.entry, &mut head, &services)), note)
    };
    let Routed { service, host_names_service } = match routed {
        Ok(routed) => routed,
        Err(failure) => return refuse_unattributed(worker, peer, &head, started, note, &failure),
    };

    let (method, version) = (head.method.clone(), head.version);
    let deadline = Deadline::starting(started, &service.config().policy.timeout);
    let mut call =
        Call { service, deadline, attempts: 0, worker: worker.clone(), started, permit: None, note, ended: false };
    let outgoing = prepare(&mut call, peer, head, body, host_names_service);
    match journey(&mut call, outgoing, &peer.alarm).await {
        Ok(attempted) => relay(call, attempted, peer, version),
        // A fallback, once there are any, is tried here.
        Err(failure) => {
            peer.wire.answer_ended();
            let reply = local_reply::reply(&failure, Some(call.service.name().as_str()), &method, false);
            call.note_reply(&reply, &failure);
            let now = worker.now();
            call.end(now, failure.outcome);
            reply
        }
    }
}

/// What can be said against a request before it is known whom it is for.
fn admissible(worker: &Worker, head: &Parts, fault: Option<HeadFault>) -> Result<(), Failure> {
    let refuse = |reason, detail| Err(Failure::new(reason, detail));
    match fault {
        None => {}
        Some(HeadFault::Conflict) => {
            return refuse(Reason::BadRequest, "the request has both Transfer-Encoding and Content-Length");
        }
        Some(HeadFault::TooLong) => return refuse(Reason::BadRequest, HEAD_TOO_LARGE),
    }
    if !headers::is_plainly_chunked(&head.headers) {
        return refuse(Reason::BadRequest, "the request has a Transfer-Encoding other than chunked");
    }
    if headers::has_been_here(&head.headers, &worker.pseudonym) {
        return refuse(Reason::Loop, "the request has passed this sidecar before: an endpoint leads back to it");
    }
    Ok(())
}

/// Answers a call that belongs to no service. What is malformed also ends its connection: where the next
/// request begins is anybody's guess.
fn refuse_unattributed(
    worker: &Worker,
    peer: &Peer,
    head: &Parts,
    started: Instant,
    note: Option<Box<Note>>,
    failure: &Failure,
) -> Response<Answer> {
    peer.wire.answer_ended();
    let closing = failure.reason == Reason::BadRequest;
    let reply = local_reply::reply(failure, None, &head.method, closing);
    let outcome = Outcome::Failed(failure.reason);
    worker.count_unattributed(outcome);
    if let Some(mut note) = note {
        note.reply(&reply, failure);
        note.record(None, outcome, worker.now().saturating_duration_since(started), 0);
    }
    reply
}

/// Turns the app's request into the one that goes upstream.
fn prepare(call: &mut Call, peer: &Peer, mut head: Parts, body: Incoming, host_names_service: bool) -> Outgoing {
    let policy = &call.service.config().policy;
    let hash_key = match &policy.balance {
        balance::Settings::Hash(key) => hash_key(key, &head),
        _ => None,
    };
    let hop = headers::strip_hop(&mut head.headers);
    head.headers.append(VIA, call.worker.via.clone());
    head.version = Version::HTTP_11;
    let upgrade = hop.upgrade.and_then(|protocol| {
        headers::ask_upgrade(&mut head.headers, protocol);
        head.extensions.remove::<OnUpgrade>()
    });
    head.extensions.clear();
    let (upload, progress, expects) = if body.is_end_stream() {
        (Upload::Empty, None, None)
    } else {
        let expects = head.headers.get(EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let (gate, key) = expects.then(Gate::closed).unzip();
        if !head.headers.contains_key(CONTENT_LENGTH) {
            // Said outright: without it hyper takes a GET's body of unknown length for none.
            head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let (upload, progress) = Upload::streaming(body, peer.wire.clone(), policy.timeout.idle, gate);
        (upload, Some(progress), key)
    };
    if let Some(note) = &mut call.note {
        note.upload = progress.clone();
    }
    Outgoing { head, upload, progress, host_names_service, hash_key, upgrade, expects }
}

/// The policies, in their order. Whatever is refused or fails on the way leaves as a [`Failure`].
async fn journey(call: &mut Call, outgoing: Outgoing, alarm: &Alarm) -> Result<Attempted, Failure> {
    let mut now = call.started;
    if let Some(bulkhead) = call.service.bulkhead() {
        match attempt::within(&call.worker, alarm, None, None, bulkhead.admit(call.deadline.head())).await {
            Ok(Ok(permit)) => call.permit = Some(permit),
            // Waiting is part of the call's time, and here it was all of it: the check below says so.
            Ok(Err(_)) if call.deadline.is_over(call.worker.now()) => {}
            Ok(Err(_)) => {
                let detail = "as many calls as the bulkhead admits are outstanding";
                return Err(Failure::new(Reason::BulkheadFull, detail));
            }
            Err(_) => {
                let detail = "the sidecar stopped while the call waited for a place in the bulkhead";
                return Err(Failure::new(Reason::ShuttingDown, detail));
            }
        }
    }
    if call.may_have_waited() {
        now = call.worker.now();
    }
    if call.deadline.is_over(now) {
        return Err(Failure::new(Reason::RequestTimeout, "the time for this call was over before it could be sent"));
    }
    // Retries, once there are any, loop here: each attempt asks the breaker again.
    attempt::run(call, outgoing, alarm, now).await
}

/// Hands the answer's head to the app, and the rest of the call to the answer's body.
fn relay(mut call: Call, mut attempted: Attempted, peer: &Peer, version: Version) -> Response<Answer> {
    let (mut head, body) = attempted.response.into_parts();
    let hop = headers::strip_hop(&mut head.headers);
    let close_delimited = version < Version::HTTP_11 && body.size_hint().exact().is_none();
    // The version tells hyper, too, whether it may promise to keep the connection of an HTTP/1.0 app.
    head.version = if close_delimited { Version::HTTP_10 } else { Version::HTTP_11 };
    if let Some(note) = &mut call.note {
        note.status = Some(head.status.as_u16());
        note.endpoint = Some(attempted.attempt.endpoint());
    }
    if let (Some(downstream), Some(protocol)) = (attempted.upgrade, hop.upgrade) {
        headers::ask_upgrade(&mut head.headers, protocol);
        peer.wire.becomes_tunnel();
        upgrade::spawn(call, attempted.attempt, peer.open.clone(), downstream, head.extensions.remove::<OnUpgrade>());
        return Response::from_parts(head, Answer::Empty);
    }
    let outcome = Outcome::of_status(head.status);
    if attempted.attempt.is_probe() && is_event_stream(&head.headers) {
        // Such an answer is not meant to end, and a half-open breaker not meant to wait for that.
        attempted.attempt.settle(call.worker.now(), outcome);
    }
    let answer = Answer::relay(body, call, attempted.attempt, attempted.connection, attempted.progress, peer, outcome);
    Response::from_parts(head, answer)
}

/// Server-sent events (HTML Living Standard §9.2).
fn is_event_stream(headers: &HeaderMap) -> bool {
    let essence = |value: &HeaderValue| {
        let media = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
        media.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    headers.get(http::header::CONTENT_TYPE).is_some_and(essence)
}

/// The number that a request's key hashes to; a request without the key has none.
fn hash_key(key: &balance::HashKey, head: &Parts) -> Option<u64> {
    let value = match key {
        balance::HashKey::Header(name) => head.headers.get(name)?.as_bytes(),
        balance::HashKey::Cookie(name) => cookie(&head.headers, name)?,
        balance::HashKey::Path => head.uri.path().as_bytes(),
    };
    Some(balance::hash_key(value))
}

/// A cookie's value (RFC 6265 §4.2.1).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(http::header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

impl Call {
    /// The call is over: its place in the bulkhead is free, its outcome counted and logged.
    pub(super) fn end(mut self, now: Instant, outcome: Outcome) {
        self.finish(now, outcome);
    }

    /// Writes down what a local reply says.
    fn note_reply(&mut self, reply: &Response<Answer>, failure: &Failure) {
        if let Some(note) = &mut self.note {
            note.reply(reply, failure);
        }
    }

    /// Where the access log's facts are gathered, when there is one.
    pub(super) fn note(&mut self) -> Option<&mut Note> {
        self.note.as_deref_mut()
    }

    /// Whether the bulkhead has a queue, so that time may have passed.
    fn may_have_waited(&self) -> bool {
        self.service.config().policy.bulkhead.as_ref().is_some_and(|bulkhead| bulkhead.queue > 0)
    }

    fn finish(&mut self, now: Instant, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.permit = None;
        let took = now.saturating_duration_since(self.started);
        self.service.call_ended(outcome, took);
        if let Some(note) = &self.note {
            note.record(Some(self.service.name().as_str()), outcome, took, self.attempts);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(self.worker.now(), Outcome::Cancelled);
        }
    }
}

impl Note {
    fn of(log: &AccessLog, head: &Parts, peer: &Peer) -> Self {
        Self {
            log: log.clone(),
            at: SystemTime::now(),
            method: head.method.clone(),
            path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            host: head.headers.get(HOST).cloned(),
            request_id: head.headers.get("x-request-id").cloned(),
            peer: peer.addr,
            endpoint: None,
            status: None,
            details: None,
            upload: None,
            bytes_out: 0,
        }
    }

    fn reply(&mut self, reply: &Response<Answer>, failure: &Failure) {
        self.status = Some(reply.status().as_u16());
        self.details = Some(failure.detail.to_string());
        self.bytes_out = http_body::Body::size_hint(reply.body()).exact().unwrap_or(0);
    }

    fn record(&self, service: Option<&str>, outcome: Outcome, duration: Duration, attempts: u32) {
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
            bytes_in: self.upload.as_ref().map_or(0, |upload| upload.bytes()),
            bytes_out: self.bytes_out,
            peer: self.peer,
            request_id: self.request_id.as_ref().map(HeaderValue::as_bytes),
        });
    }
}

/// What the app did wrong in its upload, as a failure of the call.
pub(super) fn upload_failure(failure: UploadFailure) -> Failure {
    match failure {
        UploadFailure::Idle => {
            Failure::new(Reason::RequestTimeout, "the app paused in its request body for longer than `idle` allows")
        }
        UploadFailure::Malformed(error) => {
            Failure::new(Reason::BadRequest, format!("the request's body is malformed: {error}"))
        }
        UploadFailure::Gone => Failure::gone("the app's connection ended before its request body did"),
    }
}
