//! CONNECT (RFC 9110 §9.3.6): how a client of a forward proxy asks for bytes instead of requests.
//!
//! What it gets is what a port of the service's own would give it. For a service that speaks no HTTP that is a
//! connection to an endpoint, and a refusal in words when there is none. For any other it is this sidecar: what is
//! said inside is served like any other connection to the service, with all of its policies, so that a gRPC library
//! that knows no other way through a proxy loses nothing. Only where the app begins to speak TLS inside, it speaks
//! with the endpoint itself, and we carry the bytes.
//!
//! What is not declared cannot be reached this way either. The port that the client names says nothing, like that of a
//! Host.

use std::{rc::Rc, sync::Arc};

use http::{HeaderValue, Request, Response, Version, header::CONNECTION, request::Parts};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;

use super::{
    Failure,
    answer::Answer,
    call::{Call, admissible, refuse_unattributed},
    connection::{self, Peer},
    entry::{not_made, unknown},
    local_reply,
    manner::Manner,
    note::Note,
    sniff::{self, Rewound},
    tcp::{self, Connected, Link},
    wire::Wire,
    worker::Worker,
};
use crate::{
    config::Entry,
    model::{Outcome, Reason},
    net::tls::Identity,
    service::{Service, Wanted},
};

/// The first byte of a TLS connection: a record of the handshake (RFC 8446 §5.1).
const TLS: u8 = 22;

/// Serves a CONNECT, always with an answer.
pub(super) async fn serve(worker: &Rc<Worker>, peer: &Peer, mut request: Request<Incoming>) -> Response<Answer> {
    let started = worker.now();
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    // What follows is no head of ours: bytes for the tunnel, if there is to be one.
    let fault = peer.wire.as_ref().and_then(|wire| wire.call_begins(true));
    let (admitted, note) = {
        let services = worker.table.current();
        let note = services.traffic().access_log.as_ref().map(|log| Box::new(Note::of(log, &head, peer)));
        let admitted = admissible(worker, peer, &head, fault, services.traffic().limits.headers);
        (admitted.and_then(|()| without_body(&body)), note)
    };
    let found = match admitted {
        Ok(()) => find(worker, peer, &head).await,
        Err(failure) => Err(failure),
    };
    let service = match found {
        Ok(service) => service,
        Err(failure) => return refused(refuse_unattributed(worker, peer, &head, started, note, &failure)),
    };
    if !tcp::is_tcp(&service) {
        begin(peer);
        tokio::task::spawn_local(talk(worker.clone(), service, peer.open.clone(), upgrade));
        return Response::new(Answer::Empty);
    }
    let mut call = Call::begin(worker, service, started, note);
    match tcp::connect(&mut call, Link::OfService).await {
        Ok(connected) => {
            begin(peer);
            tokio::task::spawn_local(carry(call, connected, peer.open.clone(), upgrade));
            Response::new(Answer::Empty)
        }
        Err(failure) => {
            peer.answer_ended();
            let reply = local_reply::reply(&failure, Some(call.service.name().as_str()), &Manner::of(&head), false);
            call.note_failure(&failure);
            call.end(worker.now(), failure.outcome);
            refused(reply)
        }
    }
}

/// A tunnel's bytes stand behind its head, and not in a body. Where one were taken from is anybody's guess, and so is
/// where it would end (RFC 9110 §9.3.6).
fn without_body(body: &Incoming) -> Result<(), Failure> {
    match body.is_end_stream() {
        true => Ok(()),
        false => Err(Failure::new(Reason::BadRequest, "CONNECT has no body")),
    }
}

/// A refusal is the last of its connection. Some apps do not wait for an answer before they speak; what they meant for a
/// tunnel, which may be somebody else's words, must not be taken for requests.
fn refused(mut reply: Response<Answer>) -> Response<Answer> {
    if reply.version() != Version::HTTP_2 {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

/// The service that the client names.
async fn find(worker: &Worker, peer: &Peer, head: &Parts) -> Result<Arc<Service>, Failure> {
    let refuse = |detail| Err(Failure::new(Reason::BadRequest, detail));
    if head.version == Version::HTTP_2 {
        return refuse("CONNECT is taken over HTTP/1.1 alone");
    }
    if !matches!(peer.entry, Entry::Shared) {
        return refuse("CONNECT is for the shared port: what has come in here knows its service already");
    }
    let named = head.uri.authority().filter(|authority| authority.port().is_some());
    let Some(host) = named.map(|authority| authority.host()) else {
        return refuse("CONNECT names no host and port");
    };
    let failure = {
        let services = worker.table.current();
        match services.find(host) {
            Some(service) => {
                service.ask_for();
                return Ok(service.clone());
            }
            None => unknown(host, &services),
        }
    };
    let Some(name) = failure.wanted.clone() else { return Err(failure) };
    worker.summon(Wanted::Named(name)).await.ok_or_else(|| not_made(worker, failure))
}

/// From the answer on, the connection's bytes are no HTTP of ours.
fn begin(peer: &Peer) {
    peer.answer_ended();
    if let Some(wire) = &peer.wire {
        wire.becomes_tunnel();
    }
}

/// Carries a tcp service's bytes.
async fn carry<Open>(call: Call, connected: Connected, open: Open, upgrade: OnUpgrade) {
    match upgrade.await.ok().and_then(app) {
        Some(app) => {
            let control = call.worker.register();
            tcp::carry(call, &control, app, connected).await;
        }
        None => {
            let now = call.worker.now();
            call.end(now, Outcome::Cancelled);
        }
    }
    drop(open);
}

/// Serves what is said inside.
async fn talk(
    worker: Rc<Worker>,
    service: Arc<Service>,
    open: Rc<super::listener::OpenConnection>,
    upgrade: OnUpgrade,
) {
    let Some(mut app) = upgrade.await.ok().and_then(app) else { return };
    let control = worker.register();
    match sniff::first_byte(&worker, &control, &mut app).await {
        None => {}
        Some(TLS) => {
            let note = tcp::note(&worker, app.tcp());
            let call = Call::begin(&worker, service, worker.now(), note);
            tcp::serve(call, control, app, Link::Raw, open).await;
        }
        Some(_) => {
            let (addr, entry) = (app.tcp().peer_addr().ok(), Entry::Service(service.name().clone()));
            let peer = Peer { addr, entry, wire: None, meant: None, identity: Identity::default(), open };
            connection::speak(worker, control, app, peer).await;
        }
    }
}

/// The app's stream, with what hyper has read of it put back.
fn app(upgraded: Upgraded) -> Option<Rewound> {
    let parts = upgraded.downcast::<TokioIo<Wire>>().ok()?;
    Some(Rewound::new(parts.read_buf, parts.io.into_inner().into_stream()?))
}
