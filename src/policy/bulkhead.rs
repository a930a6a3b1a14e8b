//! The bulkhead: may one more call to this service be outstanding?

use std::time::Duration;

/// The limit on a service's outstanding calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Calls outstanding at once, over all workers. Default 100.
    pub max: u32,
    /// Calls that may wait for a place. Default 0: a full bulkhead refuses at once.
    pub queue: u32,
    /// How long a call may wait for a place. Default 50 ms; counts against the call's deadline.
    pub wait: Duration,
    /// Attempts outstanding at once at one endpoint. Off by default.
    pub per_endpoint: Option<u32>,
}
