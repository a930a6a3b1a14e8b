//! What is answered instead of a failure: the steps of a service's fallback, in their order.
//!
//! ```text
//! failure ─► step 1: for this failure? room? something to say? ─► answer, marked as what it is
//!                │ no
//!                ▼
//!            step 2 … ─► local reply
//! ```
//!
//! A fallback never hides that it is one: `Proxy-Status` names it and the reason, an older answer has an `Age`, the
//! call counts under the reason that it was saved from.

mod given;
mod last_good;

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_LENGTH};
use http_body::Body as _;

use super::{
    Failure,
    answer::Answer,
    asked::{Asked, Terms},
    attempt::within,
    call::{self, Call},
    connection::Peer,
    deadlines::Limit,
    grpc::Dialect,
    local_reply::PROXY_STATUS,
    manner::Manner,
    tap::Tap,
};
use crate::{
    model::{Judgement, Outcome, Reason},
    policy::fallback::{Cause, With},
    service::{Place, Ready, Service},
};

pub(super) use given::Given;
pub(super) use last_good::{Recording, record};

/// What a call is to be saved from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fallen {
    pub(super) cause: Cause,
    pub(super) outcome: Outcome,
}

impl Fallen {
    /// A failure that we would have to answer ourselves. One that the app is to blame for, or that nobody is there to
    /// hear of, is none.
    pub(super) fn of(failure: &Failure) -> Option<Self> {
        let Outcome::Failed(reason) = failure.outcome else { return None };
        Some(Self { cause: Cause::Reason(reason), outcome: failure.outcome })
    }

    /// The endpoint's own error.
    pub(super) fn of_answer(outcome: Outcome) -> Option<Self> {
        let is_error = matches!(outcome, Outcome::UpstreamError(_)) && outcome.judgement() == Judgement::Failure;
        is_error.then_some(Self { cause: Cause::UpstreamError, outcome })
    }

    /// Whether a step is for it.
    fn is_for(self, step: &Ready) -> bool {
        match (&step.step.on, self.cause) {
            (Some(on), cause) => on.contains(&cause),
            // What is the caller's fault, or the configuration's, is not mended by another answer.
            (None, Cause::Reason(reason)) => !matches!(reason, Reason::BadRequest | Reason::Loop),
            (None, Cause::UpstreamError) => false,
        }
    }
}

/// Whether any step of a service is for this.
pub(super) fn is_at_hand(service: &Service, fallen: Fallen) -> bool {
    service.fallbacks().steps().iter().any(|step| fallen.is_for(step))
}

/// The answer of the first step that has one.
pub(super) async fn instead(
    call: &mut Call,
    fallen: Fallen,
    asked: &Asked,
    peer: &Peer,
    manner: &Manner,
) -> Option<Response<Answer>> {
    let service = call.service.clone();
    if asked.terms.upgrade.is_some() {
        return None;
    }
    for step in service.fallbacks().steps().iter().filter(|step| fallen.is_for(step)) {
        let Some(place) = step.enter() else {
            service.metrics().fallback_refused(step.step.with.kind(), "full");
            continue;
        };
        let answer = match &step.step.with {
            With::LastGood(settings) => {
                if last_good::needs_body(settings, asked) {
                    read_all(call, asked).await;
                }
                last_good::find(call, settings, asked, manner)
            }
            With::Respond(respond) => {
                given::respond(respond, &step.body, asked).map(|given| given.render(asked, manner))
            }
            With::Service(name) => by_service(call, name.as_str(), asked, place, peer, manner).await,
        };
        match answer {
            Some(mut answer) => {
                let said = proxy_status(step.step.with.kind(), fallen.cause);
                answer.headers_mut().append(PROXY_STATUS, said);
                service.metrics().fell_back(step.step.with.kind());
                call.note_fallback(step.step.with.kind(), answer.status());
                return Some(answer);
            }
            None => service.metrics().fallback_refused(step.step.with.kind(), "nothing"),
        }
    }
    None
}

