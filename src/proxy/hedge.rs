//! Hedging: a second attempt beside a first that takes longer than most.
//!
//! The first good answer wins, and the other attempt is cancelled, which counts for nothing. A hedge costs the
//! service an attempt that it may not have needed, so it is off unless asked for, is paid from the budget of the
//! retries, and is made only for what may be sent twice, with all of its body at hand.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Instant,
};

use super::{
    asked::{Asked, Tried},
    attempt::{self, Attempt, Attempted, Failed},
    call::Call,
    retry::may_repeat,
    worker::Worker,
};
use crate::{model::Judgement, policy::retry::Hedge};

/// What an attempt came to.
type Ended = Result<Attempted, Failed>;

/// Carries out an attempt, with a second one beside it when that is due.
pub(super) async fn run(
    call: &Call,
    hedge: Hedge,
    first: Attempt,
    asked: &Asked,
    tried: &mut Tried,
    now: Instant,
) -> Ended {
    let after = call.service.retries().and_then(|retries| retries.hedge_after(hedge));
    let number = call.attempts.get();
    let first = attempt::run(call, first, asked, &call.alarm, number, now);
    let Some(due) = after.and_then(|after| now.checked_add(after)).filter(|_| may_repeat(asked)) else {
        return first.await;
    };
    let mut first = pin!(first);
    let mut pause = pin!(tokio::time::sleep_until(due.into()));
    let early = poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => pause.as_mut().poll(cx).map(|()| None),
    });
    if let Some(ended) = early.await {
        return ended;
    }
    match begin(call, asked, tried) {
        None => first.await,
        Some(second) => {
            tried.push(second.endpoint());
            let alarm = call.worker.alarms.lend();
            let second = attempt::run(call, second, asked, &alarm, call.attempts.get(), call.worker.now());
            race(&call.worker, first, pin!(second)).await
        }
    }
}

/// The second attempt, if the service, its breaker and the budget have room for it, at an endpoint of its own.
fn begin(call: &Call, asked: &Asked, tried: &Tried) -> Option<Attempt> {
    let retries = call.service.retries()?;
    let now = call.worker.now();
    if asked.upload.whole().is_none() || call.deadline.is_over(now) || !call.service.has_other(tried) {
        return None;
    }
    if !retries.take(now) {
        call.service.metrics().retry_budget_exhausted.inc();
        return None;
    }
    match Attempt::begin(call, asked.terms.hash_key, tried, now) {
        Ok(attempt) => {
            call.service.metrics().retried("hedge");
            Some(attempt)
        }
        Err(_) => {
            retries.put_back();
            None
        }
    }
}

/// The first good answer of two; when neither is good, the one that came last.
async fn race<A, B>(worker: &Worker, mut first: Pin<&mut A>, mut second: Pin<&mut B>) -> Ended
where
    A: Future<Output = Ended>,
    B: Future<Output = Ended>,
{
    let (mut first_is_over, mut second_is_over) = (false, false);
    poll_fn(|cx| {
        if !first_is_over && let Poll::Ready(ended) = first.as_mut().poll(cx) {
            first_is_over = true;
            if is_good(&ended) || second_is_over {
                return Poll::Ready(ended);
            }
            give_up(worker, ended);
        }
        if !second_is_over && let Poll::Ready(ended) = second.as_mut().poll(cx) {
            second_is_over = true;
            if is_good(&ended) || first_is_over {
                return Poll::Ready(ended);
            }
            give_up(worker, ended);
        }
        Poll::Pending
    })
    .await
}

/// A bad answer counts as what it is, though nobody gets it.
fn give_up(worker: &Worker, ended: Ended) {
    if let Ok(Attempted { relayable, .. }) = ended {
        relayable.attempt.end(worker.now(), relayable.heard.outcome);
    }
}

fn is_good(ended: &Ended) -> bool {
    ended.as_ref().is_ok_and(|attempted| attempted.relayable.heard.outcome.judgement() != Judgement::Failure)
}
