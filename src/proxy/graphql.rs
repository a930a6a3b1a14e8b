//! What a GraphQL request asks for: a query may be repeated, a mutation may not.
//!
//! A request names its operation beside a document that may hold several (GraphQL over HTTP §5). To tell their types
//! takes no more than the lexical grammar (GraphQL specification §2): what stands outside of all brackets. Whatever
//! cannot be told is taken for a mutation, which is the safe side.

use http::{Method, header::CONTENT_TYPE};
use serde::Deserialize;

use super::asked::Asked;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Query,
    Mutation,
    Subscription,
}

/// One operation of a document.
#[derive(Debug, PartialEq, Eq)]
struct Operation<'a> {
    kind: Kind,
    name: Option<&'a str>,
}

/// One request of a body.
#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default)]
    query: Option<String>,
    #[serde(default, rename = "operationName")]
    operation_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Requests {
    One(Request),
    Batch(Vec<Request>),
}

/// The longest name that becomes a label.
const LONGEST_NAME: usize = 64;

/// Whether a request is known to be a query, and nothing else.
pub(super) fn is_query(asked: &Asked) -> bool {
    let requests = requests(asked);
    !requests.is_empty()
        && requests.iter().all(|request| operation(request).is_some_and(|(kind, _)| kind == Kind::Query))
}

/// What the operation of a request is called; `None` when it is no GraphQL. An operation without a name is
/// `anonymous`, and so are several at once.
pub(super) fn name(asked: &Asked) -> Option<String> {
    match &requests(asked)[..] {
        [] => None,
        [request] => {
            let name = request.operation_name.clone().or_else(|| operation(request)?.1.map(str::to_owned));
            let is_name =
                |name: &String| name.len() <= LONGEST_NAME && !name.is_empty() && name.bytes().all(is_of_name);
            Some(name.filter(is_name).unwrap_or_else(|| "anonymous".to_owned()))
        }
        _ => Some("anonymous".to_owned()),
    }
}

/// The requests that the body of a POST holds, as far as it has been kept.
fn requests(asked: &Asked) -> Vec<Request> {
    let content_type = asked.head.headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if asked.head.method != Method::POST || !essence.eq_ignore_ascii_case(b"application/json") {
        return Vec::new();
    }
    let Some(pieces) = asked.upload.whole() else { return Vec::new() };
    match serde_json::from_slice(&pieces.concat()) {
        Ok(Requests::One(request)) if request.query.is_some() || request.operation_name.is_some() => vec![request],
        Ok(Requests::Batch(requests)) => requests,
        _ => Vec::new(),
    }
}

/// The operation that a request names; without a name there must be one alone.
fn operation(request: &Request) -> Option<(Kind, Option<&str>)> {
    let operations = operations(request.query.as_deref()?)?;
    let found = match (&request.operation_name, &operations[..]) {
        (Some(name), all) => all.iter().find(|operation| operation.name == Some(name))?,
        (None, [only]) => only,
        (None, _) => return None,
    };
    Some((found.kind, found.name))
}

/// The operations of a document; `None` when its brackets or strings do not close.
fn operations(document: &str) -> Option<Vec<Operation<'_>>> {
    let mut found: Vec<Operation<'_>> = Vec::new();
    let (mut rest, mut depth, mut is_named) = (document, 0usize, true);
    // Whether an operation or a fragment has begun, whose braces are still to come.
    let mut begun = false;
    while let Some(first) = rest.bytes().next() {
        let mut length = 1;
        match first {
            b'#' => length = rest.find(['\n', '\r']).unwrap_or(rest.len()),
            b'"' => length = string(rest)?,
            b'{' | b'(' | b'[' => {
                if depth == 0 && first == b'{' {
                    if !begun {
                        found.push(Operation { kind: Kind::Query, name: None });
                    }
                    begun = false;
                }
                is_named = true;
                depth += 1;
            }
            b'}' | b')' | b']' => depth = depth.checked_sub(1)?,
            _ if is_of_name(first) => {
                length = rest.bytes().take_while(|byte| is_of_name(*byte)).count();
                let word = &rest[..length];
                if depth == 0 && !begun {
                    let kind = match word {
                        "query" => Some(Kind::Query),
                        "mutation" => Some(Kind::Mutation),
                        "subscription" => Some(Kind::Subscription),
                        _ => None,
                    };
                    found.extend(kind.map(|kind| Operation { kind, name: None }));
                    (begun, is_named) = (true, kind.is_none());
                } else if depth == 0 && !is_named {
                    found.last_mut()?.name = Some(word);
                    is_named = true;
                }
            }
            // A directive of the operation: what follows is its own name, not the operation's.
            b'@' => is_named = true,
            _ => length = rest.chars().next().map_or(1, char::len_utf8),
        }
        rest = &rest[length..];
    }
    (depth == 0 && !begun).then_some(found)
}

/// How long the string is that a text begins with: `"…"` with escapes, or `"""…"""`.
fn string(text: &str) -> Option<usize> {
    if let Some(block) = text.strip_prefix("\"\"\"") {
        let mut at = 0;
        loop {
            let end = at + block[at..].find("\"\"\"")?;
            if !block[..end].ends_with('\\') {
                return Some(3 + end + 3);
            }
            at = end + 3;
        }
    }
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            b'\n' | b'\r' => return None,
            _ => {}
        }
    }
    None
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(document: &str) -> Option<Vec<String>> {
        let show = |operation: &Operation<'_>| format!("{:?} {}", operation.kind, operation.name.unwrap_or("-"));
        Some(operations(document)?.iter().map(show).collect())
    }

    #[test]
    fn operations_are_told_apart() {
        for (document, expected) in [
            ("{ a }", vec!["Query -"]),
            ("query { a }", vec!["Query -"]),
            ("query A { a }", vec!["Query A"]),
            ("query A($x: Int = 3) @live { a(x: $x) { mutation } }", vec!["Query A"]),
            ("query @mutation { a }", vec!["Query -"]),
            ("mutation B { query { a } }", vec!["Mutation B"]),
            ("subscription { a }", vec!["Subscription -"]),
            ("fragment mutation on query { a } query C { ...mutation }", vec!["Query C"]),
            ("query A { a } mutation B { b }", vec!["Query A", "Mutation B"]),
            ("# mutation { a }\n{ a }", vec!["Query -"]),
            (r#"{ a(x: "} mutation { \" ") }"#, vec!["Query -"]),
            ("{ a(x: \"\"\" } mutation { \\\"\"\" \"\" \"\"\") }", vec!["Query -"]),
            ("{ \u{fc} }", vec!["Query -"]),
            ("", vec![]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(shown(document), Some(expected), "{document}");
        }
        for broken in ["{", "}", "query", "{ a(x: \"", "{ a(x: \"\n\") }", "{ \"\"\" }", "query A"] {
            assert_eq!(shown(broken), None, "{broken}");
        }
    }

    fn request(query: &str, name: Option<&str>) -> Request {
        Request { query: Some(query.to_owned()), operation_name: name.map(str::to_owned) }
    }

    #[test]
    fn the_operation_that_is_named_counts() {
        let both = "query A { a } mutation B { b }";
        assert_eq!(operation(&request(both, Some("A"))), Some((Kind::Query, Some("A"))));
        assert_eq!(operation(&request(both, Some("B"))), Some((Kind::Mutation, Some("B"))));
        assert_eq!((operation(&request(both, None)), operation(&request(both, Some("C")))), (None, None));
    }
}