/// Reads the rest of a request's body, as far as it is kept: an attempt that never came about has read nothing.
async fn read_all(call: &Call, asked: &Asked) {
    let mut body = asked.upload.again();
    let reading = pin!(async {
        while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            if !asked.may_be_sent_again() {
                break;
            }
        }
    });
    let until = call.worker.now() + REST_OF_BODY;
    let _ = within(&call.worker, &call.alarm, None, Some(until), reading).await;
}

/// How long the app may take to finish the request that a fallback has to know whole.
const REST_OF_BODY: Duration = Duration::from_secs(1);

fn proxy_status(kind: &str, cause: Cause) -> HeaderValue {
    let text = format!("outrigger; fallback={kind}; details=\"{}\"", cause.as_str());
    HeaderValue::try_from(text).expect("the words of the failure table are plain ASCII")
}

/// Has another service answer, under its own policy, and within what the caller has left of its own time. What that
/// service falls back to counts as its answer.
async fn by_service(
    call: &Call,
    name: &str,
    asked: &Asked,
    place: Place,
    peer: &Peer,
    manner: &Manner,
) -> Option<Response<Answer>> {
    if !asked.may_be_sent_again() {
        return None;
    }
    let service = call.worker.table.current().find(name)?.clone();
    let now = call.worker.now();
    let mut second = Call::begin(&call.worker, service, now, None);
    second.deadline = second.deadline.no_later_than(call.deadline.end());
    for limit in Limit::of(asked.terms.dialect, &asked.head.headers).into_iter().flatten() {
        second.deadline = limit.shorten(second.deadline, call.started());
    }
    let asked = again(asked, &second.service);
    // One service falls back to another, never in a circle: `check` has seen to that.
    Box::pin(answer_of(second, asked, place, peer, manner, now)).await
}

async fn answer_of(
    mut call: Call,
    asked: Asked,
    place: Place,
    peer: &Peer,
    manner: &Manner,
    _now: Instant,
) -> Option<Response<Answer>> {
    let fallen = match call::journey(&mut call, &asked).await {
        Ok(attempted) => {
            let outcome = attempted.relayable.heard.outcome;
            match Fallen::of_answer(outcome) {
                None => return Some(call::relay(call, asked, attempted, vec![Tap::Place(place)], peer, manner)),
                Some(fallen) => {
                    attempted.relayable.attempt.end(call.worker.now(), outcome);
                    fallen
                }
            }
        }
        Err(failure) => match Fallen::of(&failure) {
            Some(fallen) => fallen,
            None => {
                let now = call.worker.now();
                call.end(now, failure.outcome);
                return None;
            }
        },
    };
    let answer = instead(&mut call, fallen, &asked, peer, manner).await;
    let now = call.worker.now();
    call.end(now, fallen.outcome);
    answer
}

/// The same request to another service, which is called what its endpoints are called.
fn again(asked: &Asked, service: &Service) -> Asked {
    let Terms { progress, expects, dialect, version, callers_attempt, .. } = &asked.terms;
    let terms = Terms {
        progress: progress.clone(),
        host_names_service: false,
        hash_key: call::hash_key_of(service, &asked.head),
        upgrade: None,
        expects: expects.clone(),
        dialect: *dialect,
        version: *version,
        callers_attempt: *callers_attempt,
        is_graphql: call::is_graphql(service),
    };
    Asked { head: asked.head.clone(), upload: asked.upload.again(), terms }
}

/// A whole answer of ours to a request.
fn whole(mut response: Response<Answer>, length: usize, asked: &Asked) -> Response<Answer> {
    // Of a HEAD's answer only what it says of its length is known, and a 304 speaks of another answer's.
    let has_body = !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_known = has_body && (asked.head.method != Method::HEAD || length > 0);
    if asked.terms.dialect == Dialect::Http && is_known {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if asked.head.method == Method::HEAD {
        *response.body_mut() = Answer::Empty;
    }
    response
}

/// An answer that is at hand as a whole, for whoever speaks which dialect.
impl Given {
    pub(super) fn render(self, asked: &Asked, manner: &Manner) -> Response<Answer> {
        let (response, length) = self.into_response(asked, manner);
        whole(response, length, asked)
    }
}
