//! One attempt: ask the breaker, pick an endpoint, get a connection, exchange, judge.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Instant,
};

use http::{Request, Response, StatusCode, header::UPGRADE};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use super::{
    Failure,
    alarm::Alarm,
    call::{Call, Outgoing, upload_failure},
    headers,
    upload::{Progress, Upload},
    worker::Worker,
};
use crate::{
    model::{Judgement, Outcome, Reason, is_idempotent},
    net::tcp::DialError,
    policy::deadline::Deadline,
    service::{Service, Slot, Trial},
    upstream::{Connection, ExchangeError, Open, Target},
};

/// What an attempt holds while it lasts: its endpoint's slot and the breaker's trial. Its outcome is known
/// when the answer's body has ended; an attempt that is dropped before was cancelled.
#[derive(Debug)]
pub(super) struct Attempt {
    service: Arc<Service>,
    slot: Slot,
    trial: Option<Trial>,
    ended: bool,
}

/// An attempt that has the head of its answer.
pub(super) struct Attempted {
    pub(super) response: Response<Incoming>,
    pub(super) attempt: Attempt,
    pub(super) connection: Connection<Upload>,
    pub(super) progress: Option<Rc<Progress>>,
    /// The endpoint has changed protocols as it was asked to; this is the app's side of it.
    pub(super) upgrade: Option<OnUpgrade>,
}

/// How an attempt failed, to the service's record and to the caller: the two differ where the app is to blame.
struct Failed {
    outcome: Outcome,
    failure: Failure,
}

impl Attempt {
    /// Where it goes.
    pub(super) fn endpoint(&self) -> SocketAddr {
        self.slot.live().endpoint().addr
    }

    /// Tells the breaker how the attempt went while its answer still runs; what comes of that counts no more there.
    pub(super) fn settle(&mut self, now: Instant, outcome: Outcome) {
        if let Some(trial) = self.trial.take() {
            trial.report(now, outcome.judgement());
        }
    }

    /// Whether a half-open breaker waits for this attempt.
    pub(super) fn is_probe(&self) -> bool {
        self.trial.as_ref().is_some_and(Trial::is_probe)
    }

    /// Counts the connection as open for as long as the guard lives, whatever has become of its exchange.
    pub(super) fn keep_counted(&self, worker: &Worker) -> Open {
        worker.upstreams.count(self.slot.live().target())
    }

    /// Whether it has to end, because its endpoint has been gone for too long.
    pub(super) fn is_cut(&self) -> bool {
        self.slot.live().target().is_cut()
    }

    /// The attempt is over: breaker and metrics learn its outcome, the slot is free.
    pub(super) fn end(mut self, now: Instant, outcome: Outcome) {
        self.finish(now, outcome);
    }

    fn finish(&mut self, now: Instant, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.settle(now, outcome);
        self.service.metrics().attempt_ended(outcome);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(crate::service::now(), Outcome::Cancelled);
        }
    }
}

