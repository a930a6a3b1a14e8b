//! Identical GETs at the same moment share one call (Hystrix's request cache and collapser, as far as a proxy can
//! honestly give them).
//!
//! Identical are calls of the same method for the same authority, path and query, with the same headers but for those
//! that only trace a call. So callers with other credentials or other tastes never share.
//!
//! Followers begin once the answer is whole, within a limit: an answer that turns out to be longer, or somebody's own,
//! or one that takes its time, is not theirs, and nobody waits for whoever reads slowly.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, HOST, RANGE, SET_COOKIE},
};
use http_body::{Body as _, Frame};
use tokio::time::timeout;

use super::{
    Failure,
    answer::Answer,
    asked::Asked,
    attempt::{Interrupted, within},
    call::{Call, is_event_stream},
    fallback::Given,
    grpc::Dialect,
    headers,
    manner::Manner,
    upload::Upload,
};
use crate::{
    model::{Outcome, Reason},
    service::{Follower, Kept, Key, KeyBuilder, Leader, News, Role},
};

/// The longest answer that is shared, in bytes.
const LONGEST: usize = 1 << 20;

/// How long a follower waits for the rest of an answer that has begun. Its leader may have an app that reads slowly,
/// and some answers are not meant to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Headers that differ from call to call, and make no answer another one. `baggage` is none of them: apps decide by it.
/// Nor is the number of an attempt: one that is made because another hangs must not wait for that other.
const OF_TRACING: [&str; 20] = [
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-request-id",
    "x-correlation-id",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "uber-trace-id",
    "sw8",
    "via",
    "x-request-timeout",
    "x-request-timeout-scope",
];

/// How a call takes part.
pub(super) enum Part {
    /// It goes its way; if it leads, others wait for what comes of it.
    Goes(Option<Leader>),
    /// It has got another's answer.
    Gets(Given, Outcome),
    /// It has got another's failure, an error of the endpoint's, for which the service has a fallback.
    Falls(Outcome),
}

/// Finds others that ask for the same, and waits for the first of them.
pub(super) async fn take_part(call: &Call, asked: &Asked) -> Result<Part, Failure> {
    let (Some(flights), Some(key)) = (call.service.flights(), key(asked)) else { return Ok(Part::Goes(None)) };
    loop {
        let follower = match flights.join(key) {
            Role::Lead(leader) => return Ok(Part::Goes(Some(leader))),
            Role::Alone => return Ok(Part::Goes(None)),
            Role::Follow(follower) => follower,
        };
        let heard = match within(&call.worker, &call.alarm, None, call.deadline.head(), pin!(hear(follower))).await {
            Ok(heard) => heard,
            Err(Interrupted::Deadline | Interrupted::EndpointGone) => {
                return Err(Failure::new(Reason::RequestTimeout, "the call that it shared was not answered in time"));
            }
            Err(Interrupted::CutOff) => {
                return Err(Failure::new(Reason::ShuttingDown, "the sidecar stopped before the answer came"));
            }
        };
        match heard {
            News::Answer(kept, outcome) => {
                call.service.metrics().coalesced.inc();
                return Ok(Part::Gets(given(&kept), outcome));
            }
            News::Failure { reason, detail, retry_after } => {
                call.service.metrics().coalesced.inc();
                return Err(Failure { retry_after, ..Failure::new(reason, detail.to_string()) });
            }
            News::Fallen(outcome) => return Ok(Part::Falls(outcome)),
            News::NotForSharing => return Ok(Part::Goes(None)),
            News::Abandoned | News::Pending | News::Begun => {}
        }
    }
}

/// What becomes of a leader, as far as there is patience for it.
async fn hear(mut follower: Follower) -> News {
    match follower.first().await {
        News::Begun => {}
        news => return news,
    }
    match timeout(PATIENCE, follower.end()).await {
        Ok(news) => news,
        Err(_) => {
            follower.overtake();
            News::Abandoned
        }
    }
}

/// Another's answer, as this call's app gets it.
pub(super) fn render(call: &mut Call, given: Given, asked: &Asked, manner: &Manner) -> Response<Answer> {
    let mut reply = given.render(asked, manner);
    manner.decorate(call, reply.headers_mut());
    let bytes = reply.body().size_hint().exact().unwrap_or(0);
    if let Some(note) = call.note() {
        note.status = Some(reply.status().as_u16());
        note.bytes_out = bytes;
        note.details = Some("shared the answer of an identical call".to_owned());
    }
    reply
}

