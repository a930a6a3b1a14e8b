//! The journey of a call.
//!
//! ```text
//! accept ─► connection ─► entry: which service? ─► deadline ─► bulkhead ─► attempt ───────► answer ─► app
//! listener                own port, or Host             │           │       breaker            │
//!                                                       │           │       pick endpoint      │
//!                                                       │           │       check out, connect │
//!              local reply ◄────────────────────────────┴───────────┴────── send, classify ──► record
//! ```
//!
//! | step | file |
//! |---|---|
//! | accept connections and hand each to a worker | `listener` |
//! | serve one connection of an app | `connection`, watching the bytes in `wire` and `head_scan` |
//! | take in a connection that was meant for others | `intercept`, and not the sidecar's own: `outgoing` |
//! | find the service | `entry`, by the address that the app has connected to in `vip` |
//! | carry one call from its head to its outcome | `call`: the order of the policies stands there |
//! | keep what was asked, for each attempt to send | `asked` |
//! | tell calls apart by how much they matter | `priority` |
//! | go from attempt to attempt | `retry`, with a second one beside a slow first in `hedge` |
//! | try one endpoint | `attempt`, by an `exchange` |
//! | hold an answer back until it is judged | `hold` |
//! | let bodies through, with their limits and their end | `upload`, `answer` |
//! | time out: one timer a connection | `alarm` |
//! | obey callers' deadlines, and pass on what is left | `deadlines` |
//! | headers that concern one connection only | `headers` |
//! | share one answer among identical calls | `coalesce` |
//! | answer a failure by something else | `fallback` |
//! | gRPC and gRPC-Web | `grpc` |
//! | what a GraphQL request asks for | `graphql` |
//! | pages of other origins | `cors` |
//! | how an app is to be answered | `manner`, `tongue` |
//! | CONNECT of a forward proxy's client | `connect` |
//! | WebSocket and the like | `upgrade`, in a `tunnel` |
//! | services that speak no HTTP | `tcp`, in a `tunnel` |
//! | end streams that nobody reads | `unread` |
//! | answer in the upstream's stead | `local_reply` |
//! | what the access log wants to know | `note` |
//!
//! Everything here runs on one worker's thread and borrows from its [`Worker`]. A call's outcome is known
//! when the body of its answer has ended, so [`call::Call`] travels inside that body; whatever it holds (a
//! bulkhead's permit, a breaker's trial, an endpoint's slot) comes back when it drops.
//!

mod alarm;
mod answer;
mod asked;
mod attempt;
mod call;
mod coalesce;
mod connect;
mod connection;
mod cors;
mod deadlines;
mod entry;
mod exchange;
mod fallback;
mod fit;
mod frame_watch;
mod gate;
mod graphql;
mod grpc;
mod head_scan;
mod headers;
mod hedge;
mod hold;
mod http1;
mod http2;
mod inbound;
mod intercept;
pub mod listener;
mod local_reply;
mod manner;
mod note;
mod outgoing;
mod pause;
mod priority;
mod retry;
mod sniff;
mod stall;
mod tap;
mod tcp;
mod tongue;
mod tunnel;
mod unread;
mod upgrade;
mod upload;
mod vip;
mod wire;
mod worker;

pub use outgoing::Outgoing;
pub use worker::{Pulse, Worker, WorkerSettings};

use std::{borrow::Cow, sync::Arc, time::Duration};

use crate::{
    model::{Outcome, Reason, ServiceName},
    service::Service,
};

/// Why a call gets a local reply, with what the reply says.
#[derive(Debug)]
struct Failure {
    reason: Reason,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// How the call counts.
    outcome: Outcome,
    /// The service that refuses the call before it is one of its calls.
    service: Option<Arc<Service>>,
    /// What a gRPC app is told, where it is not what the reason says.
    grpc_status: Option<u16>,
    /// The service that is not there and could be made.
    wanted: Option<ServiceName>,
}

impl Failure {
    fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            retry_after: None,
            outcome: Outcome::Failed(reason),
            service: None,
            grpc_status: None,
            wanted: None,
        }
    }

    /// The app went away before its request was whole. Nobody may be there to read a reply, but one that
    /// only closed its sending side is.
    fn gone(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: Outcome::Cancelled, ..Self::new(Reason::BadRequest, detail) }
    }
}
