//! What outrigger says about itself: metrics, access log, process log.
//!
//! Every metric's name and labels stand in `metrics`, every field of an access line in `access_log`.
//! Nothing else in the program names a metric or formats a log record.

pub mod access_log;
pub mod log;
pub mod metrics;
mod timestamp;

pub use access_log::AccessLog;
pub use metrics::{DnsMetrics, ENDPOINT_STATES, Metrics, Mirror, ServiceMetrics};
