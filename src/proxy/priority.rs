//! How much a call matters when not all can be served.

use http::{HeaderName, request::Parts};

use crate::{policy::bulkhead::Priority, service::Service};

/// The app's word for it: `critical`, `high`, `normal` or `low`.
const REQUEST_PRIORITY: HeaderName = HeaderName::from_static("x-request-priority");

/// What the operator's rules say of a request, else what the app says of it, else `normal`.
pub(super) fn of(service: &Service, head: &Parts) -> Priority {
    let Some(bulkhead) = &service.config().policy.bulkhead else { return Priority::Normal };
    let rule = bulkhead.priorities.iter().find(|(prefix, _)| is_under(head.uri.path(), prefix));
    let said = || Priority::parse(head.headers.get(REQUEST_PRIORITY)?.to_str().ok()?.trim());
    rule.map(|(_, priority)| *priority).or_else(said).unwrap_or(Priority::Normal)
}

/// Whether a path lies under another: `/a` holds `/a` and `/a/b`, and not `/ab`.
fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::is_under;

    #[test]
    fn a_path_lies_under_its_beginning_by_whole_steps() {
        for (path, prefix, under) in [
            ("/a", "/a", true),
            ("/a/", "/a", true),
            ("/a/b", "/a/", true),
            ("/ab", "/a", false),
            ("/", "/a", false),
            ("/a", "/", true),
            ("/", "/", true),
        ] {
            assert_eq!(is_under(path, prefix), under, "{path} under {prefix}");
        }
    }
}
