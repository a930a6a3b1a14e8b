//! From attempt to attempt: what is tried again, when, and what the app gets when nothing is.
//!
//! A call's first attempt goes to the endpoint that the balancer likes best. One that fails is followed by another,
//! elsewhere where there is an elsewhere, if all of this holds:
//!
//! - `retry.attempts` leaves one, and this call is not itself the retry of a caller's sidecar: retries at each hop
//!   of a chain multiply;
//! - the failure is one of `retry.on`;
//! - it does no harm: nothing was sent, or the method is idempotent, or the app says so by `Idempotency-Key`, or
//!   the operator by naming the gRPC code; and what was sent of the body is still there;
//! - the endpoint has not asked to be left alone for longer than the deadline (`Retry-After`,
//!   `grpc-retry-pushback-ms`);
//! - the service's budget bears it, and its breaker admits it.
//!
//! The failure before is not given up until the next attempt has begun: if there is none, it is what the app gets.

use std::{
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header::RETRY_AFTER};
use tokio::time::sleep;

use super::{
    Failure,
    answer::Relayable,
    asked::{Asked, Tried},
    attempt::{self, Attempt, Attempted, Failed, within},
    call::Call,
    graphql, hedge,
    worker::Worker,
};
use crate::{
    model::{Judgement, Outcome, Reason, UpstreamFault},
    policy::retry::Settings,
    service::Service,
};

/// The app's word that repeating its POST does no harm (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How long a gRPC server wants to be left alone; negative, or no number: for good (gRFC A6).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What made an attempt necessary; the word is the `reason` label of `outrigger_retries_total`, and where there is
/// one that of `retry.on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Connect,
    Reset,
    Timeout,
    Status,
    Grpc,
}

/// How long the endpoint wants to be left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushback {
    /// So long.
    For(Duration),
    /// For good.
    ForGood,
}

/// Makes as many attempts as it takes and the policy allows, up to the head of an answer.
pub(super) async fn run(call: &Call, asked: &Asked, started: Instant) -> Result<Attempted, Failure> {
    let mut tried = Tried::new();
    let mut attempt = Attempt::begin(call, asked.terms.hash_key, &tried, started)?;
    let mut now = started;
    loop {
        tried.push(attempt.endpoint());
        let mut ended = match call.service.config().policy.hedge {
            None => attempt::run(call, attempt, asked, &call.alarm, call.attempts.get(), now).await,
            // Boxed: two attempts at once would make the future of every call as long as both.
            Some(hedge) => Box::pin(hedge::run(call, hedge, attempt, asked, &mut tried, now)).await,
        };
        let Some((cause, pause)) = again(call, asked, &tried, &ended) else {
            return ended.map_err(|failed| failed.failure);
        };
        if let Ok(attempted) = &mut ended {
            // The breaker has to know before it is asked again.
            attempted.relayable.attempt.settle(call.worker.now(), attempted.relayable.heard.outcome);
        }
        match next(call, asked, &tried, cause, pause).await {
            Some((next, begun)) => (attempt, now) = (next, begun),
            None => return ended.map_err(|failed| failed.failure),
        }
        if let Ok(attempted) = ended {
            discard(&call.worker, attempted).await;
        }
    }
}

/// The next attempt, after the pause; `None` when the deadline, the budget or the service has no room for it.
async fn next(call: &Call, asked: &Asked, tried: &Tried, cause: Cause, pause: Duration) -> Option<(Attempt, Instant)> {
    let (worker, retries) = (&call.worker, call.service.retries()?);
    let now = worker.now();
    if call.deadline.head().is_some_and(|head| now + pause >= head) {
        return None;
    }
    if !retries.take(now) {
        call.service.metrics().retry_budget_exhausted.inc();
        return None;
    }
    let by = call.deadline.head();
    let waited = pause.is_zero() || within(worker, &call.alarm, None, by, pin!(sleep(pause))).await.is_ok();
    let now = worker.now();
    let may_go = waited && !call.deadline.is_over(now);
    match may_go.then(|| Attempt::begin(call, asked.terms.hash_key, tried, now)) {
        Some(Ok(attempt)) => {
            call.service.metrics().retried(cause.as_str());
            Some((attempt, now))
        }
        _ => {
            retries.put_back();
            None
        }
    }
}

/// Whether what an attempt came to is worth another, and after which pause.
fn again(call: &Call, asked: &Asked, tried: &Tried, ended: &Result<Attempted, Failed>) -> Option<(Cause, Duration)> {
    let settings = call.service.config().policy.retry.as_ref()?;
    let so_far = call.attempts.get();
    if so_far >= settings.attempts || !asked.may_be_sent_again() {
        return None;
    }
    let nth = so_far;
    let pause = settings.pause(nth, call.worker.random.borrow_mut().share());
    match ended {
        Err(failed) => {
            let cause = of_failure(settings, asked, failed)?;
            // Another endpoint has nothing to do with it.
            let at_once = cause == Cause::Connect && nth == 1 && call.service.has_other(tried);
            Some((cause, if at_once { Duration::ZERO } else { pause }))
        }
        Ok(attempted) => {
            let cause = of_answer(settings, asked, attempted)?;
            match pushback(attempted) {
                None => Some((cause, pause)),
                Some(Pushback::For(time)) => Some((cause, time.max(pause))),
                Some(Pushback::ForGood) => None,
            }
        }
    }
}

