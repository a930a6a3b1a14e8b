//! The shell round the policies.
pub mod view;
