//! One exchange with the endpoint of an attempt: a connection, a request in its form, the head of an answer.
//!
//! What is repeated here is no retry of the service's policy: it is the same attempt, at the same endpoint, in
//! cases in which the endpoint cannot have looked at the request:
//!
//! - It closed an idle connection in the moment in which we used it. Such a request goes out again on a fresh
//!   connection where that is safe: nothing was sent, or the method is idempotent (RFC 9110 §9.2.2) and what was
//!   sent of its body is still there.
//! - It says so itself, by REFUSED_STREAM or by a GOAWAY that leaves the stream out (RFC 9113 §8.7): safe for
//!   any method, as long as we still have what was sent of the body.

use std::time::Instant;

use http::{Response, StatusCode, header::UPGRADE};

use super::{
    Failure,
    asked::{Asked, Leg},
    attempt::{Attempt, Failed},
    call::upload_failure,
    deadlines::Passed,
    grpc::{Dialect, status, web::WebCall},
    headers,
    hold::Flow,
    tongue::Heard,
    upload::{Progress, Upload},
    worker::Worker,
};
use crate::{
    model::{Outcome, Reason},
    net::tcp::DialError,
    policy::deadline::Deadline,
    upstream::{Connection, ExchangeError, Payload, Version},
};

/// How often a request is repeated within an attempt.
const REPEATS: u32 = 2;

/// What an exchange brought.
pub(super) struct Exchanged {
    pub(super) response: Response<Flow>,
    pub(super) connection: Connection<Upload>,
    pub(super) heard: Heard,
    /// When the request went out.
    pub(super) sent: Instant,
}

/// The limits of an attempt, and its number.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) call: Deadline,
    /// When the head of its answer must be there.
    pub(super) head: Option<Instant>,
    /// Which attempt of the call it is, from 1.
    pub(super) number: u32,
}

/// Sends the request over a connection that there is, or a fresh one.
pub(super) async fn exchange(
    worker: &Worker,
    attempt: &Attempt,
    asked: &Asked,
    bounds: Bounds,
    mut now: Instant,
) -> Result<Exchanged, Failed> {
    let (live, policy) = (attempt.live(), &attempt.service().config().policy);
    let (target, wish) = (live.target(), asked.wish(policy.protocol));
    let (mut may_reuse, mut repeats) = (true, 0);
    loop {
        let idle = if may_reuse { worker.upstreams.idle(target, wish, now) } else { None };
        let reused = idle.is_some();
        let mut connection = match idle {
            Some(connection) => connection,
            None => {
                let connect_by = Deadline::of_connect(bounds.head, worker.now(), &policy.timeout);
                // Boxed: most calls find a connection, and need not carry what it takes to open one.
                let connected = Box::pin(worker.upstreams.connect(target, wish, connect_by)).await;
                now = worker.now();
                connected.map_err(|error| {
                    let mut failed = unconnected(attempt, error);
                    if bounds.call.is_over(now) {
                        // What ran out first was the caller's time, and that is what gRPC wants to hear.
                        failed.failure.grpc_status = Some(Reason::RequestTimeout.grpc_status().into());
                    }
                    failed
                })?
            }
        };
        let version = connection.version();
        let (request, web) = asked.request(&Leg {
            authority: &live.endpoint().authority,
            version,
            secure: target.tls().is_some(),
            number: attempt.service().retries().map(|_| bounds.number),
            passed: Passed::of(bounds.call, bounds.head),
            now,
        });
        let error = match connection.exchange(request).await {
            Ok(response) => return answered(asked, web, response, connection, now),
            Err(error) => error,
        };
        match repeat(&error, asked, reused).filter(|_| repeats < REPEATS) {
            None => return Err(broken(error, asked, attempt)),
            Some(reason) => attempt.service().metrics().retried(reason),
        }
        repeats += 1;
        // Another idle connection over HTTP/1 may be as stale as this one.
        may_reuse = version == Version::Http2;
    }
}

/// Whether the request may go out once more within its attempt, and as what that is counted.
fn repeat(error: &ExchangeError<Upload>, asked: &Asked, reused: bool) -> Option<&'static str> {
    if !asked.may_be_sent_again() {
        None
    } else if error.refused {
        Some("refused")
    } else if !reused {
        None
    } else if error.unsent.is_some() {
        Some("reused_connection")
    } else {
        let is_broken = error.reason == Some(Reason::UpstreamReset) && error.code.is_none();
        (is_broken && asked.is_idempotent()).then_some("reused_connection")
    }
}

/// What hyper lets through and we do not: an answer to a question that was not asked, or one whose body
/// would arrive as something else.
fn answered(
    asked: &Asked,
    web: Option<WebCall>,
    response: Response<Payload>,
    connection: Connection<Upload>,
    sent: Instant,
) -> Result<Exchanged, Failed> {
    let refuse = |detail| {
        let failure = Failure::new(Reason::BadResponse, detail);
        Err(Failed { outcome: Outcome::Failed(failure.reason), failure, unsent: false })
    };
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switches && asked.terms.upgrade.is_none() {
        return refuse("the endpoint changed protocols unasked");
    }
    if switches && !response.headers().contains_key(UPGRADE) {
        return refuse("the endpoint changed protocols without saying to which");
    }
    if !headers::is_plainly_chunked(response.headers()) {
        return refuse("the answer has a Transfer-Encoding other than chunked");
    }
    let (mut head, payload) = response.into_parts();
    // An endpoint that was called by HTTP/1 knows gRPC-Web itself, or nothing of gRPC.
    let dialect = match (asked.terms.dialect, &web) {
        (Dialect::GrpcWeb { .. }, None) => Dialect::Http,
        (dialect, _) => dialect,
    };
    let heard = Heard::of(dialect, web.as_ref(), &mut head, payload.is_end_stream());
    let response = Response::from_parts(head, Flow::of(payload));
    Ok(Exchanged { response, connection, heard, sent })
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
    Failed { outcome: Outcome::Failed(failure.reason), failure, unsent: true }
}

/// An exchange without an answer: the endpoint's fault, or the app's own upload.
fn broken(error: ExchangeError<Upload>, asked: &Asked, attempt: &Attempt) -> Failed {
    let unsent = error.unsent.is_some() || error.refused;
    if let Some(fault) = asked.terms.progress.as_deref().and_then(Progress::failure) {
        return Failed { outcome: Outcome::Cancelled, failure: upload_failure(fault), unsent: false };
    }
    let reason = error.reason.unwrap_or(Reason::UpstreamReset);
    let mut failure = Failure::new(reason, format!("{}: {}", attempt.endpoint(), error.detail));
    if let (true, Some(code)) = (asked.terms.dialect.is_grpc(), error.code) {
        failure.grpc_status = Some(status::of_reset(code));
    }
    Failed { outcome: Outcome::Failed(reason), failure, unsent }
}
