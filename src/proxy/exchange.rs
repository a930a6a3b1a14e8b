//! One exchange with the endpoint of an attempt: a connection, a request in its form, the head of an answer.
//!
//! What is repeated here is no retry of the service's policy: it is the same attempt, at the same endpoint, in
//! cases in which the endpoint cannot have looked at the request:
//!
//! - It closed an idle connection in the moment in which we used it. Such a request goes out again on a fresh
//!   connection where that is safe: nothing was sent, or the method is idempotent (RFC 9110 §9.2.2) and there is
//!   no body that has been consumed.
//! - It says so itself, by REFUSED_STREAM or by a GOAWAY that leaves the stream out (RFC 9113 §8.7): safe for
//!   any method, as long as we still have what was sent of the body.

use std::{rc::Rc, time::Instant};

use http::{Request, Response, StatusCode, header::UPGRADE, request::Parts};
use hyper::upgrade::OnUpgrade;

use super::{
    Failure,
    answer::Relayable,
    attempt::{Attempt, Failed},
    call::upload_failure,
    fit,
    gate::GateKey,
    grpc::{
        Dialect, status,
        timeout::{self, GRPC_TIMEOUT},
        web::WebCall,
    },
    headers,
    tongue::Heard,
    upload::{Progress, Upload},
    worker::Worker,
};
use crate::{
    config::Protocol,
    model::{Outcome, Reason, is_idempotent},
    net::tcp::DialError,
    policy::deadline::Deadline,
    upstream::{Connection, ExchangeError, OnContinue, Payload, Version, Wish},
};

/// How often a request is repeated within an attempt.
const REPEATS: u32 = 2;

/// What goes upstream: a request that knows all about its own next hop.
pub(super) struct Outgoing {
    pub(super) head: Parts,
    pub(super) upload: Upload,
    pub(super) terms: Terms,
}

/// What a request asks for beside what is sent, on whichever connection.
pub(super) struct Terms {
    pub(super) progress: Option<Rc<Progress>>,
    /// Whether the Host is the app's own, or the endpoint's to be.
    pub(super) host_names_service: bool,
    pub(super) hash_key: Option<u64>,
    /// The app asked for another protocol.
    pub(super) upgrade: Option<OnUpgrade>,
    /// Opened when the endpoint says "100 Continue".
    pub(super) expects: Option<GateKey>,
    pub(super) dialect: Dialect,
    /// Which HTTP the app speaks.
    pub(super) version: http::Version,
    /// How gRPC-Web has been translated.
    pub(super) web: Option<WebCall>,
}

/// What an exchange brought.
pub(super) struct Exchanged {
    pub(super) response: Response<Payload>,
    pub(super) connection: Connection<Upload>,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) progress: Option<Rc<Progress>>,
    pub(super) heard: Heard,
    /// When the request went out.
    pub(super) sent: Instant,
}

impl Exchanged {
    /// The head of the answer, and what it takes to let the rest through.
    pub(super) fn into_parts(self, attempt: Attempt) -> (Response<Payload>, Relayable, Option<OnUpgrade>) {
        let Self { response, connection, upgrade, progress, heard, .. } = self;
        (response, Relayable { attempt, connection, progress, heard }, upgrade)
    }
}

/// What stays behind of an outgoing request while it is under way.
struct Behind {
    /// Its head once more, where it may be wanted.
    spare: Option<Parts>,
    /// It can be repeated though the endpoint may have looked at it.
    repeatable: bool,
    terms: Terms,
}

impl Outgoing {
    /// Which HTTP is to be spoken with the endpoint.
    fn wish(&self, protocol: Protocol) -> Wish {
        match protocol {
            Protocol::Http1 | Protocol::Tcp => Wish::Http1,
            Protocol::Http2 => Wish::Http2,
            Protocol::Auto => match self.terms.dialect {
                // gRPC has no other way.
                Dialect::GrpcWeb { .. } => Wish::Http2,
                Dialect::Grpc if self.terms.version == http::Version::HTTP_2 => Wish::Http2,
                Dialect::Http if self.terms.version == http::Version::HTTP_2 => Wish::PreferHttp2,
                Dialect::Http | Dialect::Grpc => Wish::Http1,
            },
        }
    }

