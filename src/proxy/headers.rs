//! Headers that concern one connection only, and those that a proxy adds.
//!
//! RFC 9110 §7.6.1: a proxy removes `Connection`, whatever `Connection` names, and the fields that are
//! known to be meant for one hop. `TE` stays where it says `trailers`, since we do pass trailers on;
//! `Upgrade` stays where the call is one. What is left is the same for both HTTPs; `fit` gives it the form that
//! the next hop's wants.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a message asked for in its `Connection` header.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Hop {
    /// The protocol to change to: `Connection: upgrade` with an `Upgrade` header.
    pub(super) upgrade: Option<HeaderValue>,
}

/// Removes from a message what is meant for this hop alone. hyper writes its own `Connection`,
/// `Transfer-Encoding` and `TE` for the next one.
pub(super) fn strip_hop(headers: &mut HeaderMap) -> Hop {
    let mut hop = Hop::default();
    let (mut connection, mut framing, mut rare) = (false, false, false);
    // One pass that compares, before any look-up that hashes: most messages have none of these.
    for name in headers.keys() {
        match *name {
            CONNECTION => connection = true,
            TRANSFER_ENCODING => framing = true,
            TE | UPGRADE => rare = true,
            _ => rare |= *name == KEEP_ALIVE || *name == PROXY_CONNECTION,
        }
    }
    if connection {
        hop.upgrade = strip_connection(headers);
    }
    if framing {
        headers.remove(TRANSFER_ENCODING);
    }
    if rare {
        headers.remove(KEEP_ALIVE);
        headers.remove(PROXY_CONNECTION);
        headers.remove(UPGRADE);
        keep_te_trailers(headers);
    }
    hop
}

/// Removes `Connection` and what it names; returns the protocol where it names `upgrade`.
fn strip_connection(headers: &mut HeaderMap) -> Option<HeaderValue> {
    if let http::header::Entry::Occupied(connection) = headers.entry(CONNECTION)
        && connection.iter().all(|value| is_plain(value.as_bytes()))
    {
        connection.remove_entry_mult();
        return None;
    }
    let mut named = Vec::new();
    let mut upgrade = false;
    for value in headers.get_all(CONNECTION) {
        let tokens = value.to_str().unwrap_or_default().split(',').map(str::trim);
        for token in tokens.filter(|token| !token.is_empty()) {
            if token.eq_ignore_ascii_case("upgrade") {
                upgrade = true;
            } else if !is_framing(token)
                && let Ok(name) = HeaderName::from_bytes(token.as_bytes())
            {
                named.push(name);
            }
        }
    }
    headers.remove(CONNECTION);
    named.iter().for_each(|name| {
        headers.remove(name);
    });
    headers.remove(UPGRADE).filter(|_| upgrade)
}

/// What nearly all `Connection` headers say, and which names nothing else.
fn is_plain(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

/// Fields that no `Connection` header can take away: without them the message means something else
/// (RFC 9110 §7.6.1 forbids to name them).
fn is_framing(token: &str) -> bool {
    ["close", "keep-alive", "te", "host", "content-length", "transfer-encoding", "content-type", "authorization"]
        .iter()
        .any(|name| token.eq_ignore_ascii_case(name))
}

/// Leaves of `TE` what a proxy that passes trailers can promise.
fn keep_te_trailers(headers: &mut HeaderMap) {
    let Some(te) = headers.remove(TE) else { return };
    let trailers = |value: &str| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    if te.to_str().is_ok_and(trailers) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Asks the next hop for a change of protocol.
pub(super) fn ask_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Whether a message's only transfer coding, if it has any, is `chunked`: hyper takes that one off, any other
/// would have to be passed on, and we remove the header that says so.
pub(super) fn is_plainly_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

/// Our `Via` entries (RFC 9110 §7.6.3): the protocol that we received, and a name that no other process has.
#[derive(Debug)]
pub(super) struct Vias {
    pseudonym: String,
    http1: HeaderValue,
    http2: HeaderValue,
}

impl Vias {
    pub(super) fn of(pseudonym: &str) -> Self {
        let via = |protocol| HeaderValue::from_str(&format!("{protocol} {pseudonym}"));
        let of = |protocol| via(protocol).expect("a pseudonym is made of letters, digits and dashes");
        Self { pseudonym: pseudonym.to_owned(), http1: of("1.1"), http2: of("2") }
    }

    /// Our name.
    pub(super) fn pseudonym(&self) -> &str {
        &self.pseudonym
    }

    /// Our entry for a request that came by this protocol.
    pub(super) fn entry(&self, version: Version) -> HeaderValue {
        if version == Version::HTTP_2 { self.http2.clone() } else { self.http1.clone() }
    }
}

/// Whether a call has been through the process of this name before.
pub(super) fn has_been_here(headers: &HeaderMap, pseudonym: &str) -> bool {
    let names_us = |entry: &str| entry.split_whitespace().nth(1).is_some_and(|by| by == pseudonym);
    headers.get_all(VIA).iter().any(|value| value.to_str().is_ok_and(|via| via.split(',').any(names_us)))
}

/// Sets the Host that the endpoint sees.
pub(super) fn set_host(headers: &mut HeaderMap, host: &str) {
    if let Ok(value) = HeaderValue::from_str(host) {
        headers.insert(HOST, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_connection_names_is_removed_with_it() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);
        assert_eq!(strip_hop(&mut headers), Hop::default());
        assert_eq!(headers, map(&[("accept", "*/*")]));
    }

    #[test]
    fn connection_cannot_take_away_what_frames_or_routes_a_message() {
        let mut headers = map(&[("connection", "host, content-length, authorization"), ("host", "a")]);
        headers.insert("content-length", HeaderValue::from_static("3"));
        strip_hop(&mut headers);
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let mut headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(strip_hop(&mut headers).upgrade, Some(HeaderValue::from_static("websocket")));
        assert!(headers.is_empty());
        let mut headers = map(&[("upgrade", "h2c")]);
        assert_eq!(strip_hop(&mut headers).upgrade, None);
        assert!(headers.is_empty());
    }

    #[test]
    fn of_te_only_trailers_stay() {
        let mut headers = map(&[("te", "gzip, trailers"), ("connection", "te")]);
        strip_hop(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers")]));
        let mut headers = map(&[("te", "gzip")]);
        strip_hop(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn a_loop_is_told_by_our_own_name_alone() {
        let headers = map(&[("via", "1.1 other, 1.0 outrigger-1"), ("via", "HTTP/1.1 edge (outrigger-2)")]);
        assert!(has_been_here(&headers, "outrigger-1"));
        assert!(!has_been_here(&headers, "outrigger-2"), "a comment names nobody");
        assert!(!has_been_here(&headers, "outrigger"));
    }
}
