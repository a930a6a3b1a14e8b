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

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// Queries, and nothing else: it may be sent twice.
    Query,
    /// For something else, too: it may not, even by GET.
    More,
    /// It is no GraphQL, or nobody can tell: a persisted query by its hash, say.
    Unknown,
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

/// What a request asks for.
pub(super) fn asks(asked: &Asked) -> Asks {
    let requests = requests(asked);
    let kinds: Vec<_> = requests.iter().map(|request| operation(request).map(|(kind, _)| kind)).collect();
    if kinds.iter().any(|kind| matches!(kind, Some(Kind::Mutation | Kind::Subscription))) {
        Asks::More
    } else if !kinds.is_empty() && kinds.iter().all(Option::is_some) {
        Asks::Query
    } else {
        Asks::Unknown
    }
}

/// What the operation of a request is called; `None` when it is no GraphQL. An operation without a name is
/// `anonymous`, and so are several at once.
pub(super) fn name(asked: &Asked) -> Option<String> {
    match &requests(asked)[..] {
        [] => None,
        [request] => {
            let name = request.operation_name.clone().or_else(|| operation(request)?.1.map(str::to_owned));
            Some(name.filter(|name| is_name(name)).unwrap_or_else(|| "anonymous".to_owned()))
        }
        _ => Some("anonymous".to_owned()),
    }
}

/// Whether a text is a name (GraphQL specification §2.1.9) of a length that a label may have.
fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text.bytes().all(is_of_name)
        && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// The GraphQL requests that an HTTP request holds.
fn requests(asked: &Asked) -> Vec<Request> {
    match asked.head.method {
        Method::GET => asked.head.uri.query().map_or_else(Vec::new, in_uri),
        Method::POST => asked.upload.whole().map_or_else(Vec::new, |pieces| {
            let content_type = asked.head.headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
            let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            let is_json = essence.eq_ignore_ascii_case(b"application/json");
            if is_json { in_body(&pieces.concat()) } else { Vec::new() }
        }),
        _ => Vec::new(),
    }
}

/// The requests in the body of a POST. One that says the same thing twice is nobody's guess: serde refuses it.
fn in_body(body: &[u8]) -> Vec<Request> {
    match serde_json::from_slice(body) {
        Ok(Requests::One(request)) if request.query.is_some() || request.operation_name.is_some() => vec![request],
        Ok(Requests::Batch(requests)) => requests,
        _ => Vec::new(),
    }
}

/// The requests in the query of a GET's URI. Whatever else has a parameter `query` has no document in it; each of
/// several counts, since which of them a server takes is its own affair.
fn in_uri(query: &str) -> Vec<Request> {
    let of = |wanted: &'static str| {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter(move |(name, _)| *name == wanted).map(|(_, value)| decoded(value))
    };
    let operation_name = of("operationName").next().flatten();
    let requests = of("query").map(|query| Request { query, operation_name: operation_name.clone() });
    requests
        .filter(|request| request.query.as_deref().and_then(operations).is_some_and(|all| !all.is_empty()))
        .collect()
}

/// A value of a form (WHATWG URL §5.1); `None` when it is no text.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match (first, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = after;
                let hex = |digit: u8| char::from(digit).to_digit(16).map_or(0, |digit| digit as u8);
                hex(*high) << 4 | hex(*low)
            }
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).ok()
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

    #[test]
    fn requests_are_read_from_bodies_and_from_uris() {
        let names = |requests: Vec<Request>| -> Vec<_> {
            requests
                .iter()
                .map(|request| operation(request).map(|(kind, name)| (kind, name.map(str::to_owned))))
                .collect()
        };
        let a = Some((Kind::Query, Some("A".to_owned())));
        for (body, expected) in [
            (r#"{"query":"query A { a }"}"#, vec![a.clone()]),
            (
                r#"[{"query":"query A { a }"},{"query":"mutation { b }"}]"#,
                vec![a.clone(), Some((Kind::Mutation, None))],
            ),
            (r#"{"operationName":"A","extensions":{"persistedQuery":{"sha256Hash":"0"}}}"#, vec![None]),
            (r#"{"query":"query A { a }","query":"mutation { b }"}"#, vec![]),
            (r#"{"query":7}"#, vec![]),
            (r#"{"x":1}"#, vec![]),
            ("[]", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(names(in_body(body.as_bytes())), expected, "{body}");
        }
        for (query, expected) in [
            ("query=query+A%20%7Ba%7D", vec![a.clone()]),
            ("operationName=A&query=query A{a}mutation B{b}", vec![a.clone()]),
            ("query={a}&query=mutation{b}", vec![Some((Kind::Query, None)), Some((Kind::Mutation, None))]),
            ("query=shoes", vec![]),
            ("query=%ff%zz%", vec![]),
            ("query", vec![]),
            ("extensions=%7B%7D", vec![]),
        ] {
            assert_eq!(names(in_uri(query)), expected, "{query}");
        }
        let deep = "[".repeat(100_000);
        assert!(in_body(deep.as_bytes()).is_empty());
    }

    #[test]
    fn names_are_those_of_the_specification() {
        for (text, expected) in
            [("A_1", true), ("_", true), ("1A", false), ("", false), ("a-b", false), ("\u{fc}", false)]
        {
            assert_eq!(is_name(text), expected, "{text}");
        }
        assert!(is_name(&"x".repeat(64)) && !is_name(&"x".repeat(65)));
    }

    /// Whatever it is given, it comes to an end without a panic.
    #[test]
    fn any_bytes_are_read_to_their_end() {
        let mut random = crate::model::Random::seeded(7);
        let pieces =
            ["query", "mutation", "{", "}", "(", ")", "\"", "\"\"\"", "\\", "#", "\n", "\u{fc}", "A", "@", " ", "$x:"];
        for _ in 0..20_000 {
            let n = random.below(12);
            let document: String = (0..n).map(|_| pieces[random.below(16) as usize]).collect();
            let _ = operations(&document);
            let _ = in_uri(&document);
        }
    }
}
