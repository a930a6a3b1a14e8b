//! Identical calls at the same moment share one.

use bytes::Bytes;
use http_body::Frame;

use crate::model::Outcome;

/// The call whose answer the others wait for.
#[derive(Debug)]
pub(super) struct Lead;

impl Lead {
    /// A piece of the answer.
    pub(super) fn frame(&mut self, _frame: &Frame<Bytes>) {}

    /// The answer is whole.
    pub(super) fn complete(self, _outcome: Outcome) {}
}
