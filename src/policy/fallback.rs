//! Fallbacks: what is answered instead of a failure?
//!
//! A chain of steps, tried in their order; the first that can answer does.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::model::{Reason, ServiceName};

/// One step of a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What answers.
    pub with: With,
    /// The failures that it is for; `None` is every reason of the table, and never an upstream's own error.
    pub on: Option<Vec<Cause>>,
    /// Calls that it may be answering at once. Default 100.
    pub max: u32,
}

/// What a step is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Outrigger had to answer for this reason.
    Reason(Reason),
    /// The upstream's own 5xx, or a failing grpc-status: whatever counts as a failure.
    UpstreamError,
}

/// What answers in a step.
#[derive(Debug, Clone, PartialEq)]
pub enum With {
    /// The last good answer to the same request.
    LastGood(LastGood),
    /// Another service, under its own policy.
    Service(ServiceName),
    /// This.
    Respond(Arc<Respond>),
}

/// How last good answers are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// How old the answer may be. Default 10 minutes.
    pub age: Duration,
    /// The longest answer that is kept, in bytes. Default 1 MiB.
    pub max_body: usize,
    /// Also for methods that are not safe, and for answers that say `Cache-Control: no-store`. Default off.
    pub force: bool,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Respond {
    /// Its status. Default 200.
    pub status: StatusCode,
    /// Its headers, Content-Type among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Body,
    /// What a gRPC call gets.
    pub grpc: Option<Grpc>,
}

/// Where a fixed answer's body is.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Here.
    Bytes(Bytes),
    /// In a file, read at the start and at each reload.
    File(PathBuf),
}

/// A fixed answer to a gRPC call.
#[derive(Debug, Clone, PartialEq)]
pub enum Grpc {
    /// One message, as encoded protobuf, under grpc-status 0.
    Message(Bytes),
    /// A grpc-status, and its text.
    Status(u16, String),
}

impl Cause {
    /// The word for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reason(reason) => reason.as_str(),
            Self::UpstreamError => "upstream_error",
        }
    }
}

impl With {
    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::LastGood(_) => "last_good",
            Self::Service(_) => "service",
            Self::Respond(_) => "respond",
        }
    }
}

impl Default for LastGood {
    fn default() -> Self {
        Self { age: Duration::from_secs(600), max_body: 1 << 20, force: false }
    }
}
