//! Kinds of scalar: what a text under a key must look like, in words for people and in JSON Schema.
//!
//! Each kind has one reader, and the resolver uses the same ones: [`Scalar::check`] accepts exactly what
//! can be read. The readers of words and counts are here; the others are in `units`, `address` and `identity`.

use std::{net::Ipv4Addr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, StatusCode};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    Wildcard, address, identity,
    keys::RETRY_ON,
    platform,
    problem::{did_you_mean, quoted},
    units,
};
use crate::{
    model::{Reason, ServiceName},
    policy::{balance::HashKey, fallback::Cause},
};

/// What is wrong with a scalar, and what to write instead where that can be guessed.
pub(super) type Complaint = (String, Option<String>);

/// A kind of scalar.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar {
    /// One of these words; where `on` or `off` is one, `true` or `false` is too.
    Word(&'static [&'static str]),
    /// A time in this range.
    Duration(Duration, Duration),
    /// A whole number in this range.
    Count(u64, u64),
    /// A share of at least so many per cent.
    Share(f64),
    /// A size in this range, in bytes.
    Size(u64, u64),
    /// Where to listen: IP:PORT, or a port of 127.0.0.1. Port 0 is any free one.
    Listen,
    /// Where to connect: IP:PORT.
    Address,
    /// Our own app: IP:PORT, or a port of 127.0.0.1.
    App,
    /// A DNS server: IP, or IP:PORT.
    Nameserver,
    /// A DNS name and a port.
    HostPort,
    /// A DNS name that is looked up, perhaps with a place for a service's name.
    LookedUp,
    /// A DNS name.
    DnsName,
    /// A service's name.
    Service,
    /// An IPv4 address.
    Ipv4,
    /// A range of IPv4 addresses for VIPs, as IP/BITS.
    Range,
    /// A range of addresses, as IP/BITS.
    Cidr,
    /// Whom a certificate is for: a DNS name, an IP address or a URI.
    PeerName,
    /// Who a certificate says a caller is: a URI or a DNS name.
    Identity,
    /// The origin of a web page, or `*`.
    Origin,
    /// The path of a file.
    Path,
    /// The path of a Unix socket.
    Socket,
    /// Where the access log goes.
    AccessLog,
    /// What of a request is hashed.
    HashKey,
    /// A header's name.
    Header,
    /// An HTTP status.
    Status,
    /// What a retry answers to: a word, a status or a gRPC code.
    RetryOn,
    /// What a fallback answers to: a reason, or `upstream_error`.
    Cause,
    /// A gRPC code, by name or number.
    GrpcCode,
    /// Bytes in base64.
    Base64,
    /// A percentile: `p50` to `p99`.
    Percentile,
    /// A path of a URL, or of a JSON document (RFC 6901).
    SlashPath,
    /// Any text, the empty one too.
    Text,
}

/// A text as it is when a name stands in its place.
fn named(text: &str) -> std::borrow::Cow<'_, str> {
    match text.contains(Wildcard::PLACE) {
        true => text.replace(Wildcard::PLACE, "name").into(),
        false => text.into(),
    }
}

