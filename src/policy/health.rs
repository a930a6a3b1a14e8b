//! Active health checks: what do questions of our own say about an endpoint?

use std::time::Duration;

/// How endpoints are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What is asked.
    pub probe: Probe,
    /// The pause between two checks of one endpoint. Default 2 s.
    pub every: Duration,
    /// How long one check may take. Default 1 s.
    pub timeout: Duration,
    /// Good checks in a row that bring an endpoint back. Default 2.
    pub healthy: u32,
    /// Failed checks in a row that take it out. Default 3.
    pub unhealthy: u32,
}

/// What an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Whether it accepts a connection.
    Tcp,
    /// A GET of this path must be answered 2xx.
    Http(String),
    /// `grpc.health.v1.Health/Check` of this service must say SERVING; empty is the server as a whole.
    Grpc(String),
}
