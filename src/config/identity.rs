//! Readers of who somebody is: an endpoint or a caller by its certificate, a web page by its origin.
//!
//! Each reader gives the one spelling that is compared at run time, byte by byte: lower case where case
//! makes no difference, no final dot, no default port. What could never match is an error here, because a
//! name that never matches is found out by a call that fails.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use rustls::pki_types::ServerName;

use super::{PeerName, problem::quoted, scalar::Complaint};
use crate::model::ServiceName;

const WHOLE: &str = "names are compared whole: write the one that the certificate bears";

/// Reads whom an endpoint's certificate must be for.
pub(super) fn peer_name(text: &str) -> Result<PeerName, Complaint> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(PeerName::Host(ip.to_string().into()));
    }
    if is_uri(text) { uri(text).map(PeerName::Uri) } else { host(text).map(PeerName::Host) }
}

/// Reads who may call.
pub(super) fn caller(text: &str) -> Result<Arc<str>, Complaint> {
    if text.parse::<IpAddr>().is_ok() {
        let hint = "write a URI such as `spiffe://prod/orders`, or a DNS name, as the caller's certificate has it";
        return Err((format!("{} is an address, and no identity", quoted(text)), Some(hint.to_owned())));
    }
    if is_uri(text) { uri(text) } else { host(text) }
}

fn is_uri(text: &str) -> bool {
    text.contains("://") || text.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("urn:"))
}