impl Scalar {
    /// Whether this kind of scalar can be read from `text`.
    pub(super) fn check(self, text: &str) -> Result<(), Complaint> {
        match self {
            Self::Word(words) => words.contains(&switch(text)).then_some(()).ok_or_else(|| not_a_word(text, words)),
            Self::Duration(min, max) => {
                within(units::duration(text)?, (min, max), units::LONGEST, text, units::show_duration)
            }
            Self::Count(min, max) => within(count(text)?, (min, max), u64::MAX, text, |n| n.to_string()),
            Self::Share(min) => match units::share(text)? {
                share if share.as_percent() < min => Err((format!("`{text}` is under {min}%"), None)),
                _ => Ok(()),
            },
            Self::Size(min, max) => within(units::size(text)?, (min, max), u64::MAX, text, units::show_size),
            Self::Listen => address::listen(text).map(drop),
            Self::Address => address::address(text).map(drop),
            Self::App => address::app(text).map(drop),
            Self::Nameserver => address::nameserver(text).map(drop),
            Self::HostPort => address::host_port(&named(text)).map(drop),
            Self::LookedUp => address::dns_name(&named(text)).map(drop),
            Self::DnsName => address::dns_name(text).map(drop),
            Self::Service => service(text).map(drop),
            Self::Ipv4 => plain(text.parse::<Ipv4Addr>().is_ok(), text, "an IPv4 address"),
            Self::Range => platform::range(text).map(drop),
            Self::Cidr => plain(text.parse::<IpNet>().is_ok(), text, "a range of addresses such as `10.0.0.0/8`"),
            Self::PeerName => identity::peer_name(text).map(drop),
            Self::Identity => identity::caller(text).map(drop),
            Self::Origin => identity::origin(text).map(drop),
            Self::Path => plain(!text.is_empty() && !text.contains('\0'), text, "a path"),
            Self::Socket => address::socket(text),
            Self::AccessLog => access_log(text),
            Self::HashKey => hash_key(text).map(drop),
            Self::Header => header(text).map(drop),
            Self::Status => within(count(text)?, (200, 599), u64::MAX, text, |n| n.to_string()),
            Self::RetryOn => retry_on(text).map(drop),
            Self::Cause => cause(text).map(drop),
            Self::GrpcCode => grpc_code(text).map(drop),
            Self::Base64 => base64(text).map(drop),
            Self::Percentile => plain(is_percentile(text), text, "a percentile from `p50` to `p99`"),
            Self::SlashPath => plain(text.starts_with('/'), text, "a path that begins with `/`"),
            Self::Text => Ok(()),
        }
    }

    /// What is expected, to complete "expected ...".
    pub(super) fn expected(self) -> Vec<String> {
        let one = match self {
            Self::Word(words) => return words.iter().map(|word| format!("`{word}`")).collect(),
            Self::Duration(..) => "a time such as `250ms`",
            Self::Count(..) => "a whole number",
            Self::Share(_) => "a share such as `50%`",
            Self::Size(..) => "a size such as `64KiB`",
            Self::Listen | Self::App => "IP:PORT or a port",
            Self::Address => "IP:PORT",
            Self::Nameserver => "IP or IP:PORT",
            Self::HostPort => "HOST:PORT",
            Self::DnsName | Self::LookedUp => "a DNS name",
            Self::Service => "a service's name",
            Self::Ipv4 => "an IPv4 address",
            Self::Range => "IP/BITS",
            Self::Cidr => "IP/BITS",
            Self::PeerName => "a DNS name, an IP address or a URI",
            Self::Identity => "a URI or a DNS name",
            Self::Origin => "an origin such as `https://shop.example`",
            Self::Path | Self::Socket => "a path",
            Self::AccessLog => "`off`, `stdout` or a path",
            Self::HashKey => "`header NAME`, `cookie NAME` or `path`",
            Self::Header => "a header's name",
            Self::Status => "an HTTP status",
            Self::RetryOn => "`connect`, `reset`, `timeout`, `5xx`, a status or a gRPC code",
            Self::Cause => "a reason such as `breaker_open`, or `upstream_error`",
            Self::GrpcCode => "a gRPC code such as `unavailable`",
            Self::Base64 => "bytes in base64",
            Self::Percentile => "a percentile such as `p95`",
            Self::SlashPath => "a path that begins with `/`",
            Self::Text => "a text",
        };
        vec![one.to_owned()]
    }