/// Makes one attempt, up to the head of its answer.
pub(super) async fn run(
    call: &mut Call,
    outgoing: Outgoing,
    alarm: &Alarm,
    started: Instant,
) -> Result<Attempted, Failure> {
    let (worker, service) = (call.worker.clone(), call.service.clone());
    let trial = match service.breaker() {
        Some(breaker) => Some(breaker.admit(started).map_err(|open| Failure {
            retry_after: open.retry_after,
            ..Failure::new(Reason::BreakerOpen, "too many of the service's recent calls failed")
        })?),
        None => None,
    };
    let slot = pick(&worker, &service, outgoing.hash_key, started)?;
    let attempt = Attempt { service, slot, trial, ended: false };
    call.attempts += 1;
    if let Some(note) = call.note() {
        note.endpoint = Some(attempt.endpoint());
    }
    let deadline = call.deadline.of_attempt(started, &attempt.service.config().policy.timeout);
    let progress = outgoing.progress.clone();
    let target = attempt.slot.live().target();
    let exchange = exchange(&worker, &attempt, outgoing, started, deadline);
    let failed = match within(&worker, alarm, Some(target), deadline, exchange).await {
        Ok(Ok(exchanged)) => {
            let Exchanged { response, connection, upgrade, sent } = exchanged;
            if Outcome::of_status(response.status()).judgement() == Judgement::Success {
                // A failure that comes fast must not make its endpoint look like a fast one, nor a connection
                // that had to be opened like a slow one.
                let now = worker.now();
                attempt.slot.observe(now, now.saturating_duration_since(sent));
            }
            return Ok(Attempted { response, attempt, connection, progress, upgrade });
        }
        Ok(Err(failed)) => failed,
        Err(Interrupted::Deadline) => overdue(&attempt, progress.as_deref()),
        Err(Interrupted::CutOff) => Failed {
            outcome: Outcome::Cancelled,
            failure: Failure::new(Reason::ShuttingDown, "the sidecar stopped before the answer came"),
        },
        Err(Interrupted::EndpointGone) => {
            Failed { outcome: Outcome::Cancelled, failure: Failure::new(Reason::UpstreamReset, ENDPOINT_GONE) }
        }
    };
    let now = worker.now();
    if failed.outcome == Outcome::Failed(Reason::RequestTimeout) {
        attempt.slot.observe(now, now.saturating_duration_since(started));
    }
    attempt.end(now, failed.outcome);
    Err(failed.failure)
}

/// The deadline passed. Whoever the exchange waited for is to blame: a service is not judged by an app that
/// did not finish its own request.
fn overdue(attempt: &Attempt, progress: Option<&Progress>) -> Failed {
    if progress.is_some_and(Progress::waits_for_app) {
        let detail = "the app did not finish its request body in time";
        return Failed { outcome: Outcome::Cancelled, failure: Failure::new(Reason::RequestTimeout, detail) };
    }
    let detail = format!("{} did not answer in time", attempt.endpoint());
    Failed { outcome: Outcome::Failed(Reason::RequestTimeout), failure: Failure::new(Reason::RequestTimeout, detail) }
}

/// Chooses an endpoint that may take one more attempt.
fn pick(worker: &Worker, service: &Service, key: Option<u64>, now: Instant) -> Result<Slot, Failure> {
    service.pick(worker.index, key, now, &mut worker.random.borrow_mut()).map_err(|none| match none {
        crate::service::NoPick::NoEndpoints => {
            let detail = match service.source_status().problem {
                Some(problem) => format!("no endpoint is known: {problem}"),
                None => "no endpoint is known".into(),
            };
            Failure::new(Reason::NoEndpoints, detail)
        }
        crate::service::NoPick::AllDraining => Failure::new(Reason::NoEndpoints, "every endpoint is draining"),
        crate::service::NoPick::AllFull => {
            Failure::new(Reason::BulkheadFull, "every endpoint has as many attempts outstanding as it may")
        }
    })
}

/// What cut a wait short.
pub(super) enum Interrupted {
    Deadline,
    CutOff,
    EndpointGone,
}

/// Why a call breaks off whose endpoint discovery no longer names.
pub(super) const ENDPOINT_GONE: &str = "the endpoint is gone, and the time to finish with it is over";

/// Waits for `future`, until `deadline`, or until the calls of the worker, or to the target, have to end.
pub(super) async fn within<F: Future>(
    worker: &Worker,
    alarm: &Alarm,
    target: Option<&Target>,
    deadline: Option<Instant>,
    future: F,
) -> Result<F::Output, Interrupted> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if worker.is_cut_off() {
            return Poll::Ready(Err(Interrupted::CutOff));
        }
        if target.is_some_and(Target::is_cut) {
            return Poll::Ready(Err(Interrupted::EndpointGone));
        }
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match deadline {
            Some(deadline) => alarm.poll(deadline, cx).map(|()| Err(Interrupted::Deadline)),
            None => Poll::Pending,
        }
    })
    .await
}

/// What an exchange brought.
struct Exchanged {
    response: Response<Incoming>,
    connection: Connection<Upload>,
    upgrade: Option<OnUpgrade>,
    /// When the request went out.
    sent: Instant,
}

