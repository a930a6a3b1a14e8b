//! End to end: a real sidecar, real sockets, upstreams and apps that do what the test says, byte by byte.
//!
//! One binary. `support` is its small language: an [`Origin`](support::Origin) plays the upstream, a
//! [`Sidecar`](support::Sidecar) runs outrigger on free ports, a [`Client`](support::Client) plays the app.
//! Nothing here sleeps to wait for something: [`eventually`](support::eventually) asks again until it is so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod admin;
mod balancing;
mod breaker;
mod bulkhead;
mod chaos;
mod coalesce;
mod connect;
mod discovery;
mod drain;
mod ejection;
mod entry;
mod expect;
mod failure_if;
mod failures;
mod fallback;
mod faults;
mod framing;
mod graphql;
mod grpc;
mod grpc_retry;
mod grpc_web;
mod health;
mod http2;
mod http2_ends;
mod hystrix;
mod inbound;
mod intercept;
mod lifecycle;
mod malformed;
mod many;
mod priority;
mod reload;
mod retry;
mod reuse;
mod run_app;
#[path = "../discovery/server.rs"]
#[allow(dead_code, unreachable_pub, reason = "what discovery's own tests need of it is more")]
mod server;
mod stop;
mod storm;
mod streaming;
mod support;
mod tcp;
mod timeouts;
mod tls;
mod upgrade;
mod vip;
mod wildcard;
