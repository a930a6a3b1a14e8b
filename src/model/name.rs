//! The name of a service: lower case, and fit to stand in a `Host` header and in DNS.

use std::{borrow::Borrow, fmt, sync::Arc};

/// A service's name, in lower case.
///
/// One or more labels of letters, digits, `-` and `_`, joined by dots, 253 bytes at most, so that
/// the name can be a `Host` (RFC 9110 §7.2) and, with a suffix, a DNS name (RFC 1035 §2.3.4).
/// Underscores are allowed because compose services and SRV labels carry them. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

/// Why a text is not a service name; the message completes "`x` is not a service name: …".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidName {
    /// Nothing between two dots, or nothing at all.
    Empty,
    /// A name of over 253 bytes, or a label of over 63.
    TooLong,
    /// A character that can stand in no host name.
    Character(char),
}

impl ServiceName {
    /// Parses a name, folding it to lower case.
    ///
    /// # Errors
    /// [`InvalidName`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.len() > 253 {
            return Err(InvalidName::TooLong);
        }
        for label in text.split('.') {
            match label.len() {
                0 => return Err(InvalidName::Empty),
                64.. => return Err(InvalidName::TooLong),
                _ => {}
            }
        }
        let bad = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        match text.chars().find(bad) {
            Some(c) => Err(InvalidName::Character(c)),
            None => Ok(Self(text.to_ascii_lowercase().into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it has an empty label"),
            Self::TooLong => f.write_str("it is too long (63 bytes a label, 253 in all)"),
            Self::Character(c) => write!(f, "{c:?} cannot stand in a host name"),
        }
    }
}

impl std::error::Error for InvalidName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fold_to_lower_case() {
        assert_eq!(ServiceName::parse("Payments.Prod_2").unwrap().as_str(), "payments.prod_2");
    }

    #[test]
    fn what_cannot_be_a_host_is_refused() {
        assert_eq!(ServiceName::parse(""), Err(InvalidName::Empty));
        assert_eq!(ServiceName::parse("a..b"), Err(InvalidName::Empty));
        assert_eq!(ServiceName::parse("a/b"), Err(InvalidName::Character('/')));
        assert_eq!(ServiceName::parse(&"a".repeat(64)), Err(InvalidName::TooLong));
        assert_eq!(ServiceName::parse(&["abcdefg"; 40].join(".")), Err(InvalidName::TooLong));
    }
}
