//! Failures in a 200: what of an answer says that it is none?

use http::{HeaderName, HeaderValue};

/// What marks an answer as a failure, beside its status. Any of it does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// A GraphQL answer with `errors` and no `data`. Also tells GraphQL's operations apart.
    pub graphql_errors: bool,
    /// A place in a JSON answer (RFC 6901), and the text that stands there in a failure; without a text, anything
    /// but `null` and `false`.
    pub json: Option<(String, Option<String>)>,
    /// A header, and its value in a failure; without a value, whatever it says.
    pub header: Option<(HeaderName, Option<HeaderValue>)>,
}
