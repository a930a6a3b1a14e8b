//! What a proxy must know of gRPC, and of gRPC-Web.
//!
//! gRPC is HTTP/2 with three habits that a proxy which knows only HTTP gets wrong: how a call went stands in
//! `grpc-status`, mostly in the trailers and always under a 200; how long it may take stands in
//! `grpc-timeout`; and a failure that is told in HTTP's words reaches the app as a riddle. gRPC-Web is the
//! same for whoever cannot read trailers: they become the last bytes of the body.
//!
//! | question | file |
//! |---|---|
//! | does this call speak gRPC? | here |
//! | how long may it take? | `timeout` |
//! | how did it go, and how is a failure told? | `status` |
//! | gRPC-Web to gRPC, and back | `web` |
//!
//! Everything here is pure. Messages are never taken apart: their frames, flags and compression pass as they
//! came.

pub(in crate::proxy) mod status;
pub(in crate::proxy) mod timeout;
pub(in crate::proxy) mod web;

use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};

/// What a call speaks on top of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Dialect {
    /// Nothing that we know of.
    Http,
    /// gRPC (grpc/grpc, `doc/PROTOCOL-HTTP2.md`).
    Grpc,
    /// gRPC-Web (`doc/PROTOCOL-WEB.md`).
    GrpcWeb {
        /// Whether the upload is base64.
        text: bool,
    },
}

impl Dialect {
    /// What the head of a request says. gRPC is always a POST.
    pub(in crate::proxy) fn of(method: &Method, headers: &HeaderMap) -> Self {
        if *method != Method::POST {
            return Self::Http;
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| ContentType::parse(value.as_bytes()));
        content_type.map_or(Self::Http, |content_type| content_type.dialect)
    }

    /// Whether failures are told in gRPC's words.
    pub(in crate::proxy) fn is_grpc(self) -> bool {
        self != Self::Http
    }

    /// The content type of a local reply, which has no message; HTTP has its own.
    pub(in crate::proxy) fn content_type(self) -> Option<HeaderValue> {
        match self {
            Self::Http => None,
            Self::Grpc => Some(HeaderValue::from_static("application/grpc")),
            Self::GrpcWeb { text: false } => Some(HeaderValue::from_static("application/grpc-web")),
            Self::GrpcWeb { text: true } => Some(HeaderValue::from_static("application/grpc-web-text")),
        }
    }
}

/// A media type of gRPC's family, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentType<'a> {
    dialect: Dialect,
    /// How messages are written: `+proto`, `+json`, or nothing.
    format: &'a [u8],
}

impl<'a> ContentType<'a> {
    /// `None` for any other media type. Parameters (`; charset=utf-8`) mean nothing to gRPC.
    fn parse(value: &'a [u8]) -> Option<Self> {
        let rest = strip(value, b"application/grpc")?;
        let (dialect, rest) = match strip(rest, b"-web") {
            None => (Dialect::Grpc, rest),
            Some(rest) => match strip(rest, b"-text") {
                None => (Dialect::GrpcWeb { text: false }, rest),
                Some(rest) => (Dialect::GrpcWeb { text: true }, rest),
            },
        };
        let format = rest.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
        (format.is_empty() || format.starts_with(b"+")).then_some(Self { dialect, format })
    }
}

/// Takes a prefix off, in whatever case (RFC 9110 §8.3.1).
fn strip<'a>(value: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = value.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Random;

    fn dialect(content_type: &str) -> Dialect {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap())]);
        Dialect::of(&Method::POST, &headers)
    }

    #[test]
    fn a_dialect_is_told_by_the_content_type() {
        let (web, text) = (Dialect::GrpcWeb { text: false }, Dialect::GrpcWeb { text: true });
        for (content_type, expected) in [
            ("application/grpc", Dialect::Grpc),
            ("application/grpc+proto", Dialect::Grpc),
            ("application/grpc+", Dialect::Grpc),
            ("application/grpc;charset=utf-8", Dialect::Grpc),
            ("Application/GRPC ; x=y", Dialect::Grpc),
            ("application/grpc-web", web),
            ("application/grpc-web+proto", web),
            ("application/grpc-WEB+json; charset=utf-8", web),
            ("application/grpc-web;x", web),
            ("application/grpc-web-text", text),
            ("application/grpc-web-text+proto", text),
            ("APPLICATION/GRPC-WEB-TEXT;x", text),
            ("application/grpcish", Dialect::Http),
            ("application/grpc-webby", Dialect::Http),
            ("application/grpc-web-textual", Dialect::Http),
            ("application/grpc-text", Dialect::Http),
            ("application/grpc/x", Dialect::Http),
            ("application/grp", Dialect::Http),
            ("application/json", Dialect::Http),
            (" ", Dialect::Http),
        ] {
            assert_eq!(dialect(content_type), expected, "{content_type}");
        }
    }

    #[test]
    fn what_is_no_post_or_has_no_content_type_is_plain_http() {
        assert_eq!(Dialect::of(&Method::POST, &HeaderMap::new()), Dialect::Http);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        for method in [Method::GET, Method::OPTIONS, Method::PUT] {
            assert_eq!(Dialect::of(&method, &headers), Dialect::Http);
        }
    }

    #[test]
    fn the_content_type_of_a_local_reply_is_of_its_own_dialect() {
        for dialect in [Dialect::Grpc, Dialect::GrpcWeb { text: false }, Dialect::GrpcWeb { text: true }] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, dialect.content_type().unwrap())]);
            assert_eq!(Dialect::of(&Method::POST, &headers), dialect);
            assert!(dialect.is_grpc());
        }
        assert_eq!((Dialect::Http.content_type(), Dialect::Http.is_grpc()), (None, false));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut random = Random::seeded(1);
        let (seed, mut known) = (b"application/grpc-web-text+proto; charset=utf-8", 0);
        for _ in 0..20_000 {
            let mut value = seed[..random.below(seed.len() as u32 + 1) as usize].to_vec();
            if let Some(at) = (random.below(2) == 0).then(|| random.below(value.len() as u32) as usize)
                && at < value.len()
            {
                value[at] = random.bits() as u8;
            }
            if let Some(content_type) = ContentType::parse(&value) {
                known += 1;
                assert!(content_type.format.is_empty() || content_type.format[0] == b'+');
            }
        }
        assert!(known > 1_000, "{known}");
    }
}