    /// Gives the request the form that a connection wants.
    fn fit(&mut self, version: Version, secure: bool, end: Option<Instant>, now: Instant) {
        let Terms { dialect, web, .. } = &mut self.terms;
        if dialect.is_grpc()
            && let Some(end) = end
        {
            self.head.headers.insert(GRPC_TIMEOUT, timeout::format(end.saturating_duration_since(now)));
        }
        match version {
            Version::Http1 => fit::http1(&mut self.head, !matches!(self.upload, Upload::Empty)),
            Version::Http2 => {
                if matches!(dialect, Dialect::GrpcWeb { .. }) && web.is_none() {
                    *web = WebCall::translate(&mut self.head.headers);
                    if let Some(decoder) = web.as_ref().and_then(WebCall::decoder) {
                        self.upload.decode(decoder);
                    }
                }
                fit::http2(&mut self.head, secure);
                self.upload.keep();
            }
        }
    }

    /// Parts with what is sent. A head is copied only where it may be wanted again.
    fn into_request(self, version: Version, reused: bool) -> (Request<Upload>, Behind) {
        let Self { head, upload, terms } = self;
        let bodiless = matches!(upload, Upload::Empty);
        let repeatable = reused && is_idempotent(&head.method) && bodiless && terms.upgrade.is_none();
        let spare = (repeatable || version == Version::Http2).then(|| head.clone());
        let mut request = Request::from_parts(head, upload);
        if let Some(key) = &terms.expects {
            let key = key.clone();
            request.extensions_mut().insert(OnContinue::new(move || key.open()));
        }
        (request, Behind { spare, repeatable, terms })
    }
}

impl Behind {
    /// The request once more, or why it cannot be repeated.
    fn again(self, error: ExchangeError<Upload>, attempt: &Attempt, reused: bool) -> Result<Outgoing, Failed> {
        let Self { spare, repeatable, terms } = self;
        let metrics = attempt.service().metrics();
        let (head, upload) = match (error, spare) {
            (ExchangeError { unsent: Some(request), .. }, _) if reused => {
                metrics.retries_reused_connection.inc();
                request.into_parts()
            }
            (ExchangeError { refused: true, body: Some(upload), .. }, Some(head)) if upload.may_rewind() => {
                metrics.retries_refused.inc();
                (head, upload.rewound())
            }
            (ExchangeError { reason: Some(Reason::UpstreamReset), code: None, .. }, Some(head)) if repeatable => {
                metrics.retries_reused_connection.inc();
                (head, Upload::Empty)
            }
            (error, _) => return Err(broken(error, &terms, attempt)),
        };
        Ok(Outgoing { head, upload, terms })
    }

    /// What hyper lets through and we do not: an answer to a question that was not asked, or one whose body
    /// would arrive as something else.
    fn answered(
        self,
        response: Response<Payload>,
        mut connection: Connection<Upload>,
        sent: Instant,
    ) -> Result<Exchanged, Failed> {
        let refuse = |detail| {
            let failure = Failure::new(Reason::BadResponse, detail);
            Err(Failed { outcome: Outcome::Failed(failure.reason), failure })
        };
        let Terms { progress, upgrade, dialect, web, .. } = self.terms;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches && upgrade.is_none() {
            return refuse("the endpoint changed protocols unasked");
        }
        if switches && !response.headers().contains_key(UPGRADE) {
            return refuse("the endpoint changed protocols without saying to which");
        }
        if !headers::is_plainly_chunked(response.headers()) {
            return refuse("the answer has a Transfer-Encoding other than chunked");
        }
        if let Some(progress) = &progress {
            progress.answer_begun();
        }
        if switches || progress.as_ref().is_some_and(|upload| !upload.has_ended()) {
            // The upload must go on whether or not the app reads the answer.
            connection.detach();
        }
        let (mut head, payload) = response.into_parts();
        // An endpoint that was called by HTTP/1 knows gRPC-Web itself, or nothing of gRPC.
        let dialect = match (dialect, &web) {
            (Dialect::GrpcWeb { .. }, None) => Dialect::Http,
            (dialect, _) => dialect,
        };
        let heard = Heard::of(dialect, web.as_ref(), &mut head, payload.is_end_stream());
        let response = Response::from_parts(head, payload);
        Ok(Exchanged { response, connection, upgrade: upgrade.filter(|_| switches), progress, heard, sent })
    }
}

