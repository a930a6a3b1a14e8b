//! The network below everything else: names. Nothing here knows a service.

pub mod resolve;
