//! Entry: which service does this call ask for?
//!
//! On a service's own port there is nothing to ask. On the shared port the request's authority tells: the
//! absolute URI's, as a forward proxy's client writes it, or else the Host header's. RFC 9112 §3.2: with an
//! absolute URI the Host header counts for nothing (two of them are wrong even there); a request without
//! exactly one Host, or with one that cannot be a host, is malformed.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::HOST,
    request::Parts,
    uri::{Authority, Uri},
};

use super::{Failure, connection::Peer, headers, inbound, tcp};
use crate::{
    config::Entry,
    model::Reason,
    service::{Service, Services},
};

/// A call that knows its service.
pub(super) struct Routed {
    pub(super) service: Arc<Service>,
    /// Whether the app's own Host names the service; if not, the endpoint sees the source's.
    pub(super) host_names_service: bool,
}

/// Finds the service of a request, and leaves its URI and Host as the next hop wants them.
pub(super) fn route(peer: &Peer, parts: &mut Parts, services: &Services) -> Result<Routed, Failure> {
    if parts.method == Method::CONNECT {
        return Err(Failure::new(Reason::BadRequest, "CONNECT is not supported: call services by plain HTTP"));
    }
    if parts.uri.authority().is_some() {
        take_authority(parts)?;
    }
    let host = host(&parts.headers, parts.version)?;
    match &peer.entry {
        Entry::Service(name) => {
            let Some(service) = services.find(name.as_str()) else {
                return Err(unknown(name.as_str()));
            };
            speaks_http(service)?;
            let host_names_service =
                host.and_then(|host| services.find(host)).is_some_and(|named| Arc::ptr_eq(named, service));
            Ok(Routed { service: service.clone(), host_names_service })
        }
        Entry::Inbound => {
            let service = inbound::admit(services.inbound(), &peer.identity, &mut parts.headers)?;
            // What the caller asked for is for the app to see.
            Ok(Routed { service, host_names_service: true })
        }
        Entry::Intercepted => {
            let named = host.and_then(|host| services.find(host));
            let meant = || services.find(peer.meant.as_ref()?.as_str());
            let service = named.or_else(meant).ok_or_else(|| host.map_or_else(no_host, unknown))?;
            speaks_http(service)?;
            // The app knows nothing of us: its Host is for the endpoint to see, whatever it is.
            Ok(Routed { service: service.clone(), host_names_service: true })
        }
        Entry::Shared | Entry::Vips(_) => {
            let host = host.ok_or_else(no_host)?;
            match services.find(host) {
                Some(service) => {
                    speaks_http(service)?;
                    Ok(Routed { service: service.clone(), host_names_service: true })
                }
                None => Err(unknown(host)),
            }
        }
    }
}

/// A service whose bytes are carried as they are has no requests, and so no place on a port that has to read them.
fn speaks_http(service: &Service) -> Result<(), Failure> {
    if !tcp::is_tcp(service) {
        return Ok(());
    }
    let (name, detail) = (service.name(), "speaks no HTTP (protocol: tcp)");
    let detail = match service.config().listen {
        Some(port) => format!("{name:?} {detail}: connect to its own port, {port}"),
        None => format!("{name:?} {detail}: give it a port of its own (listen), and connect to that"),
    };
    Err(Failure::new(Reason::BadRequest, detail))
}

fn unknown(host: &str) -> Failure {
    Failure::new(Reason::UnknownService, format!("no service is named {host:?}"))
}

fn no_host() -> Failure {
    Failure::new(Reason::BadRequest, "the request names no service: it has no Host header")
}

fn more_than_one_host() -> Failure {
    Failure::new(Reason::BadRequest, "the request has more than one Host header")
}

/// Turns an absolute URI into what an origin server expects: its authority as Host, the rest as the target.
fn take_authority(parts: &mut Parts) -> Result<(), Failure> {
    let uri = std::mem::take(&mut parts.uri).into_parts();
    match uri.scheme {
        Some(scheme) if scheme == http::uri::Scheme::HTTP => {}
        // Over HTTP/2 every request names a scheme (RFC 9113 §8.3.1). Which one says nothing here: an app that
        // was told to call by https does so through us, and TLS with the endpoint is the service's business.
        Some(_) if parts.version == Version::HTTP_2 => {}
        Some(_) => {
            return Err(Failure::new(Reason::BadRequest, "only http:// can be proxied: call services by plain HTTP"));
        }
        // A bare authority is CONNECT's form (RFC 9112 §3.2.3).
        None => return Err(Failure::new(Reason::BadRequest, "the request's target is neither a path nor a URI")),
    }
    if parts.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(more_than_one_host());
    }
    let authority = uri.authority.as_ref().map_or("", Authority::as_str);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    headers::set_host(&mut parts.headers, host);
    parts.uri = uri.path_and_query.map_or_else(Uri::default, Uri::from);
    Ok(())
}

/// The Host header without its port; `None` where HTTP/1.0 leaves it out.
fn host(headers: &HeaderMap, version: Version) -> Result<Option<&str>, Failure> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) if version < Version::HTTP_11 => return Ok(None),
        (None, _) => return Err(Failure::new(Reason::BadRequest, "the request has no Host header")),
        (Some(_), Some(_)) => return Err(more_than_one_host()),
    };
    without_port(host).map(Some).ok_or_else(|| Failure::new(Reason::BadRequest, "the Host header is not a host"))
}

/// `host` or `host:port`, in the characters that a host can have; brackets round an IPv6 address.
pub(super) fn without_port(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            let (host, rest) = (&rest[..end], &rest[end + 1..]);
            (host, rest.strip_prefix(':').unwrap_or(rest))
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'~' | b'%');
    let fits = !host.is_empty() && host.bytes().all(fits) && port.bytes().all(|b| b.is_ascii_digit());
    fits.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(host: &str) -> Option<String> {
        without_port(&HeaderValue::from_str(host).unwrap()).map(str::to_owned)
    }

    #[test]
    fn ports_are_taken_off() {
        assert_eq!(parsed("orders").as_deref(), Some("orders"));
        assert_eq!(parsed("Orders:8080").as_deref(), Some("Orders"));
        assert_eq!(parsed("orders.").as_deref(), Some("orders."));
        assert_eq!(parsed("[::1]:80").as_deref(), Some("::1"));
        assert_eq!(parsed("[::1]").as_deref(), Some("::1"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in ["", ":80", "a b", "a/b", "a:b", "a:80:90", "user@a", "[::1", "a\"b", "[]:1"] {
            assert_eq!(parsed(host), None, "{host:?}");
        }
    }
}
