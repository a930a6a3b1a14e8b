//! Failures in a 200: what of an answer says that it is none?

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

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

impl Settings {
    /// Whether the body has a say.
    pub fn reads_body(&self) -> bool {
        self.graphql_errors || self.json.is_some()
    }

    /// Whether the head of an answer marks it.
    pub fn is_marked_by(&self, headers: &HeaderMap) -> bool {
        let Some((name, value)) = &self.header else { return false };
        headers.get_all(name).iter().any(|said| value.as_ref().is_none_or(|value| said == value))
    }

    /// Whether the body of an answer marks it. One that is no JSON does not.
    pub fn is_marked_in(&self, body: &[u8]) -> bool {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
        let marked = |(pointer, text): &(String, Option<String>)| {
            body.pointer(pointer).is_some_and(|found| match text {
                Some(text) => is_text(found, text),
                None => !matches!(found, Value::Null | Value::Bool(false)),
            })
        };
        (self.graphql_errors && is_failed_graphql(&body)) || self.json.as_ref().is_some_and(marked)
    }
}

/// Whether a scalar is written so.
fn is_text(found: &Value, text: &str) -> bool {
    match found {
        Value::String(found) => found == text,
        Value::Number(number) => number.to_string() == text,
        Value::Bool(said) => text == if *said { "true" } else { "false" },
        Value::Null => text == "null",
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// A GraphQL response that has errors and no data (GraphQL over HTTP; GraphQL specification §7.1). Of a batch, one
/// such response is enough.
fn is_failed_graphql(body: &Value) -> bool {
    match body {
        Value::Object(response) => {
            let has_errors = response.get("errors").and_then(Value::as_array).is_some_and(|errors| !errors.is_empty());
            has_errors && response.get("data").is_none_or(Value::is_null)
        }
        Value::Array(batch) => batch.iter().any(|response| response.is_object() && is_failed_graphql(response)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_without_data_are_a_failure() {
        let settings = Settings { graphql_errors: true, ..Settings::default() };
        for (body, marked) in [
            (r#"{"errors":[{"message":"x"}]}"#, true),
            (r#"{"errors":[{"message":"x"}],"data":null}"#, true),
            (r#"{"errors":[{"message":"x"}],"data":{"a":null}}"#, false),
            (r#"{"errors":[],"data":null}"#, false),
            (r#"{"data":{}}"#, false),
            (r#"[{"data":{}},{"errors":[1]}]"#, true),
            ("[]", false),
            ("", false),
            (r#"{"errors":[1]"#, false),
            ("<html>", false),
        ] {
            assert_eq!(settings.is_marked_in(body.as_bytes()), marked, "{body}");
        }
    }

    #[test]
    fn a_place_and_what_stands_there() {
        let at = |pointer: &str, text: Option<&str>| Settings {
            json: Some((pointer.to_owned(), text.map(str::to_owned))),
            ..Settings::default()
        };
        let body = br#"{"state":"failed","n":7,"big":1e2,"ok":false,"none":null,"list":[{"a/b":true}]}"#;
        for (pointer, text, marked) in [
            ("/state", Some("failed"), true),
            ("/state", Some("fail"), false),
            ("/state", None, true),
            ("/n", Some("7"), true),
            ("/big", Some("1e2"), false),
            ("/big", Some("100.0"), true),
            ("/ok", Some("false"), true),
            ("/ok", None, false),
            ("/none", None, false),
            ("/none", Some("null"), true),
            ("/list/0/a~1b", Some("true"), true),
            ("/list", Some("x"), false),
            ("/list", None, true),
            ("/absent", None, false),
        ] {
            assert_eq!(at(pointer, text).is_marked_in(body), marked, "{pointer} {text:?}");
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_no_json() {
        let deep = "[".repeat(100_000);
        assert!(!Settings { graphql_errors: true, ..Settings::default() }.is_marked_in(deep.as_bytes()));
    }

    #[test]
    fn a_header_and_what_it_says() {
        let name = HeaderName::from_static("x-error");
        let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("1"))]);
        for (value, marked) in [(None, true), (Some("1"), true), (Some("2"), false)] {
            let settings =
                Settings { header: Some((name.clone(), value.map(HeaderValue::from_static))), ..Settings::default() };
            assert_eq!((settings.is_marked_by(&headers), settings.is_marked_by(&HeaderMap::new())), (marked, false));
        }
    }
}
