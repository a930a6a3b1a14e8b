//! Balancing: which of the endpoints takes this attempt?

use std::sync::Arc;

use http::HeaderName;

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settings {
    /// The better of two random ones, by outstanding calls and latency. The default.
    P2c,
    /// Each in turn, by weight, spread evenly.
    RoundRobin,
    /// Any, by weight.
    Random,
    /// The one with the fewest outstanding calls for its weight.
    LeastRequest,
    /// Always the same one for the same key, as long as it exists.
    Hash(HashKey),
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The value of this header.
    Header(HeaderName),
    /// The value of this cookie.
    Cookie(Arc<str>),
    /// The path, without the query.
    Path,
}
