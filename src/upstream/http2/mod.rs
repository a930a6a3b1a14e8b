//! HTTP/2 with endpoints.
//!
//! A worker has one connection with an endpoint, whatever the number of calls, and a further one only where the
//! endpoint allows no more streams on the first. It is a [`Trunk`]: driven by a task of its own, for it must be
//! read from when no call is there to do so. A call takes a [`Lease`] on one stream of it, and exchanges its
//! request over that ([`Stream`]) in its own task.
//!
//! h2 does the protocol. What is added here:
//!
//! - bounds: windows, heads, buffers and interim answers are limited, so that what a call may cost us is known;
//! - liveness (`vitals`): a peer that has gone without a word is found out, and its calls fail at once;
//! - age: a connection is used for some minutes, so that a service that has got more instances is rebalanced
//!   by whoever stands between us and them;
//! - facts (`fault`): what an error says about whether the request may be repeated.
//!
//! Not here: server push, which is switched off, and priorities, which RFC 9113 §5.3 has deprecated.

mod body;
mod driver;
mod fault;
mod pump;
mod stream;
#[cfg(test)]
mod tests;
mod traffic;
mod trunk;
mod vitals;
mod window;

use std::time::Duration;

pub(super) use body::Body;
pub(super) use stream::Stream;
pub(super) use trunk::Trunk;

/// How long a connection takes new streams, give or take a tenth.
const MAX_AGE: Duration = Duration::from_secs(300);

/// How long a connection without streams is kept.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// What an answer may be ahead of its app, in bytes: at first, and at most when the way is long.
const STREAM_WINDOW: u32 = 128 * 1024;
const STREAM_WINDOW_MAX: u32 = 1024 * 1024;

/// What all answers on a connection may be ahead of their apps together, in bytes. So large from the start that
/// a few apps which do not read leave room for the others.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The longest head of an answer, and the longest trailers (SETTINGS_MAX_HEADER_LIST_SIZE), in bytes.
const HEADER_LIST_MAX: u32 = 64 * 1024;

/// What an upload may be ahead of its endpoint, in bytes.
const SEND_BUFFER: usize = 128 * 1024;

/// Streams that we have reset and whose late frames are still let pass, and for how long. Beyond them a late
/// frame counts as an error of the peer's, and h2 closes a connection with a thousand of these.
const RESET_STREAMS: usize = 1024;
const RESET_MEMORY: Duration = Duration::from_secs(10);

/// What unread pieces of under 256 bytes may waste, where each wastes what it lacks to that: h2 closes the
/// connection beyond. A service that streams small messages to an app which reads slowly has done nothing
/// wrong, so a full connection window of messages of 64 bytes has to fit.
const FRAME_BUDGET: usize = 16 * 1024 * 1024;
