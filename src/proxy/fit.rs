//! The form of a request's head in the HTTP of the next hop.
//!
//! The same request is written differently in HTTP/1.1 and HTTP/2: whom it is for stands in `Host` or in
//! `:authority`, what comes after the body is promised by `Transfer-Encoding` and `Connection: te` or goes
//! without saying, cookies come in one line or in crumbs. Which HTTP it will be is known once there is a
//! connection, so any head can be brought into either form, also out of the other one.

use http::{
    HeaderValue, Version,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme, Uri},
};

/// HTTP/1.1 (RFC 9112): origin form and `Host`. `chunked` says that a body of unknown length follows.
pub(super) fn http1(head: &mut Parts, chunked: bool) {
    head.version = Version::HTTP_11;
    if head.uri.authority().is_some() {
        let uri = std::mem::take(&mut head.uri).into_parts();
        if let Some(host) = uri.authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
            head.headers.insert(HOST, host);
        }
        head.uri = uri.path_and_query.map_or_else(Uri::default, Uri::from);
    }
    // An upgrade has more to say in that line, and no trailers to wait for.
    if head.headers.contains_key(TE) && !head.headers.contains_key(CONNECTION) {
        head.headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if chunked && !head.headers.contains_key(CONTENT_LENGTH) {
        // Said outright: without it hyper takes a GET's body of unknown length for none.
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    join_crumbs(head);
}

/// HTTP/2 (RFC 9113 §8.3.1): scheme, authority and path, and none of the fields that speak of a connection
/// (§8.2.2). A `Host` that can be no authority stays a `Host`.
pub(super) fn http2(head: &mut Parts, secure: bool) {
    head.version = Version::HTTP_2;
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        head.headers.remove(name);
    }
    if head.uri.authority().is_some() {
        return;
    }
    let host = head.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let Some(authority) = host else { return };
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    uri.authority = Some(authority);
    uri.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    head.uri = Uri::from_parts(uri).expect("a scheme, an authority and a path make a URI");
    head.headers.remove(HOST);
}

/// Cookies that came in crumbs become one line again (RFC 9113 §8.2.3).
fn join_crumbs(head: &mut Parts) {
    let mut crumbs = head.headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let mut line = [first.as_bytes(), second.as_bytes()].join(&b"; "[..]);
        for crumb in crumbs {
            line.extend_from_slice(b"; ");
            line.extend_from_slice(crumb.as_bytes());
        }
        let line = HeaderValue::from_bytes(&line).expect("what joins values of headers is one");
        head.headers.insert(COOKIE, line);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn shown(head: &Parts) -> (String, Vec<(String, String)>) {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        (head.uri.to_string(), headers.collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn whom_a_request_is_for_stands_in_the_authority_or_in_host() {
        let mut head = head("/a?b", &[("host", "orders:80"), ("accept", "*/*")]);
        http2(&mut head, false);
        assert_eq!(shown(&head), ("http://orders:80/a?b".into(), pairs(&[("accept", "*/*")])));
        http2(&mut head, true);
        assert_eq!(head.uri, "http://orders:80/a?b", "what is in form stays");
        http1(&mut head, false);
        assert_eq!(shown(&head), ("/a?b".into(), pairs(&[("accept", "*/*"), ("host", "orders:80")])));
    }

    #[test]
    fn the_scheme_is_that_of_the_hop() {
        let mut head = head("/", &[("host", "orders")]);
        http2(&mut head, true);
        assert_eq!(head.uri, "https://orders/");
    }

    #[test]
    fn fields_of_a_connection_are_written_for_http1_alone() {
        let mut head = head("/", &[("host", "a"), ("te", "trailers")]);
        http1(&mut head, true);
        let one = pairs(&[("host", "a"), ("te", "trailers"), ("connection", "te"), ("transfer-encoding", "chunked")]);
        assert_eq!(shown(&head).1, one);
        http2(&mut head, false);
        assert_eq!(shown(&head).1, pairs(&[("te", "trailers")]));
    }

    #[test]
    fn a_known_length_needs_no_chunks() {
        let mut head = head("/", &[("host", "a"), ("content-length", "3")]);
        http1(&mut head, true);
        assert_eq!(shown(&head).1, pairs(&[("host", "a"), ("content-length", "3")]));
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let mut head = head("/", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        http1(&mut head, false);
        assert_eq!(shown(&head).1, pairs(&[("cookie", "a=1; b=2; c=3")]));
    }

    #[test]
    fn a_star_goes_both_ways() {
        let mut head = head("*", &[("host", "a")]);
        http2(&mut head, false);
        assert_eq!(head.uri.path(), "*");
        http1(&mut head, false);
        assert_eq!(head.uri, "*");
    }
}