/// A DNS name as it stands in a certificate (RFC 6125 §6.4), by the rules of who compares them.
fn host(text: &str) -> Result<Arc<str>, Complaint> {
    if text.contains('*') {
        return Err((format!("{} is a pattern", quoted(text)), Some(WHOLE.to_owned())));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    match ServerName::try_from(name) {
        Ok(ServerName::DnsName(name)) => Ok(name.as_ref().to_ascii_lowercase().into()),
        _ => {
            let hint = match name.rsplit_once(':') {
                Some((name, port)) if port.parse::<u16>().is_ok() => format!("a name alone stands here: `{name}`"),
                _ => "write a name such as `payments.internal`, or a URI such as `spiffe://prod/payments`".to_owned(),
            };
            Err((format!("{} is not a name that a certificate can bear", quoted(text)), Some(hint)))
        }
    }
}

/// A URI (RFC 3986) as it stands in a certificate (RFC 5280 §4.2.1.6): it is compared as it is written.
fn uri(text: &str) -> Result<Arc<str>, Complaint> {
    let refuse = |why: &str, hint: Option<&str>| Err((format!("{} {why}", quoted(text)), hint.map(ToOwned::to_owned)));
    let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
    if !is_scheme(scheme) || rest.trim_matches('/').is_empty() || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse("is not a URI", Some("write it like `spiffe://prod/payments`"));
    }
    if text.contains('*') {
        return refuse("is a pattern", Some(WHOLE));
    }
    if !scheme.eq_ignore_ascii_case("spiffe") {
        return Ok(text.into());
    }
    // The SPIFFE ID standard §2: its letters, and what it has of a URI.
    let authority = rest.strip_prefix("//").unwrap_or_default();
    let (domain, path) = authority.split_once('/').unwrap_or((authority, ""));
    let letters = |text: &str, upper: bool| {
        let fits = |b: u8| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b) || upper && b.is_ascii_uppercase()
        };
        !text.is_empty() && text.bytes().all(fits)
    };
    if path.is_empty() {
        return refuse("names no workload", Some("a workload's SPIFFE ID has a path: `spiffe://prod/payments`"));
    }
    let is_segment = |segment: &str| letters(segment, true) && segment != "." && segment != "..";
    if scheme != "spiffe" || !letters(domain, false) || !path.split('/').all(is_segment) {
        let hint =
            "a SPIFFE ID is `spiffe://`, a trust domain in lower case, and a path of letters, digits, `-`, `.` and `_`";
        return refuse("is not a SPIFFE ID", Some(hint));
    }
    Ok(text.into())
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Reads the origin of a web page as browsers write it (RFC 6454 §6.2): scheme, host, and a port that is not
/// the scheme's own. `*` is any.
pub(super) fn origin(text: &str) -> Result<Arc<str>, Complaint> {
    let refuse = |why: &str, hint: String| Err((format!("{} {why}", quoted(text)), Some(hint)));
    if text == "*" {
        return Ok(text.into());
    }
    if text == "null" {
        let hint = "name the page's own origin, or write `*` for any page".to_owned();
        return refuse("is the origin of whatever has none, sandboxed pages of strangers too", hint);
    }
    let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return refuse("is not an origin", "write scheme and host: `https://shop.example`".to_owned());
    };
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if authority.len() < rest.len() {
        return refuse("has more than an origin has", format!("write `{scheme}://{authority}`"));
    }
    if authority.contains('*') {
        return refuse("is a pattern", "list each origin, or write `*` alone for any page".to_owned());
    }
    // The last colon begins the port, unless it is inside of an IPv6 address.
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let host = match host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
        Some(ip) => ip.parse::<Ipv6Addr>().ok().map(|ip| format!("[{ip}]")),
        None => ServiceName::parse(host).ok().map(|host| host.to_string()),
    };
    let own = match scheme.as_str() {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    match (host, port.map(str::parse::<u16>)) {
        (Some(host), None) => Ok(format!("{scheme}://{host}").into()),
        (Some(host), Some(Ok(port))) if own == Some(port) => Ok(format!("{scheme}://{host}").into()),
        (Some(host), Some(Ok(port))) if port > 0 => Ok(format!("{scheme}://{host}:{port}").into()),
        _ => {
            refuse("is not an origin", "write scheme, host and perhaps a port: `https://shop.example:8443`".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_into_the_spelling_that_is_compared() {
        let host = |text: &str| Ok(PeerName::Host(text.into()));
        let uri = |text: &str| Ok(PeerName::Uri(text.into()));
        for (text, want) in [
            ("Payments.Internal.", host("payments.internal")),
            ("my_app", host("my_app")),
            ("10.0.0.1", host("10.0.0.1")),
            ("FD00:0::7", host("fd00::7")),
            ("spiffe://prod/payments", uri("spiffe://prod/payments")),
            ("spiffe://prod.example/ns/Shop/sa/a_b.c", uri("spiffe://prod.example/ns/Shop/sa/a_b.c")),
            ("urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66", uri("urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66")),
        ] {
            assert_eq!(peer_name(text), want, "{text}");
        }
        assert_eq!(caller("Web.internal"), Ok("web.internal".into()));
    }

    #[test]
    fn names_that_never_match_are_refused() {
        for text in [
            "",
            ".",
            "a b",
            "-a",
            "a-",
            "a..b",
            "*.internal",
            "payments:8443",
            "[::1]",
            "10.0.0.1:80",
            "1.2.3",
            "0x1f",
            "spiffe:prod/a",
            "spiffe:/prod/a",
            "spiffe:///prod/a",
            "spiffe://prod",
            "spiffe://prod/",
            "spiffe://Prod/a",
            "SPIFFE://prod/a",
            "spiffe://prod/a/",
            "spiffe://prod//a",
            "spiffe://prod/../a",
            "spiffe://prod:1/a",
            "spiffe://prod/a?b",
            "spiffe://prod/*",
            "://a",
            "1a://b",
            "a://",
            "urn:",
            "x://a b",
            "x://é",
        ] {
            assert!(peer_name(text).is_err(), "{text}: {:?}", peer_name(text));
            assert!(caller(text).is_err(), "{text}");
        }
        assert!(caller("10.0.0.1").is_err() && caller("::1").is_err());
    }

    #[test]
    fn origins_are_as_browsers_write_them() {
        for (text, want) in [
            ("*", "*"),
            ("https://shop.example", "https://shop.example"),
            ("HTTPS://Shop.Example:443", "https://shop.example"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:443", "http://localhost:443"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("https://[::1]", "https://[::1]"),
            ("https://[0:0::1]:8443", "https://[::1]:8443"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(want), "{text}");
        }
        for text in [
            "",
            "null",
            "shop.example",
            "https://",
            "https://shop.example/",
            "https://shop.example/x",
            "https://a?b",
            "https://*.example",
            "*://a",
            "https://a:0",
            "https://a:65536",
            "https://a:",
            "https://a:b:1",
            "https://u@a",
            "https://[::1",
            "https://[::1]x",
            "https://[::1]x:1",
            "https://[a]",
            "https://a b",
            "https://é.example",
        ] {
            assert!(origin(text).is_err(), "{text}: {:?}", origin(text));
        }
    }
}
