//! Environment variables in values: `${NAME}`, `${NAME:-default}`, and `$$` for a dollar.
//!
//! These are the two forms of the shell that compose files use. Variables are filled in once: what a
//! variable holds is not looked at again, and neither is a default. A `$` before anything else stands
//! for itself.

use std::{borrow::Cow, fmt};

/// Why a value cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfilled {
    /// The variable is not set, and no default is given.
    Unset(String),
    /// `${` without a `}`.
    Open,
    /// What stands between `${` and `}` is neither `NAME` nor `NAME:-default`.
    NotAName(String),
}

impl Unfilled {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Unset(name) => Some(format!("set it, or give a default: `${{{name}:-...}}`")),
            Self::Open => Some("write `${NAME}`, or `$$` for a dollar".to_owned()),
            Self::NotAName(_) => Some("write `${NAME}` or `${NAME:-default}`, or `$$` for a dollar".to_owned()),
        }
    }
}

impl fmt::Display for Unfilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset(name) => write!(f, "the environment variable `{name}` is not set"),
            Self::Open => f.write_str("`${` is never closed"),
            Self::NotAName(text) => write!(f, "`${{{text}}}` is not a variable"),
        }
    }
}

/// Fills in the variables of one value. As in the shell, `:-` also replaces a variable that is empty.
pub(super) fn fill<'t>(text: &'t str, env: &dyn Fn(&str) -> Option<String>) -> Result<Cow<'t, str>, Unfilled> {
    if !text.contains('$') {
        return Ok(text.into());
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            filled.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (inside, after) = after.split_once('}').ok_or(Unfilled::Open)?;
            filled.push_str(&variable(inside, env)?);
            rest = after;
        } else {
            filled.push('$');
            rest = after;
        }
    }
    filled.push_str(rest);
    Ok(filled.into())
}

fn variable(inside: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Unfilled> {
    let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Unfilled::NotAName(inside.to_owned()));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Unfilled::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, Unfilled> {
        let env = |name: &str| match name {
            "HOST" => Some("orders".to_owned()),
            "EMPTY" => Some(String::new()),
            "SLY" => Some("${HOST}".to_owned()),
            _ => None,
        };
        fill(text, &env).map(Cow::into_owned)
    }

    #[test]
    fn variables_and_defaults_are_filled_in_once() {
        for (text, want) in [
            ("plain", "plain"),
            ("${HOST}:80", "orders:80"),
            ("${HOST}${HOST}", "ordersorders"),
            ("${NONE:-a:b}", "a:b"),
            ("${EMPTY:-a}", "a"),
            ("${EMPTY}", ""),
            ("${NONE:-}", ""),
            ("${SLY}", "${HOST}"),
            ("$$HOST $${HOST} $ $x", "$HOST ${HOST} $ $x"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_an_error() {
        assert_eq!(filled("${NONE}"), Err(Unfilled::Unset("NONE".into())));
        assert_eq!(filled("a${HOST"), Err(Unfilled::Open));
        assert_eq!(filled("${}"), Err(Unfilled::NotAName(String::new())));
        assert_eq!(filled("${1A}"), Err(Unfilled::NotAName("1A".into())));
        assert_eq!(filled("${HOST:?no}"), Err(Unfilled::NotAName("HOST:?no".into())));
    }
}
