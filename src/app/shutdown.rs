//! The second phase of a stop, after `drain`: no new connections, what is in flight finishes, up to a limit.

use std::time::Duration;

use super::{acceptor::Acceptor, listeners::Listeners, workers::Workers};

/// Stops the traffic. `hurry` ends the patience early: a second signal.
pub(super) async fn stop(
    acceptor: Acceptor,
    listeners: Listeners,
    mut workers: Workers,
    limit: Duration,
    hurry: impl Future<Output = ()>,
) {
    // Sockets that cannot be doubled are closed a little less gently.
    let sockets = listeners.handles(listeners.entries()).unwrap_or_default();
    drop(listeners);
    acceptor.stop(sockets).await;
    let patient = tokio::select! {
        stopped = tokio::time::timeout(limit, workers.stop()) => stopped.is_ok(),
        () = hurry => false,
    };
    if !patient {
        tracing::warn!("calls still in flight are cut off");
        workers.cut_off().await;
    }
    workers.join();
}
