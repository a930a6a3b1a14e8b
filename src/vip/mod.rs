//! Services as a platform gives them: a name that resolves, and an address of its own behind it.
//!
//! `dns` answers names with addresses. What arrives at an address is the business of `proxy`, like all calls.

pub mod dns;
