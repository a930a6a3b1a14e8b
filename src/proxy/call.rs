//! One call, from its head to its outcome: the order of the policies stands here.

use std::{cell::Cell, net::SocketAddr, pin::pin, rc::Rc, sync::Arc, time::Instant};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{EXPECT, VIA},
    request::Parts,
};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};

use super::{
    Failure,
    alarm::Lent,
    answer::Answer,
    asked::{Asked, Terms},
    attempt::{self, Attempted},
    coalesce::{self, Lead, Part},
    connect,
    connection::Peer,
    deadlines::{ATTEMPT, Limit},
    entry::{self, Routed},
    fallback::{self, Fallen},
    gate::Gate,
    graphql,
    grpc::Dialect,
    head_scan::HeadFault,
    headers,
    http1::HEAD_TOO_LARGE,
    local_reply,
    manner::{Manner, preflight},
    note::Note,
    priority, retry,
    tap::Tap,
    tunnel, upgrade,
    upload::{Upload, UploadFailure},
    worker::Worker,
};
use crate::{
    model::{Outcome, Reason},
    policy::{balance, bulkhead::Priority, deadline::Deadline},
    service::{News, Permit, Service},
};

/// How much of an upload is kept for a fallback, in bytes, when no retry says so.
const KEPT: usize = 64 * 1024;

/// Everything known about one call under way. It ends with [`Call::end`]; one that is dropped before was
/// given up by its app.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) service: Arc<Service>,
    pub(super) deadline: Deadline,
    /// How many attempts there have been, and where the last one went.
    pub(super) attempts: Cell<u32>,
    pub(super) endpoint: Cell<Option<SocketAddr>>,
    pub(super) worker: Rc<Worker>,
    started: Instant,
    permit: Option<Permit>,
    /// How much it matters when not all can be served.
    priority: Priority,
    /// When it was admitted, and when the head of its answer had come.
    admitted: Instant,
    answered: Option<Instant>,
    pub(super) alarm: Lent,
    note: Option<Box<Note>>,
    /// What its GraphQL operation is called.
    operation: Option<String>,
    ended: bool,
}

/// Serves one request, always with an answer.
pub(super) async fn serve(worker: &Rc<Worker>, peer: &Peer, request: Request<Incoming>) -> Response<Answer> {
    if *request.method() == Method::CONNECT {
        // Boxed, as it is rare and large.
        return Box::pin(connect::serve(worker, peer, request)).await;
    }
    let started = worker.now();
    let (mut head, body) = request.into_parts();
    let fault = peer.wire.as_ref().and_then(|wire| wire.call_begins(!body.is_end_stream()));
    let (routed, note) = {
        let services = worker.table.current();
        let note = services.traffic().access_log.as_ref().map(|log| Box::new(Note::of(log, &head, peer)));
        let routed = admissible(worker, peer, &head, fault, services.traffic().limits.headers);
        (routed.and_then(|()| entry::route(peer, &mut head, &services)), note)
    };
    let routed = match routed {
        Err(failure) if failure.wanted.is_some() => Box::pin(entry::route_made(worker, peer, &mut head, failure)).await,
        routed => routed,
    };
    let Routed { service, host_names_service } = match routed {
        Ok(routed) => routed,
        Err(failure) => return refuse_unattributed(worker, peer, &head, started, note, &failure),
    };

    let priority = priority::of(&service, &head);
    let mut manner = Manner::of(&head);
    manner.cors_of(&service, &head.headers);
    let mut call = Call::begin(worker, service, started, note);
    call.priority = priority;
    for limit in Limit::of(manner.dialect, &head.headers).into_iter().flatten() {
        call.deadline = limit.shorten(call.deadline, started);
    }
    if let Some(reply) = preflight(&call, &head) {
        peer.answer_ended();
        let now = call.worker.now();
        call.end(now, Outcome::Ok);
        return reply;
    }
    let asked = prepare(&mut call, peer, head, body, host_names_service, manner.dialect);
    let (lead, gone) = match coalesce::take_part(&call, &asked).await {
        Ok(Part::Goes(lead)) => (lead, journey(&mut call, &asked).await),
        Ok(Part::Gets(given, outcome)) => {
            peer.answer_ended();
            let reply = coalesce::render(&mut call, given, &asked, &manner);
            let now = call.worker.now();
            call.end(now, outcome);
            return reply;
        }
        Ok(Part::Falls(outcome)) => {
            if let Some(fallen) = Fallen::of_answer(outcome)
                && let Some(reply) = saved(&mut call, fallen, &asked, peer, &manner).await
            {
                call.service.metrics().coalesced.inc();
                let now = call.worker.now();
                call.end(now, outcome);
                return reply;
            }
            (None, journey(&mut call, &asked).await)
        }
        Err(failure) => (None, Err(failure)),
    };
    if is_graphql(&call.service) {
        call.operation = graphql::name(&asked);
    }
    match gone {
        Ok(attempted) => {
            let outcome = attempted.relayable.heard.outcome;
            let fallen = Fallen::of_answer(outcome).filter(|fallen| fallback::is_at_hand(&call.service, *fallen));
            if let Some(fallen) = fallen
                && let Some(reply) = saved(&mut call, fallen, &asked, peer, &manner).await
            {
                if let Some(mut leader) = lead {
                    leader.tell(News::Fallen(outcome));
                }
                let now = call.worker.now();
                attempted.relayable.attempt.end(now, outcome);
                call.end(now, outcome);
                return reply;
            }
            let mut taps = Vec::new();
            if let Some(leader) = lead {
                let (head, now) = (attempted.response.headers(), call.worker.now());
                taps.extend(Lead::begin(leader, attempted.response.status(), head, now).map(Tap::Lead));
            }
            relay(call, asked, attempted, taps, peer, &manner)
        }
        Err(failure) => {
            coalesce::tell_failure(lead, &call, &failure);
            if let Some(fallen) = Fallen::of(&failure)
                && let Some(reply) = saved(&mut call, fallen, &asked, peer, &manner).await
            {
                let now = call.worker.now();
                call.end(now, failure.outcome);
                return reply;
            }
            peer.answer_ended();
            let mut reply = local_reply::reply(&failure, Some(call.service.name().as_str()), &manner, false);
            manner.decorate(&call, reply.headers_mut());
            call.note_reply(&reply, &failure);
            let now = call.worker.now();
            call.end(now, failure.outcome);
            reply
        }
    }
}