    /// This kind in JSON Schema. Whatever is not plain text may also be a `${VARIABLE}`.
    pub(super) fn schema(self) -> Value {
        let text = |pattern: &str| json!({ "type": "string", "pattern": format!("{pattern}|\\$\\{{") });
        let number = |min: u64, max: u64| json!({ "anyOf": [{ "type": "integer", "minimum": min, "maximum": max }, { "type": "string", "pattern": "^[0-9]+$|\\$\\{" }] });
        match self {
            Self::Word(words) => {
                let mut all: Vec<Value> = words.iter().map(|word| json!(word)).collect();
                all.extend(words.contains(&"on").then_some(json!(true)));
                all.extend(words.contains(&"off").then_some(json!(false)));
                // YAML takes `1.2` for a number, and so do editors.
                all.extend(words.iter().filter_map(|word| word.parse::<f64>().ok()).map(|number| json!(number)));
                json!({ "enum": all })
            }
            Self::Duration(..) => text("^([0-9]+(\\.[0-9]+)?(d|h|m|s|ms|us|ns))+$"),
            Self::Count(min, max) => number(min, max),
            Self::Status => number(200, 599),
            Self::Share(_) => text("^[0-9]+(\\.[0-9]+)? *%$"),
            Self::Size(..) => text("^[0-9]+(\\.[0-9]+)? *(B|KiB|MiB|GiB)$"),
            Self::Listen => {
                json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 65535 }, { "type": "string" }] })
            }
            Self::App => {
                json!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65535 }, { "type": "string" }] })
            }
            Self::Origin => text("^\\*$|^[A-Za-z][A-Za-z0-9+.-]*://[^/]+$"),
            Self::RetryOn => {
                let words: Vec<_> = RETRY_ON.into_iter().chain(GRPC_CODES[1..].iter().copied()).collect();
                json!({ "anyOf": [{ "enum": words }, { "type": "integer", "minimum": 400, "maximum": 599 }, text("^[45][0-9][0-9]$")] })
            }
            Self::Cause => {
                let words: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).chain([UPSTREAM_ERROR]).collect();
                json!({ "enum": words })
            }
            Self::GrpcCode => json!({ "anyOf": [{ "enum": GRPC_CODES }, number(0, 16)] }),
            Self::Base64 => text("^[A-Za-z0-9+/]*={0,2}$"),
            Self::AccessLog => json!({ "anyOf": [{ "enum": ["off", false, "stdout"] }, text("/")] }),
            Self::HashKey => text("^(header|cookie) +[^ ]+$|^path$"),
            Self::Percentile => text("^p[5-9][0-9]$"),
            Self::SlashPath => text("^/"),
            Self::Text => json!({ "type": ["string", "number", "boolean"] }),
            _ => json!({ "type": "string" }),
        }
    }
}

pub(super) fn plain(fits: bool, text: &str, what: &str) -> Result<(), Complaint> {
    if fits { Ok(()) } else { Err((format!("{} is not {what}", quoted(text)), None)) }
}

fn within<T: PartialOrd + Copy>(
    value: T,
    (min, max): (T, T),
    most: T,
    text: &str,
    show: fn(T) -> String,
) -> Result<(), Complaint> {
    let out = |side| {
        // The end of what can be written at all is no bound that anybody asks for.
        let hint =
            if max == most { format!("at least {}", show(min)) } else { format!("{} to {}", show(min), show(max)) };
        Err((format!("`{text}` is too {side}"), Some(hint)))
    };
    if value < min {
        out("small")
    } else if value > max {
        out("large")
    } else {
        Ok(())
    }
}

fn not_a_word(text: &str, words: &[&str]) -> Complaint {
    let known = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let near = did_you_mean(text, words.iter().copied());
    (format!("{} is none of {known}", quoted(text)), near)
}

/// `on` and `off` in their other spelling.
pub(super) fn switch(text: &str) -> &str {
    match text {
        "true" | "True" | "TRUE" | "On" | "ON" => "on",
        "false" | "False" | "FALSE" | "Off" | "OFF" => "off",
        text => text,
    }
}

/// Reads a whole number.
pub(super) fn count(text: &str) -> Result<u64, Complaint> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = text.parse().ok().filter(|_| digits);
    value.ok_or_else(|| (format!("{} is not a whole number", quoted(text)), None))
}

/// Reads a service's name.
pub(super) fn service(text: &str) -> Result<ServiceName, Complaint> {
    ServiceName::parse(text).map_err(|why| (format!("{} is not a service name: {why}", quoted(text)), None))
}

fn access_log(text: &str) -> Result<(), Complaint> {
    match switch(text) {
        "off" | "stdout" => Ok(()),
        "on" => Err(("`on` does not say where to".to_owned(), Some("write `stdout` or a path".to_owned()))),
        path if path.contains('/') && !path.contains('\0') => Ok(()),
        other => {
            let near = did_you_mean(other, ["stdout", "off"]);
            Err((
                format!("{} is neither `off`, `stdout` nor a path", quoted(other)),
                near.or(Some(format!("a file here is `./{other}`"))),
            ))
        }
    }
}

