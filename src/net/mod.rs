//! Speaking to the network: listening and dialling sockets in `tcp`, DNS lookups in `resolve`.

pub mod resolve;
pub mod tcp;
