//! cli.

pub mod demo;
