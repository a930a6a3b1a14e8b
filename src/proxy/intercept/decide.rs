//! What to do with an intercepted connection, as far as its first bytes tell. Pure.
//!
//! | first bytes | the address is a service's | it is nobody's |
//! |---|---|---|
//! | an HTTP/1 head whose Host names a service | HTTP | HTTP |
//! | any other HTTP/1 head, or one that does not end | HTTP | passes |
//! | HTTP/2 without TLS | HTTP | passes |
//! | TLS, CONNECT, other bytes, an end, silence | passes | passes |
//!
//! Whoever speaks HTTP/2 to an address that is nobody's may well name a service in some request: but the others on that
//! connection could not pass any more. CONNECT speaks to another proxy.
//!
//! Heads are read by the parser that hyper reads them by, so that what is served here is understood there.

use http::{HeaderValue, Uri};

use super::super::{entry, sniff::PREFACE};
use crate::telemetry::metrics::Way;

/// What there is to know beside the bytes.
pub(super) struct Known<'a> {
    /// Whether the connection was meant for an address of a service that speaks HTTP.
    pub(super) is_address: bool,
    /// Whether a host names a service that speaks HTTP.
    pub(super) names: &'a dyn Fn(&str) -> bool,
    /// How many headers a head may have.
    pub(super) headers: usize,
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Read on, as something more is to come; perhaps the rest of a request's head.
    Wait { in_head: bool },
    /// Serve it as HTTP.
    Serve(Way),
    /// Take it where it was meant to go.
    Pass,
}

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
enum Opening {
    /// Nothing that can be told yet.
    Unclear,
    /// A request of HTTP/1 whose head has not ended.
    InHead,
    /// A request of HTTP/1, with the one host that it is for.
    Request(Option<String>),
    /// The preface of HTTP/2.
    Http2,
    /// Something else.
    Other,
}

/// Decides by what has been read; `is_all` when nothing more is to come, or to be waited for.
pub(super) fn decide(first: &[u8], is_all: bool, known: &Known<'_>) -> Decision {
    let by_address = if known.is_address { Decision::Serve(Way::Address) } else { Decision::Pass };
    match opening(first, known.headers) {
        Opening::Request(Some(host)) if (known.names)(&host) => Decision::Serve(Way::Host),
        Opening::Request(_) | Opening::Http2 => by_address,
        Opening::InHead if is_all => by_address,
        Opening::Unclear if is_all => Decision::Pass,
        Opening::InHead => Decision::Wait { in_head: true },
        Opening::Unclear => Decision::Wait { in_head: false },
        Opening::Other => Decision::Pass,
    }
}

/// The host that a whole head asks for.
pub(super) fn host_of(first: &[u8], most_headers: usize) -> Option<String> {
    match opening(first, most_headers) {
        Opening::Request(host) => host,
        Opening::Unclear | Opening::InHead | Opening::Http2 | Opening::Other => None,
    }
}

fn opening(first: &[u8], most_headers: usize) -> Opening {
    if first.starts_with(PREFACE) {
        return Opening::Http2;
    }
    if PREFACE.starts_with(first) {
        return Opening::Unclear;
    }
    let mut headers = vec![httparse::EMPTY_HEADER; most_headers];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(first);
    if request.method == Some("CONNECT") {
        return Opening::Other;
    }
    match parsed {
        Ok(httparse::Status::Complete(_)) => Opening::Request(host(&request)),
        Ok(httparse::Status::Partial) if request.version.is_some() => Opening::InHead,
        Ok(httparse::Status::Partial) => Opening::Unclear,
        // A request, though none that can be served: where it is ours to answer, it is answered so.
        Err(httparse::Error::TooManyHeaders) => Opening::Request(None),
        Err(_) if request.version.is_some() => Opening::Request(None),
        Err(_) => Opening::Other,
    }
}

