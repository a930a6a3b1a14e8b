//! The DNS responder on real sockets, with forwarders in this process that are honest, dead, slow, lying, or ask back.
//!
//! What is answered to what is settled by the tables beside the code; here it is shown that it arrives, that nobody's
//! silence or noise keeps others waiting, and that nothing grows without a limit.

// The modules below share these functions; a test that cannot go on may panic.
#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, dead_code)]

#[path = "dns/app.rs"]
mod app;
#[path = "dns/forward.rs"]
mod forward;
#[path = "dns/hostile.rs"]
mod hostile;
#[path = "dns/loops.rs"]
mod loops;
#[path = "dns/own.rs"]
mod own;
#[path = "discovery/server.rs"]
mod server;
#[path = "dns/support.rs"]
mod support;
