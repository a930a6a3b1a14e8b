//! What an answer amounts to in the dialect of its call, and how one that breaks off is ended there.
//!
//! An answer of plain HTTP is judged by its status. gRPC says how a call went in `grpc-status`: in the head if
//! there is nothing else to say (trailers-only), or in the trailers, and then the outcome is due until they have
//! come. An answer that we have to break off can be ended in good order in gRPC, since its status comes last.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, response};
use http_body::Frame;

use super::grpc::{
    Dialect,
    status::{self, code},
    web::{Encoder, WebCall},
};
use super::retry::Pushback;
use crate::model::Outcome;

/// How the rest of an answer is read, and told to the app.
#[derive(Debug)]
pub(super) enum Tongue {
    /// HTTP.
    Http,
    /// gRPC to an app that reads trailers.
    Grpc,
    /// gRPC to an app that cannot read trailers; `None` once it has had its last piece.
    Web(Option<Encoder>),
}

/// What is known of an answer when its head has come.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) tongue: Tongue,
    /// What the answer amounts to if nothing else is said.
    pub(super) outcome: Outcome,
    /// A grpc-status has yet to come.
    pub(super) due: bool,
    /// The grpc-status, once it has come.
    pub(super) code: Option<u16>,
    /// How long the endpoint wants to be left alone, where its trailers say so.
    pub(super) pushback: Option<Pushback>,
}

impl Heard {
    /// Reads the head of an answer, and translates it where the app needs that. `ended` says that nothing follows
    /// it.
    pub(super) fn of(dialect: Dialect, web: Option<&WebCall>, head: &mut response::Parts, ended: bool) -> Self {
        let stated = if dialect.is_grpc() { status::of(&head.headers) } else { None };
        let awaited = dialect.is_grpc() && stated.is_none() && head.status == StatusCode::OK;
        let outcome = match stated {
            Some(code) => Outcome::of_grpc(code),
            None if awaited && ended => unsaid(),
            None => Outcome::of_status(head.status),
        };
        let tongue = match (dialect, web) {
            (Dialect::Http, _) => Tongue::Http,
            (_, None) => Tongue::Grpc,
            (_, Some(web)) => match web.translate_answer(head, ended) {
                Some(encoder) => Tongue::Web(Some(encoder)),
                None => Tongue::Http,
            },
        };
        Self { tongue, outcome, due: awaited && !ended, code: stated, pushback: None }
    }
}

impl Tongue {
    /// Whether a piece of ours follows the last of the endpoint's.
    pub(super) fn has_last_word(&self) -> bool {
        matches!(self, Self::Web(Some(_)))
    }

    /// A piece of the answer as the app reads it. Trailers are the last.
    pub(super) fn tell(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Self::Web(encoder) = self else { return frame };
        match frame.into_data() {
            Ok(data) => Frame::data(encoder.as_ref().map_or_else(Bytes::new, |encoder| encoder.data(data))),
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                Frame::data(encoder.take().map_or_else(Bytes::new, |encoder| encoder.finish(trailers.as_ref())))
            }
        }
    }

    /// Our own last piece, after an answer that has ended without trailers.
    pub(super) fn last_word(&mut self) -> Option<Frame<Bytes>> {
        let Self::Web(encoder) = self else { return None };
        encoder.take().map(|encoder| Frame::data(encoder.finish(None)))
    }

    /// The end of an answer that breaks off, in words that the app understands; HTTP has none.
    pub(super) fn farewell(&mut self, code: u16, why: &str) -> Option<Frame<Bytes>> {
        let trailers = status::trailers(code, why);
        match self {
            Self::Http => None,
            Self::Grpc => Some(Frame::trailers(trailers)),
            Self::Web(encoder) => encoder.take().map(|encoder| Frame::data(encoder.finish(Some(&trailers)))),
        }
    }
}

/// What trailers say of a call, if they do.
pub(super) fn outcome_of(trailers: &HeaderMap) -> Option<Outcome> {
    status::of(trailers).map(Outcome::of_grpc)
}

/// The grpc-status that trailers carry.
pub(super) fn code_of(trailers: &HeaderMap) -> Option<u16> {
    status::of(trailers)
}

/// What a gRPC call amounts to that ends without a grpc-status.
pub(super) fn unsaid() -> Outcome {
    Outcome::of_grpc(code::UNKNOWN)
}