/// The host that a request is for: that of an absolute URI, else of the one Host header.
fn host(request: &httparse::Request<'_, '_>) -> Option<String> {
    let path = request.path?;
    if !path.starts_with('/') && path != "*" {
        let uri: Uri = path.parse().ok()?;
        return (uri.scheme_str() == Some("http")).then(|| uri.host().map(str::to_owned))?;
    }
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let (host, None) = (hosts.next()?, hosts.next()) else { return None };
    let value = HeaderValue::from_bytes(host.value).ok()?;
    entry::without_port(&value).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(first: &[u8], is_all: bool, is_address: bool) -> Decision {
        let names = |host: &str| host.eq_ignore_ascii_case("orders");
        decide(first, is_all, &Known { is_address, names: &names, headers: 8 })
    }

    #[test]
    fn a_host_that_names_a_service_wins_over_the_address() {
        for request in [
            "GET / HTTP/1.1\r\nHost: orders\r\n\r\n",
            "GET / HTTP/1.0\r\naccept: */*\r\nHOST: Orders:8080\r\n\r\n",
            "POST http://orders/x HTTP/1.1\r\nHost: other\r\n\r\nbody",
            "OPTIONS * HTTP/1.1\r\nHost: orders\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: orders\n\n",
        ] {
            for is_address in [true, false] {
                assert_eq!(of(request.as_bytes(), false, is_address), Decision::Serve(Way::Host), "{request}");
            }
        }
    }

    #[test]
    fn any_other_request_is_the_addresss() {
        for request in [
            "GET / HTTP/1.1\r\nHost: other\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: orders\r\nHost: orders\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: or ders\r\n\r\n",
            "GET http://other/ HTTP/1.1\r\nHost: orders\r\n\r\n",
            "GET https://orders/ HTTP/1.1\r\nHost: orders\r\n\r\n",
            "GET orders HTTP/1.1\r\nHost: orders\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: orders\r\n1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n7:\r\n8:\r\n9:\r\n\r\n",
            "GET / HTTP/1.1\r\nno header\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0",
        ] {
            assert_eq!(of(request.as_bytes(), false, true), Decision::Serve(Way::Address), "{request}");
            assert_eq!(of(request.as_bytes(), false, false), Decision::Pass, "{request}");
        }
    }

    #[test]
    fn a_head_is_waited_for_and_what_never_becomes_one_is_not() {
        let request = b"GET /long/path?q HTTP/1.1\r\nUser-Agent: x\r\nHost: orders\r\n\r\n";
        for cut in 0..request.len() {
            let in_head = cut >= b"GET /long/path?q HTTP/1.1".len();
            assert_eq!(of(&request[..cut], false, false), Decision::Wait { in_head }, "{cut}");
            assert_eq!(of(&request[..cut], true, false), Decision::Pass, "{cut}");
        }
        assert_eq!(of(&request[..40], true, true), Decision::Serve(Way::Address), "HTTP has words for it");
        assert_eq!(of(&request[..10], true, true), Decision::Pass, "may be anything");
        for cut in 0..PREFACE.len() {
            assert_eq!(of(&PREFACE[..cut], false, true), Decision::Wait { in_head: false }, "{cut}");
        }
    }

    #[test]
    fn other_bytes_pass_at_once() {
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01"[..],
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"EHLO orders\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"GET /\r\n",
            b"GET / HTTP/2.0\r\n",
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
            b"CONNECT orders:443 HTTP/1.1\r\nHost: orders:443\r\n\r\n",
            b"CONNECT orders:443 HT",
        ] {
            for is_address in [true, false] {
                assert_eq!(of(bytes, false, is_address), Decision::Pass, "{bytes:?}");
            }
        }
        assert_eq!(of(b"", true, true), Decision::Pass, "who says nothing is heard by the other side");
    }

    #[test]
    fn no_bytes_are_too_odd_for_a_decision() {
        let mut random = crate::model::Random::seeded(7);
        let some = b"GET /HTP1.:oOhS\r\n \0\xff";
        for _ in 0..20_000 {
            let len = (random.share() * 40.0) as usize;
            let bytes: Vec<u8> = (0..len).map(|_| some[(random.share() * some.len() as f64) as usize]).collect();
            assert!(!matches!(of(&bytes, true, false), Decision::Wait { .. }), "{bytes:?}");
        }
    }
}