/// Sends the request over an idle connection, or a fresh one.
///
/// An endpoint may close an idle connection in the moment in which we use it. Such a call is repeated on a
/// fresh connection where that is safe: nothing was sent, or the method is idempotent (RFC 9110 §9.2.2)
/// and there is no body that has been consumed. It is the same attempt, at the same endpoint.
async fn exchange(
    worker: &Worker,
    attempt: &Attempt,
    outgoing: Outgoing,
    now: Instant,
    deadline: Option<Instant>,
) -> Result<Exchanged, Failed> {
    let live = attempt.slot.live();
    let Outgoing { mut head, upload, progress, host_names_service, upgrade, expects, .. } = outgoing;
    if !host_names_service {
        headers::set_host(&mut head.headers, &live.endpoint().authority);
    }
    let repeatable = is_idempotent(&head.method) && matches!(upload, Upload::Empty) && upgrade.is_none();
    let mut request = Request::from_parts(head, upload);
    if let Some(key) = expects {
        hyper::ext::on_informational(&mut request, move |interim| {
            if interim.status() == StatusCode::CONTINUE {
                key.open();
            }
        });
    }
    if let Some(mut connection) = worker.upstreams.idle(live.target(), now) {
        let spare = repeatable.then(|| copy_of(&request));
        match connection.exchange(request).await {
            Ok(response) => return answered(response, connection, upgrade, progress.as_deref(), now),
            Err(error) => {
                let spare = spare.filter(|_| error.reason == Some(Reason::UpstreamReset));
                match error.unsent {
                    Some(unsent) => request = *unsent,
                    None => request = spare.ok_or_else(|| broken(error, progress.as_deref()))?,
                }
                attempt.service.metrics().retries_reused_connection.inc();
            }
        }
    }
    let timeouts = &attempt.service.config().policy.timeout;
    let connect_by = Deadline::of_connect(deadline, worker.now(), timeouts);
    let mut connection =
        worker.upstreams.connect(live.target(), connect_by).await.map_err(|error| unconnected(attempt, error))?;
    let sent = worker.now();
    match connection.exchange(request).await {
        Ok(response) => answered(response, connection, upgrade, progress.as_deref(), sent),
        Err(error) => Err(broken(error, progress.as_deref())),
    }
}

/// A second copy of a request without a body.
fn copy_of(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// What hyper lets through and we do not: an answer to a question that was not asked, or one whose body
/// would arrive as something else.
fn answered(
    response: Response<Incoming>,
    mut connection: Connection<Upload>,
    upgrade: Option<OnUpgrade>,
    progress: Option<&Progress>,
    sent: Instant,
) -> Result<Exchanged, Failed> {
    let refuse = |detail| {
        let failure = Failure::new(Reason::BadResponse, detail);
        Err(Failed { outcome: Outcome::Failed(failure.reason), failure })
    };
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
    if switches || progress.is_some_and(|upload| !upload.has_ended()) {
        // The upload must go on whether or not the app reads the answer.
        connection.detach();
    }
    Ok(Exchanged { response, connection, upgrade: upgrade.filter(|_| switches), sent })
}

/// No connection: also a hint that discovery may know better by now.
fn unconnected(attempt: &Attempt, error: DialError) -> Failed {
    attempt.service.connect_failed();
    let addr = attempt.endpoint();
    let failure = match error {
        DialError::Timeout => {
            Failure::new(Reason::ConnectTimeout, format!("{addr} did not accept the connection in time"))
        }
        DialError::Refused(error) => Failure::new(Reason::ConnectRefused, format!("{addr}: {error}")),
    };
    Failed { outcome: Outcome::Failed(failure.reason), failure }
}

/// An exchange without an answer: the endpoint's fault, or the app's own upload.
fn broken(error: ExchangeError<Upload>, progress: Option<&Progress>) -> Failed {
    if let Some(fault) = progress.and_then(Progress::failure) {
        return Failed { outcome: Outcome::Cancelled, failure: upload_failure(fault) };
    }
    let reason = error.reason.unwrap_or(Reason::UpstreamReset);
    Failed { outcome: Outcome::Failed(reason), failure: Failure::new(reason, error.detail) }
}
