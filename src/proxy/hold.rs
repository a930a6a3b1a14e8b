//! The beginning of an answer, held back until it is known what the answer amounts to.
//!
//! As a rule an answer is let through as it comes. Where its outcome stands further on (a grpc-status in trailers, a
//! mark in a JSON body) and another attempt is still possible, its first pieces wait here, within limits: whatever
//! has gone to the app cannot be taken back.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body::{Frame, SizeHint};

use super::{
    Failure,
    asked::Asked,
    attempt::{Attempt, Failed},
    exchange::Exchanged,
    retry,
    tongue::{code_of, outcome_of, unsaid},
    upload::{Progress, Upload},
};
use crate::{
    model::{Outcome, Reason, UpstreamFault},
    upstream::{Connection, Payload, PayloadError},
};

/// The payload of an answer, with the pieces of it that have been held back in front.
#[derive(Debug)]
pub(super) struct Flow {
    held: VecDeque<Frame<Bytes>>,
    payload: Payload,
}

impl Flow {
    /// A payload of which nothing is held back.
    pub(super) fn of(payload: Payload) -> Self {
        Self { held: VecDeque::new(), payload }
    }

    /// Whether nothing follows.
    pub(super) fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.payload.is_end_stream()
    }

    /// How much follows, where that is known.
    pub(super) fn size_hint(&self) -> SizeHint {
        let held: usize = self.held.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        match self.payload.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + held as u64),
            None => SizeHint::default(),
        }
    }

    /// The next piece.
    pub(super) fn poll_frame(
        &mut self,
        connection: &mut Connection<Upload>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PayloadError>>> {
        match self.held.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => connection.poll_frame(&mut self.payload, cx),
        }
    }

    /// Whether the payload has come to its end, whatever is held.
    fn is_over(&self) -> bool {
        self.payload.is_end_stream() || self.held.back().is_some_and(Frame::is_trailers)
    }

    /// Takes one more piece of the payload in, behind those that are held; whether there was one.
    async fn hold_one(&mut self, connection: &mut Connection<Upload>) -> Result<Option<&Frame<Bytes>>, PayloadError> {
        let frame = poll_fn(|cx| connection.poll_frame(&mut self.payload, cx)).await;
        match frame.transpose()? {
            Some(frame) => {
                self.held.push_back(frame);
                Ok(self.held.back())
            }
            None => Ok(None),
        }
    }
}

/// Waits for as much of an answer as it takes to judge it, if anybody wants to know before the app has it.
pub(super) async fn until_judged(exchanged: &mut Exchanged, attempt: &Attempt, asked: &Asked) -> Result<(), Failed> {
    if exchanged.heard.due && retry::waits_for_trailers(attempt.service(), asked) {
        trailers(exchanged).await.map_err(|error| broken(&error, attempt, asked))?;
    }
    if let Some(failure_if) = &attempt.service().config().policy.failure_if
        && exchanged.heard.outcome == Outcome::Ok
    {
        let (status, headers) = (exchanged.response.status(), exchanged.response.headers());
        let mut is_marked = failure_if.is_marked_by(headers);
        // A 4xx speaks of the request, whatever its body says.
        if !is_marked && failure_if.reads_body() && status.is_success() && is_json(headers) {
            let whole = match is_coded(headers) {
                false => body(exchanged).await.map_err(|error| broken(&error, attempt, asked))?,
                true => None,
            };
            match whole {
                Some(body) => is_marked = failure_if.is_marked_in(&body),
                None => attempt.service().metrics().failure_if_unjudged.inc(),
            }
        }
        if is_marked {
            exchanged.heard.outcome = Outcome::UpstreamError(UpstreamFault::Marked);
        }
    }
    Ok(())
}

/// gRPC: an answer that begins with its trailers has said how the call went. One that begins with a message goes to
/// the app, and what its trailers say then is final.
async fn trailers(exchanged: &mut Exchanged) -> Result<(), PayloadError> {
    let Exchanged { response, connection, heard, .. } = exchanged;
    loop {
        let Some(frame) = response.body_mut().hold_one(connection).await? else {
            (heard.outcome, heard.due) = (unsaid(), false);
            return Ok(());
        };
        if let Some(trailers) = frame.trailers_ref() {
            heard.outcome = outcome_of(trailers).unwrap_or_else(unsaid);
            heard.code = code_of(trailers);
            heard.pushback = retry::pushback_of(trailers);
            heard.due = false;
            return Ok(());
        }
        if frame.data_ref().is_some_and(|data| !data.is_empty()) {
            return Ok(());
        }
    }
}

/// Whether an answer is one document of JSON. A stream of many, which may never end, has other types, but for one.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    essence == b"application/json" || (essence.ends_with(b"+json") && essence != b"application/stream+json")
}

/// Whether a body would have to be decompressed to be read.
fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The whole body of an answer, which stays held; `None` when it is too long for that, and goes on as it comes.
async fn body(exchanged: &mut Exchanged) -> Result<Option<Vec<u8>>, PayloadError> {
    let Exchanged { response, connection, .. } = exchanged;
    let flow = response.body_mut();
    if flow.size_hint().exact().is_some_and(|length| length > HELD as u64) {
        return Ok(None);
    }
    let mut whole = Vec::new();
    while !flow.is_over() {
        match flow.hold_one(connection).await? {
            Some(frame) => whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            None => break,
        }
        if whole.len() > HELD {
            return Ok(None);
        }
    }
    Ok(Some(whole))
}

/// How much of an answer is held back to be judged, in bytes.
const HELD: usize = 256 * 1024;

/// The answer has broken off while it was held back: the app knows nothing of it yet.
fn broken(error: &PayloadError, attempt: &Attempt, asked: &Asked) -> Failed {
    if let Some(fault) = asked.terms.progress.as_deref().and_then(Progress::failure) {
        return Failed { outcome: Outcome::Cancelled, failure: super::call::upload_failure(fault), unsent: false };
    }
    let reason = if error.malformed { Reason::BadResponse } else { Reason::UpstreamReset };
    let mut failure = Failure::new(reason, format!("{}: {}", attempt.endpoint(), error.detail));
    if let (true, Some(code)) = (asked.terms.dialect.is_grpc(), error.code) {
        failure.grpc_status = Some(super::grpc::status::of_reset(code));
    }
    Failed { outcome: Outcome::Failed(reason), failure, unsent: false }
}
