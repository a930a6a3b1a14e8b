//! net.

pub mod resolve;
