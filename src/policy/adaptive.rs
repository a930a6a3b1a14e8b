//! The adaptive limit: how many outstanding calls is a service good for right now?

/// How the limit of a bulkhead follows the service's latency. Its ceiling is the bulkhead's `max`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The limit never falls below. Default 5.
    pub floor: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { floor: 5 }
    }
}
