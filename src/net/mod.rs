//! Speaking to the network: sockets here, DNS lookups in `resolve`.

pub mod tcp;