/// Reads what of a request is hashed.
pub(super) fn hash_key(text: &str) -> Result<HashKey, Complaint> {
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("path"), None, _) => Ok(HashKey::Path),
        (Some("header"), Some(name), None) => header(name).map(HashKey::Header),
        (Some("cookie"), Some(name), None) if is_cookie_name(name) => Ok(HashKey::Cookie(name.into())),
        _ => Err((format!("{} is no key", quoted(text)), Some("write `header x-user`, `cookie sid` or `path`".into()))),
    }
}

/// A cookie's name is a token (RFC 6265 §4.1.1), like a header's.
fn is_cookie_name(text: &str) -> bool {
    HeaderName::from_bytes(text.as_bytes()).is_ok()
}

/// Reads a header's name.
pub(super) fn header(text: &str) -> Result<HeaderName, Complaint> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| (format!("{} is not a header's name", quoted(text)), None))
}

/// gRPC's codes by number (grpc/grpc, `doc/statuscodes.md`).
pub(super) const GRPC_CODES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// One condition of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryOn {
    Connect,
    Reset,
    Timeout,
    ServerErrors,
    Status(StatusCode),
    Grpc(u16),
}

/// Reads one condition of a retry.
pub(super) fn retry_on(text: &str) -> Result<RetryOn, Complaint> {
    let status =
        || count(text).ok().filter(|n| (400..600).contains(n)).and_then(|n| StatusCode::from_u16(n as u16).ok());
    let code = || GRPC_CODES[1..].iter().position(|word| *word == text);
    match text {
        "connect" => Ok(RetryOn::Connect),
        "reset" => Ok(RetryOn::Reset),
        "timeout" => Ok(RetryOn::Timeout),
        "5xx" => Ok(RetryOn::ServerErrors),
        _ => status().map(RetryOn::Status).or_else(|| code().map(|at| RetryOn::Grpc(at as u16 + 1))).ok_or_else(|| {
            let near = did_you_mean(text, RETRY_ON.into_iter().chain(GRPC_CODES[1..].iter().copied()));
            let words = RETRY_ON.map(|word| format!("`{word}`")).join(", ");
            (format!("{} is none of {words}, a status from 400 to 599, or a gRPC code", quoted(text)), near)
        }),
    }
}

const UPSTREAM_ERROR: &str = "upstream_error";

/// Reads what a fallback is for.
pub(super) fn cause(text: &str) -> Result<Cause, Complaint> {
    if text == UPSTREAM_ERROR {
        return Ok(Cause::UpstreamError);
    }
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == text);
    reason.map(Cause::Reason).ok_or_else(|| {
        let words = Reason::ALL.iter().map(|reason| reason.as_str()).chain([UPSTREAM_ERROR]);
        (format!("{} is no reason for a fallback", quoted(text)), did_you_mean(text, words))
    })
}

/// Reads a gRPC code.
pub(super) fn grpc_code(text: &str) -> Result<u16, Complaint> {
    let by_name = || GRPC_CODES.iter().position(|word| *word == text.to_ascii_lowercase());
    let code = count(text).ok().map(|number| number as usize).filter(|number| *number < GRPC_CODES.len());
    code.or_else(by_name).map(|code| code as u16).ok_or_else(|| {
        (format!("{} is no gRPC code", quoted(text)), did_you_mean(&text.to_ascii_lowercase(), GRPC_CODES))
    })
}

/// Reads bytes in base64.
pub(super) fn base64(text: &str) -> Result<Vec<u8>, Complaint> {
    STANDARD.decode(text).map_err(|why| (format!("{} is not base64: {why}", quoted(text)), None))
}

/// Reads a percentile.
pub(super) fn percentile(text: &str) -> Option<u8> {
    text.strip_prefix('p').filter(|_| is_percentile(text))?.parse().ok()
}

fn is_percentile(text: &str) -> bool {
    let number = text.strip_prefix('p').and_then(|number| number.parse::<u8>().ok());
    text.len() == 3 && number.is_some_and(|number| (50..=99).contains(&number))
}
