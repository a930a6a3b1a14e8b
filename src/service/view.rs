//! The read-only picture of a service: what `/api/services` answers and `outrigger explain` prints.
//!
//! Plain data, so that the observe port can serialise it and a client read it back.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use serde::{Deserialize, Serialize};

/// One service, right now. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Whether it is a service of `*`, that is forgotten when nobody calls it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub made: bool,
    /// How an app reaches it.
    pub entry: EntryView,
    /// Where its endpoints come from, and how that goes.
    pub source: SourceView,
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
    /// The rules its calls obey, by key, each with where its value came from.
    pub policy: BTreeMap<String, PolicyValueView>,
    /// Its breaker; absent when off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub breaker: Option<BreakerView>,
    /// Its bulkhead; absent when off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bulkhead: Option<BulkheadView>,
    /// Calls ended so far, by outcome; outcomes that never happened are left out.
    pub calls: BTreeMap<String, u64>,
}

/// How an app reaches a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntryView {
    /// Names that the shared port takes as this service's Host; none when it does not lead there.
    pub hosts: Vec<String>,
    /// The shared port.
    pub shared: SocketAddr,
    /// The service's own port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub listen: Option<SocketAddr>,
    /// The service's VIP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vip: Option<VipView>,
}

/// A service's virtual IP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipView {
    /// Its address.
    pub address: Ipv4Addr,
    /// What it listens on.
    pub ports: Vec<u16>,
    /// The names that lead to it: each with the domain, then without.
    pub names: Vec<String>,
}

/// A source, and how its last looks went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceView {
    /// `static`, `file`, `dns` or `srv`.
    pub kind: String,
    /// The name or path that is looked at.
    pub detail: String,
    /// How often the set of endpoints has changed.
    pub revision: u64,
    /// Since the source last answered; absent when it never has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub age_ms: Option<u64>,
    /// What is wrong, when the last look failed or found nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
    /// Until the last good set is dropped, while the source says that there are no endpoints.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dropped_in_ms: Option<u64>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Its address.
    pub addr: SocketAddr,
    /// Its weight.
    pub weight: u32,
    /// Its priority group.
    pub priority: u16,
    /// What named it, e.g. `dns orders`.
    pub origin: String,
    /// `ready`, `draining`, `ejected`, or `unhealthy` by active checks.
    pub state: String,
    /// Why it is out of rotation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// For how long it has been out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub out_ms: Option<u64>,
    /// Until it is probed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub probe_in_ms: Option<u64>,
    /// Attempts outstanding.
    pub in_flight: u32,
    /// Its latency as the balancer sees it (peak EWMA).
    pub latency_ms: f64,
}

/// One effective policy value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyValueView {
    /// The value, spelt as in the config.
    pub value: String,
    /// `default`, `defaults (line N)` or `service (line N)`.
    pub from: String,
}

/// A breaker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BreakerView {
    /// `closed`, `half_open` or `open`.
    pub state: String,
    /// `auto`, `open` or `closed`: what an operator has forced.
    pub forced: String,
    /// `on` or `observe`.
    pub mode: String,
    /// Attempts in the window.
    pub calls: u32,
    /// Failures among them.
    pub failures: u32,
    /// Slow ones among them.
    pub slow: u32,
    /// Until it probes, while open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub probes_in_ms: Option<u64>,
}

/// A bulkhead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BulkheadView {
    /// Calls outstanding.
    pub in_flight: u32,
    /// Calls that may be outstanding at once.
    pub limit: u32,
    /// Calls waiting for a place.
    pub queued: u32,
    /// Calls that may wait.
    pub queue: u32,
    /// How the limit follows the service's latency; absent when it does not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub adaptive: Option<AdaptiveView>,
}

/// A limit that follows latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveView {
    /// The limit never falls below.
    pub floor: u32,
    /// It never rises above.
    pub ceiling: u32,
    /// The mean latency of late.
    pub latency_ms: f64,
    /// The latency of the long run.
    pub long_term_ms: f64,
    /// What the two make of the limit: 1 lets it grow, 0.5 halves what it aims at.
    pub gradient: f64,
}