fn of_failure(settings: &Settings, asked: &Asked, failed: &Failed) -> Option<Cause> {
    if failed.unsent {
        return settings.on.connect.then_some(Cause::Connect);
    }
    let Outcome::Failed(reason) = failed.failure.outcome else { return None };
    let (cause, is_on) = match reason {
        Reason::UpstreamReset | Reason::BadResponse => (Cause::Reset, settings.on.reset),
        Reason::RequestTimeout if failed.outcome == failed.failure.outcome => (Cause::Timeout, settings.on.timeout),
        _ => return None,
    };
    let by_code = || failed.failure.grpc_status.is_some_and(|code| settings.on.grpc.contains(&code));
    (is_on && may_repeat(asked) || asked.terms.dialect.is_grpc() && is_first_try(asked) && by_code()).then_some(cause)
}

fn of_answer(settings: &Settings, asked: &Asked, attempted: &Attempted) -> Option<Cause> {
    let heard = &attempted.relayable.heard;
    if let Some(code) = heard.code.filter(|code| *code > 0) {
        return (settings.on.grpc.contains(&code) && is_first_try(asked)).then_some(Cause::Grpc);
    }
    let status = attempted.response.status();
    let is_marked = heard.outcome == Outcome::UpstreamError(UpstreamFault::Marked);
    let is_failure = (status.is_server_error() || is_marked) && heard.outcome.judgement() == Judgement::Failure;
    let is_on = settings.on.statuses.contains(&status) || (is_failure && settings.on.server_errors);
    (is_on && may_repeat(asked)).then_some(Cause::Status)
}

/// Whether sending it twice does no more than sending it once.
pub(super) fn may_repeat(asked: &Asked) -> bool {
    let app_says_so = || asked.terms.upgrade.is_none() && asked.head.headers.contains_key(IDEMPOTENCY_KEY);
    let is_harmless = || match asked.terms.is_graphql.then(|| graphql::asks(asked)) {
        Some(graphql::Asks::Query) => true,
        Some(graphql::Asks::More) => false,
        Some(graphql::Asks::Unknown) | None => asked.is_idempotent(),
    };
    is_first_try(asked) && (is_harmless() || app_says_so())
}

/// Whether no caller's sidecar is trying again already.
fn is_first_try(asked: &Asked) -> bool {
    asked.terms.callers_attempt.is_none_or(|number| number <= 1)
}

/// Whether the outcome of a gRPC call is to be known before its answer goes to the app: another attempt may depend on
/// it, and the app has said all that it has to say.
pub(super) fn waits_for_trailers(service: &Service, asked: &Asked) -> bool {
    let has_codes = service.config().policy.retry.as_ref().is_some_and(|retry| !retry.on.grpc.is_empty());
    has_codes
        && asked.terms.dialect.is_grpc()
        && asked.terms.progress.as_ref().is_none_or(|upload| upload.has_ended())
        && asked.may_be_sent_again()
        && is_first_try(asked)
}

/// How long the endpoint wants to be left alone, by the head of its answer or by its trailers.
fn pushback(attempted: &Attempted) -> Option<Pushback> {
    let headers = attempted.response.headers();
    attempted.relayable.heard.pushback.or_else(|| pushback_of(headers)).or_else(|| retry_after(headers))
}

/// gRPC's word for it.
pub(super) fn pushback_of(headers: &HeaderMap) -> Option<Pushback> {
    let value = headers.get(PUSHBACK)?;
    let millis = value.to_str().ok().and_then(|text| text.parse().ok());
    Some(millis.map_or(Pushback::ForGood, |millis| Pushback::For(Duration::from_millis(millis))))
}

/// HTTP's word for it: seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Pushback> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let time = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(Pushback::For(time))
}

/// Lets go of an answer that nobody will read. What has come of it already is read off, so that its connection can
/// be used again; nobody waits for more.
async fn discard(worker: &Worker, attempted: Attempted) {
    let Attempted { response, relayable } = attempted;
    let Relayable { attempt, mut connection, progress, heard } = relayable;
    attempt.end(worker.now(), heard.outcome);
    if progress.is_some_and(|upload| !upload.has_ended()) {
        return;
    }
    let (mut flow, mut left) = (response.into_body(), DISCARDED);
    let is_over = poll_fn(|cx| {
        while left > 0 {
            match flow.poll_frame(&mut connection, cx) {
                Poll::Ready(Some(Ok(frame))) => left -= left.min(frame.data_ref().map_or(1, Bytes::len).max(1)),
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Ready(Some(Err(_))) | Poll::Pending => break,
            }
        }
        Poll::Ready(flow.is_end_stream())
    });
    if is_over.await {
        worker.upstreams.give_back(connection, worker.now());
    }
}

/// How much of an answer that nobody wants is read for the sake of its connection, in bytes.
const DISCARDED: usize = 64 * 1024;

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Grpc => "grpc",
        }
    }
}
