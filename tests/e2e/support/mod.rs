//! The language of the end-to-end tests.

mod client;
mod held;
pub(crate) mod http2;
pub(crate) mod origin;
mod process;
mod sidecar;
pub(crate) mod tls;

use std::{future::Future, time::Duration};

pub(crate) use client::{Client, Reply};
pub(crate) use held::Held;
pub(crate) use origin::{Exchange, Origin, ok};
pub(crate) use process::{Process, admin, free};
pub(crate) use sidecar::Sidecar;

/// How long anything may take before a test calls it lost. Generous: it only ever passes on failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits something that must happen, or fails the test saying what did not.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

/// Asks again and again until the answer is yes. Each question should be a real exchange (a scrape, a call),
/// which paces the loop by itself.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    within(what, async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