/// What a fallback answers, if the service has one for this.
async fn saved(
    call: &mut Call,
    fallen: Fallen,
    asked: &Asked,
    peer: &Peer,
    manner: &Manner,
) -> Option<Response<Answer>> {
    if call.service.fallbacks().steps().is_empty() {
        return None;
    }
    // A fallback is not one more outstanding call of the service that failed.
    call.permit = None;
    let mut reply = fallback::instead(call, fallen, asked, peer, manner).await?;
    if !matches!(reply.body(), Answer::Relayed(_)) {
        peer.answer_ended();
    }
    manner.decorate(call, reply.headers_mut());
    Some(reply)
}

/// What can be said against a request before it is known whom it is for.
pub(super) fn admissible(
    worker: &Worker,
    peer: &Peer,
    head: &Parts,
    fault: Option<HeadFault>,
    most_headers: usize,
) -> Result<(), Failure> {
    let refuse = |reason, detail| Err(Failure::new(reason, detail));
    match fault {
        None => {}
        Some(HeadFault::Conflict) => {
            return refuse(Reason::BadRequest, "the request has both Transfer-Encoding and Content-Length");
        }
        Some(HeadFault::TooLong) => return refuse(Reason::BadRequest, HEAD_TOO_LARGE),
    }
    // hyper has counted them over HTTP/1; over HTTP/2 h2 only adds up their lengths.
    if head.version == Version::HTTP_2 && head.headers.len() > most_headers {
        return refuse(Reason::BadRequest, HEAD_TOO_LARGE);
    }
    if !headers::is_plainly_chunked(&head.headers) {
        return refuse(Reason::BadRequest, "the request has a Transfer-Encoding other than chunked");
    }
    if headers::has_been_here(&head.headers, worker.vias(&peer.entry).pseudonym()) {
        return refuse(Reason::Loop, "the request has passed this sidecar before: an endpoint leads back to it");
    }
    Ok(())
}

/// Answers a call that belongs to no service. What is malformed also ends its connection: where the next
/// request begins is anybody's guess.
pub(super) fn refuse_unattributed(
    worker: &Worker,
    peer: &Peer,
    head: &Parts,
    started: Instant,
    note: Option<Box<Note>>,
    failure: &Failure,
) -> Response<Answer> {
    peer.answer_ended();
    let closing = failure.reason == Reason::BadRequest;
    let service = failure.service.as_ref().map(|service| service.name().as_str());
    let reply = local_reply::reply(failure, service, &Manner::of(head), closing);
    let outcome = Outcome::Failed(failure.reason);
    let took = worker.now().saturating_duration_since(started);
    match &failure.service {
        Some(service) => service.call_ended(outcome, took),
        None => worker.count_unattributed(outcome),
    }
    if let Some(mut note) = note {
        note.reply(&reply, failure);
        note.record(failure.service.as_ref().map(|service| service.name().as_str()), outcome, took, 0);
    }
    reply
}