/// Tells the followers that the call which leads has failed. What only it has run out of is not theirs: time that its
/// own caller had set, or a sidecar that stops.
pub(super) fn tell_failure(lead: Option<Leader>, call: &Call, failure: &Failure) {
    let (Some(mut leader), Outcome::Failed(reason)) = (lead, failure.outcome) else { return };
    if matches!(reason, Reason::RequestTimeout | Reason::ConnectTimeout) && call.is_hurried() {
        return;
    }
    let (detail, retry_after) = ((*failure.detail).into(), failure.retry_after);
    leader.tell(News::Failure { reason, detail, retry_after });
}

/// What is asked for; `None` when it is not to be shared.
fn key(asked: &Asked) -> Option<Key> {
    let headers = &asked.head.headers;
    let is_plain = matches!(asked.head.method, Method::GET | Method::HEAD)
        && matches!(asked.upload, Upload::Empty)
        && asked.terms.dialect == Dialect::Http
        && asked.terms.upgrade.is_none();
    if !is_plain || headers.contains_key(RANGE) || says(headers, &["no-store", "no-cache"]) {
        return None;
    }
    let authority = headers.get(HOST).map_or(b"".as_slice(), HeaderValue::as_bytes);
    let authority = asked.head.uri.authority().map_or(authority, |authority| authority.as_str().as_bytes());
    let path = asked.head.uri.path_and_query().map_or("/", |path| path.as_str());
    let key = KeyBuilder::new().with(asked.head.method.as_str().as_bytes()).with(authority).with(path.as_bytes());
    let counts = |name: &str| !OF_TRACING.contains(&name) && name != HOST.as_str();
    let headers = headers.iter().filter(|(name, _)| counts(name.as_str()));
    Some(headers.fold(key, |key, (name, value)| key.with(name.as_str().as_bytes()).with(value.as_bytes())).build())
}

fn given(kept: &Kept) -> Given {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = kept.status;
    head.headers = kept.headers.clone();
    Given { head, body: kept.body.clone(), trailers: kept.trailers.clone() }
}

/// Whether Cache-Control has one of these directives.
fn says(headers: &HeaderMap, directives: &[&str]) -> bool {
    let said = headers.get_all(CACHE_CONTROL).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let name = |directive: &[u8]| directive.split(|byte| *byte == b'=').next().unwrap_or_default().to_ascii_lowercase();
    said.map(<[u8]>::trim_ascii).any(|said| directives.iter().any(|directive| name(said) == directive.as_bytes()))
}

/// The leading call's answer, in the making.
#[derive(Debug)]
pub(super) struct Lead {
    leader: Leader,
    status: StatusCode,
    headers: HeaderMap,
    body: BytesMut,
    trailers: Option<HeaderMap>,
    at: Instant,
}

impl Lead {
    /// Begins with the head; what that says is not for sharing is told at once.
    pub(super) fn begin(mut leader: Leader, status: StatusCode, headers: &HeaderMap, at: Instant) -> Option<Self> {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let is_own = headers.contains_key(SET_COOKIE) || says(headers, &["private", "no-store"]);
        let is_long = length.is_some_and(|length| length > LONGEST) || is_event_stream(headers);
        if is_own || is_long || status.is_informational() {
            leader.tell(News::NotForSharing);
            return None;
        }
        leader.begun();
        let mut headers = headers.clone();
        headers::strip_hop(&mut headers);
        Some(Self { leader, status, headers, body: BytesMut::new(), trailers: None, at })
    }

    /// A piece of the answer.
    pub(super) fn frame(&mut self, frame: &Frame<Bytes>) {
        if self.leader.has_told() {
            return;
        }
        if let Some(data) = frame.data_ref() {
            if self.body.len() + data.len() > LONGEST {
                self.leader.tell(News::NotForSharing);
                self.body = BytesMut::new();
                return;
            }
            self.body.extend_from_slice(data);
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }

    /// The answer is whole.
    pub(super) fn complete(self, outcome: Outcome) {
        let Self { mut leader, status, headers, body, trailers, at } = self;
        let kept = Kept { status, headers, body: body.freeze(), trailers, at };
        leader.tell(News::Answer(kept.into(), outcome));
    }

    /// The answer has broken off. If that is the endpoint's doing it is everybody's failure.
    pub(super) fn broke(mut self, outcome: Outcome, why: &str) {
        if let Outcome::Failed(reason @ (Reason::UpstreamReset | Reason::BadResponse)) = outcome {
            self.leader.tell(News::Failure { reason, detail: why.into(), retry_after: None });
        }
    }
}
