//! The shell round the policies.
pub mod view;

use std::net::SocketAddr;

use crate::policy::breaker::Forced;

/// Stub.
#[derive(Debug, Clone, Default)]
pub struct Table;

/// Stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForceError {
    /// No service bears the name.
    UnknownService,
    /// The service has no breaker.
    BreakerIsOff,
}

impl Table {
    /// Stub.
    pub fn views(&self) -> Vec<view::ServiceView> {
        Vec::new()
    }
    /// Stub.
    pub fn view(&self, _name: &str) -> Option<view::ServiceView> {
        None
    }
    /// Stub.
    pub fn update_gauges(&self) {}
    /// Stub.
    pub fn force_breaker(&self, _name: &str, _forced: Forced) -> Result<(), ForceError> {
        Err(ForceError::UnknownService)
    }
    /// Stub.
    pub fn drain(&self, _endpoint: SocketAddr) -> usize {
        0
    }
}

/// Stub.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle;

/// Stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// All is there.
    Ready,
    /// Why not.
    NotReady(Vec<String>),
}

impl Lifecycle {
    /// Stub.
    pub fn readiness(&self) -> Readiness {
        Readiness::Ready
    }
    /// Stub.
    pub fn start_draining(&self) {}
}
