//! What happened: how an attempt or a call ended, and why outrigger answered in an upstream's stead.
//!
//! [`Reason`] is the contract's failure table, one row a variant: its word, HTTP status, gRPC code and
//! Proxy-Status error live here and nowhere else, so that a metric label, a log field, a reply and a
//! page of the docs cannot disagree.

use http::{Method, StatusCode};

/// Why outrigger made an answer itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No service bears the name.
    UnknownService,
    /// The service has no endpoint that may be tried.
    NoEndpoints,
    /// The breaker refuses calls.
    BreakerOpen,
    /// The bulkhead, its queue or an endpoint's limit is full.
    BulkheadFull,
    /// The endpoint refused the connection, or cannot be reached.
    ConnectRefused,
    /// The endpoint did not accept the connection in time.
    ConnectTimeout,
    /// The answer did not come in time.
    RequestTimeout,
    /// The endpoint closed the connection in the middle of an exchange.
    UpstreamReset,
    /// The endpoint's answer breaks the protocol.
    BadResponse,
    /// TLS with the endpoint failed.
    TlsFailed,
    /// The call has been through this sidecar before.
    Loop,
    /// The app's request breaks the protocol or a limit.
    BadRequest,
    /// The sidecar is stopping.
    ShuttingDown,
    /// The caller is not one of those that may call.
    NotAllowed,
}

struct Row {
    word: &'static str,
    status: StatusCode,
    grpc: u8,
    proxy_error: &'static str,
    title: &'static str,
}

impl Reason {
    /// Every reason, in the order of the contract's table.
    pub const ALL: [Self; 14] = [
        Self::UnknownService,
        Self::NoEndpoints,
        Self::BreakerOpen,
        Self::BulkheadFull,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::RequestTimeout,
        Self::UpstreamReset,
        Self::BadResponse,
        Self::TlsFailed,
        Self::Loop,
        Self::BadRequest,
        Self::ShuttingDown,
        Self::NotAllowed,
    ];

    #[rustfmt::skip]
    const fn row(self) -> Row {
        const fn row(word: &'static str, status: StatusCode, grpc: u8, proxy_error: &'static str, title: &'static str) -> Row {
            Row { word, status, grpc, proxy_error, title }
        }
        use StatusCode as S;
        match self {
            Self::UnknownService => row("unknown_service", S::NOT_FOUND, 12, "destination_not_found", "No service bears this name"),
            Self::NoEndpoints => row("no_endpoints", S::SERVICE_UNAVAILABLE, 14, "destination_unavailable", "The service has no endpoints"),
            Self::BreakerOpen => row("breaker_open", S::SERVICE_UNAVAILABLE, 14, "destination_unavailable", "The service's breaker is open"),
            Self::BulkheadFull => row("bulkhead_full", S::SERVICE_UNAVAILABLE, 8, "connection_limit_reached", "The service's bulkhead is full"),
            Self::ConnectRefused => row("connect_refused", S::BAD_GATEWAY, 14, "connection_refused", "The endpoint refused the connection"),
            Self::ConnectTimeout => row("connect_timeout", S::GATEWAY_TIMEOUT, 14, "connection_timeout", "The endpoint did not accept the connection in time"),
            Self::RequestTimeout => row("request_timeout", S::GATEWAY_TIMEOUT, 4, "http_response_timeout", "The answer did not come in time"),
            Self::UpstreamReset => row("upstream_reset", S::BAD_GATEWAY, 14, "connection_terminated", "The endpoint broke off the exchange"),
            Self::BadResponse => row("bad_response", S::BAD_GATEWAY, 13, "http_protocol_error", "The endpoint's answer is not valid HTTP"),
            Self::TlsFailed => row("tls_failed", S::BAD_GATEWAY, 14, "tls_certificate_error", "TLS with the endpoint failed"),
            Self::Loop => row("loop", S::LOOP_DETECTED, 10, "proxy_loop_detected", "The call leads back to this sidecar"),
            Self::BadRequest => row("bad_request", S::BAD_REQUEST, 13, "http_request_error", "The request is not valid"),
            Self::ShuttingDown => row("shutting_down", S::SERVICE_UNAVAILABLE, 14, "destination_unavailable", "The sidecar is stopping"),
            Self::NotAllowed => row("not_allowed", S::FORBIDDEN, 7, "http_request_denied", "The caller may not call"),
        }
    }

