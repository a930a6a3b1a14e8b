//! What an operator sees and changes while the sidecar runs.
//!
//! Two doors, because they are trusted differently:
//!
//! | door | what | who |
//! |---|---|---|
//! | [`observe`]: a TCP port | metrics, health, JSON views; it can change nothing | whoever reaches the port |
//! | [`socket`]: a Unix socket | breaker, drain, reload, shutdown, and the views | whoever may open the file |
//!
//! `answer` makes the replies, `serve` bounds what a client may cost. Both doors run on the control thread, so
//! that a slow scrape never delays a call. There is no authentication here beyond the file's mode, and no TLS:
//! neither door is meant to be reached from another host.

mod answer;
pub mod observe;
mod serve;
pub mod socket;

use std::net::SocketAddr;

use tokio::sync::oneshot;

use crate::{
    policy::breaker::Forced,
    service::{ForceError, Lifecycle, Readiness, Sample, Table, view::ServiceView},
    telemetry::Metrics,
};

/// Asks whoever owns the configuration to read its file again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Takes what has changed, in a sentence, or every problem of the file, rendered.
    pub reply: oneshot::Sender<Result<String, String>>,
}

/// What the doors need of the sidecar behind them; [`Live`] is the real one.
///
/// A trait so that the doors' tests can stand on views of their own making.
pub trait Sidecar: Clone + Send + Sync + Unpin + 'static {
    /// Every service, looked at one by one.
    fn views(&self) -> impl Iterator<Item = ServiceView> + Send + use<Self>;
    /// The service with this name or alias, in any letter case.
    fn view(&self, name: &str) -> Option<ServiceView>;
    /// Brings the metrics that mirror state up to date.
    fn update_gauges(&self, metrics: &Metrics);
    /// The figures of every service.
    fn samples(&self) -> Vec<Sample>;
    /// Whether calls are welcome.
    fn readiness(&self) -> Readiness;
    /// Forces a service's breaker, or lets it decide again.
    ///
    /// # Errors
    /// No service bears the name, or its breaker is off.
    fn force_breaker(&self, name: &str, forced: Forced) -> Result<(), ForceError>;
    /// Stops new attempts to an endpoint; how many services have it.
    fn drain(&self, endpoint: SocketAddr) -> usize;
    /// Makes the sidecar not ready, while calls go on.
    fn start_draining(&self);
    /// Begins the stop that a signal would begin.
    fn stop(&self);
}

/// The running sidecar.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its services.
    pub table: Table,
    /// Whether it is ready.
    pub lifecycle: Lifecycle,
}

impl Sidecar for Live {
    fn views(&self) -> impl Iterator<Item = ServiceView> + Send + use<> {
        self.table.views()
    }

    fn view(&self, name: &str) -> Option<ServiceView> {
        self.table.view(name)
    }

    fn update_gauges(&self, metrics: &Metrics) {
        self.table.update_gauges(metrics);
    }

    fn samples(&self) -> Vec<Sample> {
        self.table.samples()
    }

    fn readiness(&self) -> Readiness {
        self.lifecycle.readiness()
    }

    fn force_breaker(&self, name: &str, forced: Forced) -> Result<(), ForceError> {
        self.table.force_breaker(name, forced)
    }

    fn drain(&self, endpoint: SocketAddr) -> usize {
        self.table.drain(endpoint)
    }

    fn start_draining(&self) {
        self.lifecycle.start_draining();
    }

    fn stop(&self) {
        self.lifecycle.ask_to_stop();
    }
}

#[cfg(test)]
pub(crate) mod testing;
