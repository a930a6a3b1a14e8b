//! The sidecar of the demo: the one place where the demo meets the product.
//!
//! The demo starts the same sidecar as `outrigger run` does, from a YAML text, in this process; from
//! then on it is a stranger to it, and speaks to its two ports as any app and any operator would.

use std::net::SocketAddr;

use crate::{app, config::Config};

/// A sidecar that runs.
#[derive(Debug)]
pub(crate) struct Sidecar {
    /// The shared port.
    pub http: SocketAddr,
    /// The observe port.
    pub observe: SocketAddr,
    running: app::Sidecar,
}

impl Sidecar {
    /// Starts it from a configuration's text, and returns when it listens.
    ///
    /// # Errors
    /// What is wrong, for a person to read.
    pub(crate) fn start(yaml: &str) -> Result<Self, String> {
        // Nothing in the text refers to the environment.
        let loaded =
            Config::parse("the demo's configuration", yaml, &|_| None).map_err(|problems| problems.to_string())?;
        let running = app::Sidecar::start(loaded.config).map_err(|error| error.to_string())?;
        let addresses = running.addresses();
        Ok(Self { http: addresses.http, observe: addresses.observe, running })
    }

    /// Stops it, letting calls in flight end.
    pub(crate) fn stop(self) {
        self.running.stop();
    }
}