    /// The word for this reason in metrics, logs, replies and the API.
    pub const fn as_str(self) -> &'static str {
        self.row().word
    }

    /// The HTTP status of the local reply.
    pub const fn http_status(self) -> StatusCode {
        self.row().status
    }

    /// The grpc-status of the local reply to a gRPC call.
    pub const fn grpc_status(self) -> u8 {
        self.row().grpc
    }

    /// The `error` parameter of the Proxy-Status header (RFC 9209 §2.3).
    pub const fn proxy_error(self) -> &'static str {
        self.row().proxy_error
    }

    /// One line for a person: the `title` of the problem document (RFC 9457 §3.1.3).
    pub const fn title(self) -> &'static str {
        self.row().title
    }
}

/// An upstream's own failing answer, which passes through unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamFault {
    /// A 5xx status.
    Status(StatusCode),
    /// What the service's `failure_if` says of the answer.
    Marked,
    /// A failing grpc-status, wherever it stood.
    Grpc(u16),
}

/// How an attempt or a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer that says nothing bad about the service, 4xx included.
    Ok,
    /// The upstream's own error.
    UpstreamError(UpstreamFault),
    /// The app went away first.
    Cancelled,
    /// Outrigger had to answer, or to cut the answer short.
    Failed(Reason),
}

/// What an outcome says about the service's health, to breaker, ejection and retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// Nothing: cancelled by the app, or refused by ourselves.
    Nothing,
}

impl Outcome {
    /// How many different words [`Outcome::as_str`] has: the size of an array with one slot each.
    pub const COUNT: usize = 3 + Reason::ALL.len();

    /// What a complete HTTP answer amounts to.
    pub fn of_status(status: StatusCode) -> Self {
        if status.is_server_error() { Self::UpstreamError(UpstreamFault::Status(status)) } else { Self::Ok }
    }

    /// What a complete gRPC answer amounts to, by its grpc-status. Codes that blame the service (UNKNOWN,
    /// DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS) or a method that it lacks (UNIMPLEMENTED, as 501) are its
    /// errors, and a code that is nobody's is UNKNOWN; all the others speak of the request, as 4xx do.
    pub fn of_grpc(code: u16) -> Self {
        match code {
            2 | 4 | 12..=15 => Self::UpstreamError(UpstreamFault::Grpc(code)),
            0..=16 => Self::Ok,
            _ => Self::UpstreamError(UpstreamFault::Grpc(2)),
        }
    }

    /// Every word an outcome can have, by [`Outcome::index`].
    pub fn words() -> [&'static str; Self::COUNT] {
        let mut words = ["ok", "upstream_error", "cancelled"].into_iter().chain(Reason::ALL.map(Reason::as_str));
        std::array::from_fn(|_| words.next().unwrap_or_default())
    }

