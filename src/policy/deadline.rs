//! Deadlines: how long may this call, this attempt, this pause still take?
//!
//! One call has one budget. `request` runs from the call's first moment until the head of the answer is
//! there, waiting in the bulkhead's queue and all attempts included. From then on `idle` bounds each
//! pause of the body, in either direction, so that a download or a stream lives as long as it moves.
//! `total` bounds everything, for who wants it. `attempt` bounds one attempt up to the head of its
//! answer, and `connect` the part of it that opens a connection. After an upgrade only `tunnel` counts.
//!
//! The arithmetic is all there is: whoever holds a [`Deadline`] also holds the clock.

use std::time::{Duration, Instant};

/// Limits on time; `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// From the call's start to the head of its answer. Default 10 s.
    pub request: Option<Duration>,
    /// To open one connection. Default 1 s.
    pub connect: Option<Duration>,
    /// From an attempt's start to the head of its answer. Off by default: an attempt may use all of `request`.
    pub attempt: Option<Duration>,
    /// Each pause of a body, in either direction. Default 60 s.
    pub idle: Option<Duration>,
    /// From the call's start to the last byte of its answer. Off by default.
    pub total: Option<Duration>,
    /// Silence in both directions of an upgraded connection (WebSocket). Default 1 h.
    pub tunnel: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request: Some(Duration::from_secs(10)),
            connect: Some(Duration::from_secs(1)),
            attempt: None,
            idle: Some(Duration::from_secs(60)),
            total: None,
            tunnel: Some(Duration::from_secs(3600)),
        }
    }
}

/// The two moments that bound one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// When the head of the answer must be there.
    head: Option<Instant>,
    /// When its last byte must be.
    end: Option<Instant>,
}

impl Deadline {
    /// The deadline of a call that starts now.
    pub fn starting(now: Instant, settings: &Settings) -> Self {
        let end = settings.total.and_then(|total| now.checked_add(total));
        let head = settings.request.and_then(|request| now.checked_add(request));
        Self { head: earliest(head, end), end }
    }

    /// The same, but over by `limit` at the latest: a deadline that the caller sent bounds everything, and is never
    /// a longer one.
    #[must_use]
    pub fn no_later_than(self, limit: Option<Instant>) -> Self {
        Self { head: earliest(self.head, limit), end: earliest(self.end, limit) }
    }

    /// The same, but with the head of the answer there by `limit` at the latest.
    #[must_use]
    pub fn head_no_later_than(self, limit: Option<Instant>) -> Self {
        Self { head: earliest(self.head, limit), ..self }
    }

    /// When the head of the answer must be there.
    pub fn head(&self) -> Option<Instant> {
        self.head
    }

    /// When the last byte of the answer must be there.
    pub fn end(&self) -> Option<Instant> {
        self.end
    }

    /// Whether the head can no longer come in time: such a call is not sent.
    pub fn is_over(&self, now: Instant) -> bool {
        self.head.is_some_and(|head| head <= now)
    }

    /// When an attempt that starts now must have the head of its answer: its own limit or the call's,
    /// whichever is earlier.
    pub fn of_attempt(&self, now: Instant, settings: &Settings) -> Option<Instant> {
        earliest(self.head, settings.attempt.and_then(|attempt| now.checked_add(attempt)))
    }

    /// When a connection that is begun now must stand, given its attempt's deadline.
    pub fn of_connect(attempt: Option<Instant>, now: Instant, settings: &Settings) -> Option<Instant> {
        earliest(attempt, settings.connect.and_then(|connect| now.checked_add(connect)))
    }
}

/// The earlier of two moments, where `None` is never.
pub fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> Settings {
        Settings { attempt: Some(3 * SECOND), total: Some(20 * SECOND), ..Settings::default() }
    }

    #[test]
    fn an_attempt_never_outlives_its_call() {
        let start = Instant::now();
        let deadline = Deadline::starting(start, &settings());
        assert_eq!(deadline.of_attempt(start, &settings()), Some(start + 3 * SECOND));
        assert_eq!(deadline.of_attempt(start + 8 * SECOND, &settings()), Some(start + 10 * SECOND));
    }

    #[test]
    fn a_connection_never_outlives_its_attempt() {
        let start = Instant::now();
        let attempt = Some(start + SECOND / 2);
        assert_eq!(Deadline::of_connect(attempt, start, &settings()), attempt);
        assert_eq!(Deadline::of_connect(None, start, &settings()), Some(start + SECOND));
    }

    #[test]
    fn total_bounds_the_head_too() {
        let start = Instant::now();
        let short = Settings { total: Some(SECOND), ..Settings::default() };
        let deadline = Deadline::starting(start, &short);
        assert_eq!(deadline.head(), Some(start + SECOND));
        assert!(!deadline.is_over(start));
        assert!(deadline.is_over(start + SECOND));
    }

    #[test]
    fn a_callers_deadline_shortens_and_never_lengthens() {
        let start = Instant::now();
        let deadline = Deadline::starting(start, &settings());
        let short = deadline.no_later_than(Some(start + SECOND));
        assert_eq!((short.head(), short.end()), (Some(start + SECOND), Some(start + SECOND)));
        let long = deadline.no_later_than(Some(start + 15 * SECOND));
        assert_eq!((long.head(), long.end()), (Some(start + 10 * SECOND), Some(start + 15 * SECOND)));
        assert_eq!(deadline.no_later_than(Some(start + 60 * SECOND)), deadline);
        assert_eq!(deadline.no_later_than(None), deadline);
    }

    #[test]
    fn what_is_off_never_ends() {
        let off = Settings { request: None, connect: None, attempt: None, idle: None, total: None, tunnel: None };
        let now = Instant::now();
        let deadline = Deadline::starting(now, &off);
        assert_eq!(deadline.of_attempt(now, &off), None);
        assert!(!deadline.is_over(now + Duration::from_secs(1_000_000)));
    }
}
