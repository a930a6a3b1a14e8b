//! Deadlines that callers send, and that the next hop is told.
//!
//! A caller may say how much time it has: in `grpc-timeout`, or in `x-request-timeout`, as milliseconds or as a
//! duration. It can only shorten what the service's policy allows, and bounds the call as a whole. Each attempt
//! tells its endpoint what is left by then, so that nobody works on an answer that nobody waits for; a limit that
//! ends with the head of the answer, as `timeout.request` does, says so in `x-request-timeout-scope: head`, or a
//! download that takes its time would be cut by the next sidecar.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::grpc::{
    Dialect,
    timeout::{self, GRPC_TIMEOUT},
};
use crate::policy::deadline::Deadline;

/// How much time is left for a call.
pub(super) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

/// What that time is for: `head`, or without the header all of the call.
const SCOPE: HeaderName = HeaderName::from_static("x-request-timeout-scope");

/// Which attempt of a call this is, from 1. A call that is itself a retry is not retried again.
pub(super) const ATTEMPT: HeaderName = HeaderName::from_static("x-outrigger-attempt");

/// What a caller has said about its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The whole call has to be over.
    Whole(Duration),
    /// The head of the answer has to be there.
    Head(Duration),
}

/// What the next hop is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    /// When the whole call has to be over.
    end: Option<Instant>,
    /// When the head of this attempt's answer has to be there.
    head: Option<Instant>,
}

impl Limit {
    /// What the head of a request says; what cannot be read says nothing.
    pub(super) fn of(dialect: Dialect, headers: &HeaderMap) -> [Option<Self>; 2] {
        let of_grpc = headers.get(GRPC_TIMEOUT).filter(|_| dialect.is_grpc()).and_then(timeout::parse);
        let of_http = headers.get(REQUEST_TIMEOUT).and_then(|value| parse(value.as_bytes()));
        let only_head = headers.get(SCOPE).is_some_and(|scope| scope.as_bytes().eq_ignore_ascii_case(b"head"));
        [of_grpc.map(Self::Whole), of_http.map(if only_head { Self::Head } else { Self::Whole })]
    }

    /// A deadline with this limit, counted from `started`.
    pub(super) fn shorten(self, deadline: Deadline, started: Instant) -> Deadline {
        match self {
            Self::Whole(limit) => deadline.no_later_than(started.checked_add(limit)),
            Self::Head(limit) => deadline.head_no_later_than(started.checked_add(limit)),
        }
    }
}

impl Passed {
    /// What is told of a call's deadline, and of the limit of one of its attempts.
    pub(super) fn of(call: Deadline, attempt: Option<Instant>) -> Self {
        Self { end: call.end(), head: attempt }
    }

    /// Writes it into the head of a request that goes out now.
    pub(super) fn write(self, headers: &mut HeaderMap, dialect: Dialect, now: Instant) {
        let left = |end: Instant| end.saturating_duration_since(now);
        if let (true, Some(end)) = (dialect.is_grpc(), self.end) {
            headers.insert(GRPC_TIMEOUT, timeout::format(left(end)));
        }
        let is_whole = self.end.is_some_and(|end| self.head.is_none_or(|head| end <= head));
        let first = if is_whole { self.end } else { self.head };
        let Some(first) = first else {
            headers.remove(REQUEST_TIMEOUT);
            return;
        };
        headers.insert(REQUEST_TIMEOUT, HeaderValue::from(u64::try_from(left(first).as_millis()).unwrap_or(u64::MAX)));
        if is_whole {
            headers.remove(SCOPE);
        } else {
            headers.insert(SCOPE, HeaderValue::from_static("head"));
        }
    }
}

/// Reads milliseconds, or a number with one of the units `us`, `ms`, `s`, `m` and `h`.
fn parse(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim_start() {
        "us" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(header).collect()
    }

    #[test]
    fn times_are_milliseconds_or_durations() {
        for (text, expected) in [
            ("250", Some(250_000)),
            ("0", Some(0)),
            ("250ms", Some(250_000)),
            ("1.5s", Some(1_500_000)),
            (" 2 s ", Some(2_000_000)),
            ("700us", Some(700)),
            ("1m", Some(60_000_000)),
            ("1h", Some(3_600_000_000)),
            ("", None),
            ("s", None),
            ("-1", None),
            ("1e3", None),
            ("1.2.3", None),
            ("10d", None),
            ("1S", None),
            ("99999999999999999999999h", None),
            ("inf", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected.map(Duration::from_micros), "{text:?}");
        }
        assert_eq!(parse(b"\xff"), None);
    }

    #[test]
    fn what_a_caller_says_bounds_the_whole_call_unless_it_says_otherwise() {
        let whole = headers(&[("x-request-timeout", "1s")]);
        assert_eq!(Limit::of(Dialect::Http, &whole)[1], Some(Limit::Whole(Duration::from_secs(1))));
        let head = headers(&[("x-request-timeout", "1s"), ("x-request-timeout-scope", "head")]);
        assert_eq!(Limit::of(Dialect::Http, &head)[1], Some(Limit::Head(Duration::from_secs(1))));
        let grpc = headers(&[("grpc-timeout", "1S")]);
        assert_eq!(Limit::of(Dialect::Http, &grpc), [None, None], "a header of another dialect");
        assert_eq!(Limit::of(Dialect::Grpc, &grpc)[0], Some(Limit::Whole(Duration::from_secs(1))));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn what_is_left_is_passed_on() {
        let now = Instant::now();
        let at = |ms| Some(now + Duration::from_millis(ms));
        for (end, head, expected) in [
            (None, None, None),
            (None, at(300), Some(("300", true))),
            (at(900), at(300), Some(("300", true))),
            (at(900), at(900), Some(("900", false))),
            (at(900), None, Some(("900", false))),
        ] {
            let mut headers = headers(&[("x-request-timeout", "7"), ("x-request-timeout-scope", "head")]);
            Passed { end, head }.write(&mut headers, Dialect::Http, now);
            let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(text(&REQUEST_TIMEOUT), expected.map(|(left, _)| left.to_owned()));
            if let Some((_, of_head)) = expected {
                assert_eq!(headers.contains_key(SCOPE), of_head);
            }
        }
    }
}
