//! One attempt: ask the breaker, pick an endpoint, exchange, judge.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Instant,
};

use http::Response;

use super::{
    Failure,
    alarm::Alarm,
    answer::Relayable,
    asked::Asked,
    call::Call,
    exchange::{self, Bounds, Exchanged},
    hold::{self, Flow},
    upload::Progress,
    worker::Worker,
};
use crate::{
    model::{Judgement, Outcome, Reason},
    service::{Live, Service, Slot, Trial},
    upstream::{Open, Target},
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
    pub(super) response: Response<Flow>,
    pub(super) relayable: Relayable,
}

/// How an attempt failed, to the service's record and to the caller: the two differ where the app is to blame.
pub(super) struct Failed {
    pub(super) outcome: Outcome,
    pub(super) failure: Failure,
    /// The endpoint has seen nothing of the request, or says that it has not looked at it.
    pub(super) unsent: bool,
}

impl Failed {
    /// A failure that says nothing about the service.
    pub(super) fn of_nobody(failure: Failure) -> Self {
        Self { outcome: Outcome::Cancelled, failure, unsent: false }
    }
}

impl Attempt {
    /// Asks the breaker for leave, and picks an endpoint, other than those that have been `tried` where there is one.
    pub(super) fn begin(call: &Call, key: Option<u64>, tried: &[SocketAddr], now: Instant) -> Result<Self, Failure> {
        let service = call.service.clone();
        let trial = match service.breaker() {
            Some(breaker) => Some(breaker.admit(now).map_err(|open| Failure {
                retry_after: open.retry_after,
                ..Failure::new(Reason::BreakerOpen, "too many of the service's recent calls failed")
            })?),
            None => None,
        };
        let slot = pick(&call.worker, &service, key, tried, now)?;
        let attempt = Self { service, slot, trial, ended: false };
        call.attempts.set(call.attempts.get() + 1);
        call.endpoint.set(Some(attempt.endpoint()));
        Ok(attempt)
    }

    /// Where it goes.
    pub(super) fn endpoint(&self) -> SocketAddr {
        self.slot.live().endpoint().addr
    }

    /// The endpoint's live state.
    pub(super) fn live(&self) -> &Live {
        self.slot.live()
    }

    /// The service that it is for.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Tells the breaker how the attempt went while its answer still runs; what comes of that counts no more there.
    pub(super) fn settle(&mut self, now: Instant, outcome: Outcome) {
        if let Some(trial) = self.trial.take() {
            trial.report(now, outcome.judgement());
        }
    }

    /// What its connection leads to.
    pub(super) fn target(&self) -> &Arc<Target> {
        self.slot.live().target()
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

    /// The head of its answer has come.
    fn answered(self, worker: &Worker, asked: &Asked, exchanged: Exchanged) -> Attempted {
        let Exchanged { response, connection, heard, sent } = exchanged;
        if heard.outcome.judgement() == Judgement::Success {
            // A failure that comes fast must not make its endpoint look like a fast one, nor a connection
            // that had to be opened like a slow one.
            let now = worker.now();
            let took = now.saturating_duration_since(sent);
            self.slot.observe(now, took);
            self.service.answered(took);
        }
        let progress = asked.terms.progress.clone();
        Attempted { response, relayable: Relayable { attempt: self, connection, progress, heard } }
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
        self.service.report(&mut self.slot, now, outcome.judgement());
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

/// Carries out an attempt, up to the head of its answer; `number` counts the attempts of its call from 1.
pub(super) async fn run(
    call: &Call,
    attempt: Attempt,
    asked: &Asked,
    alarm: &Alarm,
    number: u32,
    started: Instant,
) -> Result<Attempted, Failed> {
    let worker = &call.worker;
    let head = call.deadline.of_attempt(started, &attempt.service.config().policy.timeout);
    let bounds = Bounds { call: call.deadline, head, number };
    let ended = {
        let exchange = pin!(async {
            let mut exchanged = exchange::exchange(worker, &attempt, asked, bounds, started).await?;
            hold::until_judged(&mut exchanged, &attempt, asked).await?;
            Ok(exchanged)
        });
        within(worker, alarm, Some(attempt.target()), head, exchange).await
    };
    let failed = match ended {
        Ok(Ok(exchanged)) => return Ok(attempt.answered(worker, asked, exchanged)),
        Ok(Err(failed)) => failed,
        Err(Interrupted::Deadline) => overdue(&attempt, asked.terms.progress.as_deref()),
        Err(Interrupted::CutOff) => {
            Failed::of_nobody(Failure::new(Reason::ShuttingDown, "the sidecar stopped before the answer came"))
        }
        Err(Interrupted::EndpointGone) => Failed::of_nobody(Failure::new(Reason::UpstreamReset, ENDPOINT_GONE)),
    };
    let now = worker.now();
    if failed.outcome == Outcome::Failed(Reason::RequestTimeout) {
        attempt.slot.observe(now, now.saturating_duration_since(started));
    }
    attempt.end(now, failed.outcome);
    Err(failed)
}

/// The deadline passed. Whoever the exchange waited for is to blame: a service is not judged by an app that
/// did not finish its own request.
fn overdue(attempt: &Attempt, progress: Option<&Progress>) -> Failed {
    if progress.is_some_and(Progress::waits_for_app) {
        let detail = "the app did not finish its request body in time";
        return Failed::of_nobody(Failure::new(Reason::RequestTimeout, detail));
    }
    let detail = format!("{} did not answer in time", attempt.endpoint());
    let failure = Failure::new(Reason::RequestTimeout, detail);
    Failed { outcome: Outcome::Failed(Reason::RequestTimeout), failure, unsent: false }
}

/// Chooses an endpoint that may take one more attempt.
fn pick(
    worker: &Worker,
    service: &Service,
    key: Option<u64>,
    tried: &[SocketAddr],
    now: Instant,
) -> Result<Slot, Failure> {
    service.pick_but(tried, worker.index, key, now, &mut worker.random.borrow_mut()).map_err(|none| match none {
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

/// Waits for `future`, until `deadline`, or until the calls of the worker, or to the target, have to end. It is taken
/// by reference: a future that is handed on is copied, and that of an exchange is some kilobytes long.
pub(super) async fn within<F: Future>(
    worker: &Worker,
    alarm: &Alarm,
    target: Option<&Target>,
    deadline: Option<Instant>,
    mut future: Pin<&mut F>,
) -> Result<F::Output, Interrupted> {
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
        alarm.listen(cx);
        match deadline {
            Some(deadline) => alarm.poll(deadline, cx).map(|()| Err(Interrupted::Deadline)),
            None => Poll::Pending,
        }
    })
    .await
}