/// Turns the app's request into the one that goes upstream.
fn prepare(
    call: &mut Call,
    peer: &Peer,
    mut head: Parts,
    body: Incoming,
    host_names_service: bool,
    dialect: Dialect,
) -> Asked {
    let policy = &call.service.config().policy;
    let hash_key = hash_key_of(&call.service, &head);
    let (hop, version) = (headers::strip_hop(&mut head.headers), head.version);
    head.headers.append(VIA, call.worker.vias(&peer.entry).entry(version));
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
        let (upload, progress) = Upload::streaming(body, peer.wire.as_ref(), policy.timeout.idle, gate);
        if policy.retry.is_some() || !policy.fallback.is_empty() || policy.failure_if.is_some() {
            upload.keep(policy.retry.as_ref().map_or(KEPT, |retry| retry.body));
        }
        (upload, Some(progress), key)
    };
    if let Some(note) = &mut call.note {
        note.upload = progress.clone();
    }
    let is_graphql = is_graphql(&call.service);
    let callers_attempt = head.headers.get(ATTEMPT).and_then(|number| number.to_str().ok()?.parse().ok());
    let terms = Terms {
        progress,
        host_names_service,
        hash_key,
        upgrade,
        expects,
        dialect,
        version,
        callers_attempt,
        is_graphql,
    };
    Asked { head, upload, terms }
}

/// The policies, in their order. Whatever is refused or fails on the way leaves as a [`Failure`].
pub(super) async fn journey(call: &mut Call, asked: &Asked) -> Result<Attempted, Failure> {
    let now = admit(call).await?;
    retry::run(call, asked, now).await
}

