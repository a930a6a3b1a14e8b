//! What listens to an answer on its way to the app.
//!
//! A tap hears each piece as the endpoint sends it, and then the end, if there is one: a tap that is dropped without
//! having heard of the end belongs to an answer that broke off, or whose app went away.

use bytes::Bytes;
use http_body::Frame;

use super::{coalesce::Lead, fallback::Recording};
use crate::{model::Outcome, service::Place};

/// One listener.
#[derive(Debug)]
pub(super) enum Tap {
    /// Keeps a good answer for bad times.
    Recording(Recording),
    /// Tells the calls that share this one.
    Lead(Lead),
    /// Only waits for the end.
    Place(Place),
}

impl Tap {
    /// A piece has come.
    pub(super) fn frame(&mut self, frame: &Frame<Bytes>) {
        match self {
            Self::Recording(recording) => recording.frame(frame),
            Self::Lead(lead) => lead.frame(frame),
            Self::Place(_) => {}
        }
    }

    /// The answer has come to its end, and amounts to this.
    pub(super) fn complete(self, outcome: Outcome) {
        match self {
            Self::Recording(recording) => recording.complete(outcome),
            Self::Lead(lead) => lead.complete(outcome),
            Self::Place(place) => drop(place),
        }
    }

    /// The answer has broken off, for this reason.
    pub(super) fn broke(self, outcome: Outcome, why: &str) {
        if let Self::Lead(lead) = self {
            lead.broke(outcome, why);
        }
    }
}