/// Sends the request over a connection that there is, or a fresh one.
pub(super) async fn exchange(
    worker: &Worker,
    attempt: &Attempt,
    mut outgoing: Outgoing,
    now: Instant,
    (call, deadline): (Deadline, Option<Instant>),
) -> Result<Exchanged, Failed> {
    let (live, policy) = (attempt.live(), &attempt.service().config().policy);
    if !outgoing.terms.host_names_service {
        headers::set_host(&mut outgoing.head.headers, &live.endpoint().authority);
    }
    let (target, wish) = (live.target(), outgoing.wish(policy.protocol));
    let (mut now, mut may_reuse, mut repeats) = (now, true, 0);
    loop {
        let idle = if may_reuse { worker.upstreams.idle(target, wish, now) } else { None };
        let reused = idle.is_some();
        let mut connection = match idle {
            Some(connection) => connection,
            None => {
                let connect_by = Deadline::of_connect(deadline, worker.now(), &policy.timeout);
                let connected = worker.upstreams.connect(target, wish, connect_by).await;
                now = worker.now();
                connected.map_err(|error| {
                    let mut failed = unconnected(attempt, error);
                    if call.is_over(now) {
                        // What ran out first was the caller's time, and that is what gRPC wants to hear.
                        failed.failure.grpc_status = Some(Reason::RequestTimeout.grpc_status().into());
                    }
                    failed
                })?
            }
        };
        let version = connection.version();
        outgoing.fit(version, target.tls().is_some(), call.end(), now);
        let (request, behind) = outgoing.into_request(version, reused);
        match connection.exchange(request).await {
            Ok(response) => return behind.answered(response, connection, now),
            Err(error) if repeats == REPEATS => {
                return Err(broken(error, &behind.terms, attempt));
            }
            Err(error) => {
                outgoing = behind.again(error, attempt, reused)?;
                repeats += 1;
                // Another idle connection over HTTP/1 may be as stale as this one.
                may_reuse = version == Version::Http2;
            }
        }
    }
}

/// No connection: also a hint that discovery may know better by now.
pub(super) fn unconnected(attempt: &Attempt, error: DialError) -> Failed {
    attempt.service().connect_failed();
    let addr = attempt.endpoint();
    let failure = match error {
        DialError::Timeout => {
            Failure::new(Reason::ConnectTimeout, format!("{addr} did not accept the connection in time"))
        }
        DialError::Tls(error) => Failure::new(Reason::TlsFailed, format!("{addr}: {error}")),
        DialError::Protocol(detail) => Failure::new(Reason::BadResponse, format!("{addr}: {detail}")),
        DialError::Refused(error) => Failure::new(Reason::ConnectRefused, format!("{addr}: {error}")),
    };
    Failed { outcome: Outcome::Failed(failure.reason), failure }
}

/// An exchange without an answer: the endpoint's fault, or the app's own upload.
fn broken(error: ExchangeError<Upload>, terms: &Terms, attempt: &Attempt) -> Failed {
    if let Some(fault) = terms.progress.as_deref().and_then(Progress::failure) {
        return Failed { outcome: Outcome::Cancelled, failure: upload_failure(fault) };
    }
    let reason = error.reason.unwrap_or(Reason::UpstreamReset);
    let mut failure = Failure::new(reason, format!("{}: {}", attempt.endpoint(), error.detail));
    if let (true, Some(code)) = (terms.dialect.is_grpc(), error.code) {
        failure.grpc_status = Some(status::of_reset(code));
    }
    Failed { outcome: Outcome::Failed(reason), failure }
}