    /// This outcome's place in [`Outcome::words`].
    pub fn index(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::UpstreamError(_) => 1,
            Self::Cancelled => 2,
            Self::Failed(reason) => 3 + reason as usize,
        }
    }

    /// The word for this outcome in metrics, logs and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpstreamError(_) => "upstream_error",
            Self::Cancelled => "cancelled",
            Self::Failed(reason) => reason.as_str(),
        }
    }

    /// What this outcome of an *attempt* says about the service.
    ///
    /// 501 and 505 speak of the request rather than of the service's health, as HAProxy's
    /// `observe layer7` holds; of gRPC's codes UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and
    /// DATA_LOSS are failures. Refusals of our own and what the app did wrong say nothing.
    pub fn judgement(self) -> Judgement {
        match self {
            Self::Ok => Judgement::Success,
            Self::UpstreamError(UpstreamFault::Status(status)) => match status {
                StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => Judgement::Success,
                _ => Judgement::Failure,
            },
            Self::UpstreamError(UpstreamFault::Marked) => Judgement::Failure,
            Self::UpstreamError(UpstreamFault::Grpc(code)) => match code {
                2 | 4 | 13 | 14 | 15 => Judgement::Failure,
                _ => Judgement::Success,
            },
            Self::Cancelled => Judgement::Nothing,
            Self::Failed(reason) => match reason {
                Reason::ConnectRefused
                | Reason::ConnectTimeout
                | Reason::RequestTimeout
                | Reason::UpstreamReset
                | Reason::BadResponse
                | Reason::TlsFailed => Judgement::Failure,
                Reason::UnknownService
                | Reason::NoEndpoints
                | Reason::BreakerOpen
                | Reason::BulkheadFull
                | Reason::Loop
                | Reason::BadRequest
                | Reason::ShuttingDown
                | Reason::NotAllowed => Judgement::Nothing,
            },
        }
    }
}

/// Whether a method may be repeated without the app's leave (RFC 9110 §9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_slot_of_its_own() {
        let words = Outcome::words();
        for reason in Reason::ALL {
            let outcome = Outcome::Failed(reason);
            assert_eq!(words[outcome.index()], outcome.as_str());
        }
        let fault = UpstreamFault::Status(StatusCode::BAD_GATEWAY);
        for outcome in [Outcome::Ok, Outcome::UpstreamError(fault), Outcome::Cancelled] {
            assert_eq!(words[outcome.index()], outcome.as_str());
        }
        let unique: std::collections::HashSet<_> = words.iter().collect();
        assert_eq!(unique.len(), Outcome::COUNT);
    }

    #[test]
    fn our_own_refusals_and_cancelled_calls_say_nothing_about_the_service() {
        for reason in [Reason::BreakerOpen, Reason::BulkheadFull, Reason::NoEndpoints, Reason::ShuttingDown] {
            assert_eq!(Outcome::Failed(reason).judgement(), Judgement::Nothing);
        }
        assert_eq!(Outcome::Cancelled.judgement(), Judgement::Nothing);
    }

    #[test]
    fn statuses_are_judged_as_the_contract_says() {
        for (status, expected) in [
            (200, Judgement::Success),
            (404, Judgement::Success),
            (429, Judgement::Success),
            (500, Judgement::Failure),
            (501, Judgement::Success),
            (503, Judgement::Failure),
            (505, Judgement::Success),
            (599, Judgement::Failure),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Outcome::of_status(status).judgement(), expected, "{status}");
        }
    }
    #[test]
    fn grpc_codes_are_judged_as_the_contract_says() {
        for (code, word, judgement) in [
            (0, "ok", Judgement::Success),
            (1, "ok", Judgement::Success),
            (2, "upstream_error", Judgement::Failure),
            (3, "ok", Judgement::Success),
            (4, "upstream_error", Judgement::Failure),
            (5, "ok", Judgement::Success),
            (6, "ok", Judgement::Success),
            (7, "ok", Judgement::Success),
            (8, "ok", Judgement::Success),
            (9, "ok", Judgement::Success),
            (10, "ok", Judgement::Success),
            (11, "ok", Judgement::Success),
            (12, "upstream_error", Judgement::Success),
            (13, "upstream_error", Judgement::Failure),
            (14, "upstream_error", Judgement::Failure),
            (15, "upstream_error", Judgement::Failure),
            (16, "ok", Judgement::Success),
            (17, "upstream_error", Judgement::Failure),
            (u16::MAX, "upstream_error", Judgement::Failure),
        ] {
            let outcome = Outcome::of_grpc(code);
            assert_eq!((outcome.as_str(), outcome.judgement()), (word, judgement), "{code}");
        }
    }
}
