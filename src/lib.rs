//! outrigger: a sidecar that gives its app every other service under a stable name on localhost, and
//! absorbs their failures.
//!
//! This page is the map. There is no logic here.
//!
//! # Layers
//!
//! Arrows point down only; `tests/layering.rs` reads the sources and holds this.
//!
//! ```text
//! cli, app                        assemble, run, reload, stop
//! proxy, admin, health, vip       answer somebody, an app or an operator; ask endpoints how they are; hand out addresses
//! service, discovery, upstream    own live state and outside effects
//! config, telemetry, net          describe, observe, speak TCP and DNS
//! policy                          pure decisions: state, now, event → verdict
//! model                           the words everybody shares
//! ```
//!
//! `discovery` knows no `service`, `upstream` knows no `policy`, `proxy` knows no `discovery` and no
//! `admin`; `app` joins them.
//!
//! # Reading order
//!
//! 1. [`model`]: `EndpointSet` is what exists, `Outcome` and `Reason` are what happened.
//! 2. [`proxy`]: the journey of one call, with a drawing.
//! 3. [`policy`]: the rules, each pure and with its own timelines.
//! 4. [`service`]: the shell round the policies: clocks, locks, metrics.
//! 5. [`app`]: how it is all put together, one page in dependency order.
//!
//! # Threads
//!
//! One acceptor hands each connection to the worker with the fewest; each worker is one thread with its
//! own single-threaded runtime and owns its connections and upstream pools; one control thread runs
//! discovery, health checks, the observe port, the admin socket and reload. Workers see the results as immutable
//! snapshots, swapped whole. The DNS responder has a thread of its own: a flood of questions delays neither calls
//! nor discovery.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod health;
pub mod model;
pub mod net;
pub mod policy;
pub mod proxy;
pub mod service;
pub mod telemetry;
pub mod upstream;
pub mod vip;
