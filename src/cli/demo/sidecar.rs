//! The sidecar of the demo: the one place where the demo meets the product.
//!
//! The demo starts the same sidecar as `outrigger run` does, from a YAML text, in this process; from
//! then on it is a stranger to it, and speaks to its two ports as any app and any operator would.

use std::net::SocketAddr;

/// A sidecar that runs.
#[derive(Debug)]
pub(crate) struct Sidecar {
    /// The shared port.
    pub http: SocketAddr,
    /// The observe port.
    pub observe: SocketAddr,
}

impl Sidecar {
    /// Starts it from a configuration's text, and returns when it listens.
    ///
    /// # Errors
    /// What is wrong, for a person to read.
    pub(crate) fn start(_yaml: &str) -> Result<Self, String> {
        Err("this build has no sidecar yet".to_owned())
    }

    /// Stops it, letting calls in flight end.
    pub(crate) fn stop(self) {}
}
