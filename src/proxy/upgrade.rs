//! What is left of a call after both sides have changed protocols (WebSocket and the like): a tunnel.
//!
//! The call stays in its bulkhead and its attempt at its endpoint for as long as the tunnel lives; but the attempt
//! has succeeded with the 101, and the breaker is told so at once: an hour of chat is no slow call, and no reason to
//! stay half-open.

use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::{
    attempt::Attempt,
    call::Call,
    listener::OpenConnection,
    tunnel::{self, Limits},
};
use crate::model::Outcome;

/// Joins the two sides as soon as both have changed protocols, on a task of its own.
pub(super) fn spawn(
    mut call: Call,
    mut attempt: Attempt,
    open: Rc<OpenConnection>,
    downstream: OnUpgrade,
    upstream: Option<OnUpgrade>,
) {
    attempt.settle(call.worker.now(), Outcome::Ok);
    let counted = attempt.keep_counted(&call.worker);
    tokio::task::spawn_local(async move {
        let (_open, _counted) = (open, counted);
        let limits = Limits { silence: call.service.config().policy.timeout.tunnel, end: None };
        let upstream = async {
            match upstream {
                Some(upstream) => upstream.await.map_err(drop),
                None => Err(()),
            }
        };
        let outcome = match tokio::try_join!(async { downstream.await.map_err(drop) }, upstream) {
            Ok((downstream, upstream)) => {
                let (mut app, mut endpoint) = (TokioIo::new(downstream), TokioIo::new(upstream));
                let control = call.worker.register();
                let (end, carried) =
                    tunnel::carry(&call.worker, &control, Some(&attempt), &mut app, &mut endpoint, limits).await;
                call.note_tunnel(end, carried);
                end.outcome()
            }
            Err(()) => Outcome::Cancelled,
        };
        let now = call.worker.now();
        attempt.end(now, Outcome::Ok);
        call.end(now, outcome);
    });
}