/// Waits for the call's place in the bulkhead; the time by then.
pub(super) async fn admit(call: &mut Call) -> Result<Instant, Failure> {
    let mut now = call.started;
    if let Some(bulkhead) = call.service.bulkhead() {
        let admitted = pin!(bulkhead.admit(call.priority, call.deadline.head()));
        match attempt::within(&call.worker, &call.alarm, None, None, admitted).await {
            Ok(Ok(permit)) => {
                call.permit = Some(permit);
                call.admitted = if call.may_have_waited() { call.worker.now() } else { call.started };
            }
            // Waiting is part of the call's time, and here it was all of it: the check below says so.
            Ok(Err(_)) if call.deadline.is_over(call.worker.now()) => {}
            Ok(Err(_)) => {
                call.service.metrics().shed(call.priority.as_str());
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
    Ok(now)
}

/// Hands the answer's head to the app, and the rest of the call to the answer's body.
pub(super) fn relay(
    mut call: Call,
    asked: Asked,
    attempted: Attempted,
    mut taps: Vec<Tap>,
    peer: &Peer,
    manner: &Manner,
) -> Response<Answer> {
    let Attempted { response, mut relayable } = attempted;
    let (mut head, body) = response.into_parts();
    taps.extend(fallback::record(&call, &asked, &relayable.heard, &head).map(Tap::Recording));
    let upgrade = asked.terms.upgrade.filter(|_| head.status == StatusCode::SWITCHING_PROTOCOLS);
    if let Some(progress) = &relayable.progress {
        progress.answer_begun();
    }
    if upgrade.is_some() || relayable.progress.as_ref().is_some_and(|upload| !upload.has_ended()) {
        // The upload must go on whether or not the app reads the answer.
        relayable.connection.detach();
    }
    let hop = headers::strip_hop(&mut head.headers);
    call.answered = Some(call.worker.now()).filter(|_| relayable.heard.outcome == Outcome::Ok);
    let close_delimited = manner.version < Version::HTTP_11 && body.size_hint().exact().is_none();
    // The version tells hyper, too, whether it may promise to keep the connection of an HTTP/1.0 app.
    head.version = if close_delimited { Version::HTTP_10 } else { Version::HTTP_11 };
    manner.decorate(&call, &mut head.headers);
    if let Some(note) = &mut call.note {
        note.status = Some(head.status.as_u16());
    }
    if let (Some(downstream), Some(protocol)) = (upgrade, hop.upgrade) {
        headers::ask_upgrade(&mut head.headers, protocol);
        if let Some(wire) = &peer.wire {
            wire.becomes_tunnel();
        }
        upgrade::spawn(call, relayable.attempt, peer.open.clone(), downstream, head.extensions.remove::<OnUpgrade>());
        return Response::from_parts(head, Answer::Empty);
    }
    if relayable.attempt.is_probe() && is_event_stream(&head.headers) {
        // Such an answer is not meant to end, and a half-open breaker not meant to wait for that.
        relayable.attempt.settle(call.worker.now(), relayable.heard.outcome);
    }
    Response::from_parts(head, Answer::relay(body, call, relayable, taps, peer))
}

/// Server-sent events (HTML Living Standard §9.2).
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let essence = |value: &HeaderValue| {
        let media = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
        media.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    headers.get(http::header::CONTENT_TYPE).is_some_and(essence)
}

/// Whether a service speaks GraphQL.
pub(super) fn is_graphql(service: &Service) -> bool {
    service.config().policy.failure_if.as_ref().is_some_and(|failure_if| failure_if.graphql_errors)
}

/// The number that a request hashes to, for a service that balances by that.
pub(super) fn hash_key_of(service: &Service, head: &Parts) -> Option<u64> {
    match &service.config().policy.balance {
        balance::Settings::Hash(key) => hash_key(key, head),
        _ => None,
    }
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
    /// A call that began at `started`.
    pub(super) fn begin(worker: &Rc<Worker>, service: Arc<Service>, started: Instant, note: Option<Box<Note>>) -> Self {
        let deadline = Deadline::starting(started, &service.config().policy.timeout);
        if let Some(retries) = service.retries() {
            retries.call_began();
        }
        worker.call_begins();
        let (worker, alarm) = (worker.clone(), worker.alarms.lend());
        let (attempts, endpoint) = (Cell::new(0), Cell::new(None));
        Self {
            service,
            deadline,
            attempts,
            endpoint,
            worker,
            started,
            permit: None,
            priority: Priority::Normal,
            admitted: started,
            answered: None,
            alarm,
            note,
            operation: None,
            ended: false,
        }
    }

    /// The call is over: its place in the bulkhead is free, its outcome counted and logged.
    pub(super) fn end(mut self, now: Instant, outcome: Outcome) {
        self.finish(now, outcome);
    }

    /// When it began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Whether its caller gave it less time than its service does.
    pub(super) fn is_hurried(&self) -> bool {
        self.deadline != Deadline::starting(self.started, &self.service.config().policy.timeout)
    }

    /// Writes down that a fallback answered.
    pub(super) fn note_fallback(&mut self, kind: &str, status: StatusCode) {
        if let Some(note) = &mut self.note {
            note.status = Some(status.as_u16());
            note.details = Some(format!("answered by the fallback {kind}"));
        }
    }

    /// Writes down what a local reply says.
    fn note_reply(&mut self, reply: &Response<Answer>, failure: &Failure) {
        if let Some(note) = &mut self.note {
            note.reply(reply, failure);
        }
    }

    /// Writes down a failure that nobody is told of in words.
    pub(super) fn note_failure(&mut self, failure: &Failure) {
        if let Some(note) = &mut self.note {
            note.details = Some(failure.detail.to_string());
        }
    }

    /// Writes down what a tunnel came to.
    pub(super) fn note_tunnel(&mut self, end: tunnel::End, carried: tunnel::Carried) {
        if let Some(note) = &mut self.note {
            note.details = end.details().map(str::to_owned);
            (note.bytes_in, note.bytes_out) = (carried.to_endpoint, carried.to_app);
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
        if let Some(permit) = self.permit.take()
            && self.service.config().policy.bulkhead.as_ref().is_some_and(|bulkhead| bulkhead.adaptive.is_some())
        {
            // What failed fast says nothing about room, and what was given up nothing at all.
            let answered = match outcome {
                Outcome::Failed(Reason::RequestTimeout) => self.answered.or(Some(now)),
                _ => self.answered,
            };
            if let Some(answered) = answered {
                permit.answered(now, answered.saturating_duration_since(self.admitted));
            }
        }
        let took = now.saturating_duration_since(self.started);
        self.service.call_ended(outcome, took);
        if let Some(operation) = &self.operation {
            self.service.metrics().graphql_ended(operation, outcome);
        }
        if let Some(note) = &mut self.note {
            note.endpoint = self.endpoint.get();
            note.record(Some(self.service.name().as_str()), outcome, took, self.attempts.get());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(self.worker.now(), Outcome::Cancelled);
        }
        self.worker.call_ends();
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
