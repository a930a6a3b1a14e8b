//! What an app has asked for, as it stays from the first attempt to the last.
//!
//! Each attempt is given a copy of the head, in the form and with the words that its own connection wants, and a
//! reading of the body from its beginning. What is kept here is what has been agreed on before: hop-by-hop headers
//! are gone, our Via is there.

use std::{net::SocketAddr, rc::Rc, time::Instant};

use http::{HeaderValue, Request, request::Parts};
use hyper::upgrade::OnUpgrade;

use super::{
    deadlines::{ATTEMPT, Passed},
    fit,
    gate::GateKey,
    grpc::{Dialect, web::WebCall},
    headers,
    upload::{Progress, Upload},
};
use crate::{
    config::Protocol,
    model::is_idempotent,
    upstream::{OnContinue, Version, Wish},
};

/// A request that has yet to be answered.
pub(super) struct Asked {
    pub(super) head: Parts,
    pub(super) upload: Upload,
    pub(super) terms: Terms,
}

/// What a request asks for beside what is sent, on whichever connection.
pub(super) struct Terms {
    pub(super) progress: Option<Rc<Progress>>,
    /// Whether the Host is the app's own, or the endpoint's to be.
    pub(super) host_names_service: bool,
    pub(super) hash_key: Option<u64>,
    /// The app asked for another protocol.
    pub(super) upgrade: Option<OnUpgrade>,
    /// Opened when the endpoint says "100 Continue".
    pub(super) expects: Option<GateKey>,
    pub(super) dialect: Dialect,
    /// Which HTTP the app speaks.
    pub(super) version: http::Version,
    /// Which attempt of its caller's sidecar this call is, where that says so.
    pub(super) callers_attempt: Option<u32>,
    /// The service speaks GraphQL, whose queries are POSTs that do no more when they are done twice.
    pub(super) is_graphql: bool,
}

/// One attempt's way to its endpoint.
#[derive(Clone, Copy)]
pub(super) struct Leg<'a> {
    /// What the endpoint is called in `Host`, where the app does not say.
    pub(super) authority: &'a str,
    pub(super) version: Version,
    pub(super) secure: bool,
    /// Which attempt it is, from 1, where the service makes more than one.
    pub(super) number: Option<u32>,
    pub(super) passed: Passed,
    pub(super) now: Instant,
}

/// The endpoints that a call has tried in vain.
pub(super) type Tried = Vec<SocketAddr>;

impl Asked {
    /// Which HTTP is to be spoken with the endpoint.
    pub(super) fn wish(&self, protocol: Protocol) -> Wish {
        match protocol {
            Protocol::Http1 | Protocol::Tcp => Wish::Http1,
            Protocol::Http2 => Wish::Http2,
            Protocol::Auto => match self.terms.dialect {
                // gRPC has no other way.
                Dialect::GrpcWeb { .. } => Wish::Http2,
                Dialect::Grpc if self.terms.version == http::Version::HTTP_2 => Wish::Http2,
                Dialect::Http if self.terms.version == http::Version::HTTP_2 => Wish::PreferHttp2,
                Dialect::Http | Dialect::Grpc => Wish::Http1,
            },
        }
    }

    /// Whether it may be sent though it may have been sent before: nothing but the head matters, or the body can be
    /// had from its beginning.
    pub(super) fn may_be_sent_again(&self) -> bool {
        self.upload.may_rewind()
    }

    /// Whether it is one of a kind that does no more when it is done twice (RFC 9110 §9.2.2). An upgrade is not:
    /// what it leads to is nobody's guess.
    pub(super) fn is_idempotent(&self) -> bool {
        is_idempotent(&self.head.method) && self.terms.upgrade.is_none()
    }

    /// The request as a connection wants it, and how gRPC-Web has been translated for it.
    pub(super) fn request(&self, leg: &Leg<'_>) -> (Request<Upload>, Option<WebCall>) {
        let Terms { dialect, host_names_service, .. } = self.terms;
        let mut head = self.head.clone();
        if !host_names_service {
            headers::set_host(&mut head.headers, leg.authority);
        }
        leg.passed.write(&mut head.headers, dialect, leg.now);
        if let Some(number) = leg.number {
            head.headers.insert(ATTEMPT, attempt_value(self.terms.callers_attempt.unwrap_or(1).max(number)));
        }
        let mut web = None;
        match leg.version {
            Version::Http1 => fit::http1(&mut head, !matches!(self.upload, Upload::Empty)),
            Version::Http2 => {
                if matches!(dialect, Dialect::GrpcWeb { .. }) {
                    web = WebCall::translate(&mut head.headers);
                    if let Some(decoder) = web.as_ref().and_then(WebCall::decoder) {
                        self.upload.decode(decoder);
                    }
                }
                fit::http2(&mut head, leg.secure);
                self.upload.keep(KEPT_FOR_REFUSALS);
            }
        }
        let mut request = Request::from_parts(head, self.upload.again());
        if let Some(key) = &self.terms.expects {
            let key = key.clone();
            request.extensions_mut().insert(OnContinue::new(move || key.open()));
        }
        (request, web)
    }
}

/// A number of an attempt; most calls have one, for which nothing is allocated.
fn attempt_value(number: u32) -> HeaderValue {
    match number {
        1 => HeaderValue::from_static("1"),
        number => number.into(),
    }
}

/// How much of an upload is kept in case that an endpoint refuses its stream unseen, when no retry wants more. As
/// Linkerd does.
const KEPT_FOR_REFUSALS: usize = 64 * 1024;
