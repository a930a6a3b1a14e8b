//! The words: what every other layer means when it speaks of names, endpoints and outcomes.
//!
//! | word | type |
//! |---|---|
//! | service | [`ServiceName`]: a stable name that apps call |
//! | endpoint | [`Endpoint`]: one live instance, and where it was learnt from |
//! | what exists | [`EndpointSet`]: immutable and revisioned; discovery writes it, all else reads it |
//! | what happened | [`Outcome`], and the [`Reason`] of an answer that outrigger made itself |
//!
//! This layer knows the standard library and the `http` types, and nothing else: no runtime, no
//! metrics, no serialisation. Words belong here, behaviour does not.

mod endpoint;
mod name;
mod outcome;
mod random;

pub use endpoint::{Endpoint, EndpointSet, Origin, SourceKind};
pub use name::{InvalidName, ServiceName};
pub use outcome::{Judgement, Outcome, Reason, UpstreamFault, is_idempotent};
pub use random::Random;
