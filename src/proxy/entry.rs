//! Entry: which service does this call ask for?
//!
//! On a service's own port there is nothing to ask. On the shared port the request's authority tells: the
//! absolute URI's, as a forward proxy's client writes it, or else the Host header's. RFC 9112 §3.2: with an
//! absolute URI the Host header counts for nothing (two of them are wrong even there); a request without
//! exactly one Host, or with one that cannot be a host, is malformed.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Version,
    header::{HOST, HeaderName},
    request::Parts,
    uri::{Authority, Uri},
};

use super::{Failure, connection::Peer, headers, inbound, tcp, worker::Worker};
use crate::{
    config::Entry,
    model::Reason,
    service::{Service, Services, Wanted},
};

/// A call that knows its service.
pub(super) struct Routed {
    pub(super) service: Arc<Service>,
    /// Whether the app's own Host names the service; if not, the endpoint sees the source's.
    pub(super) host_names_service: bool,
}

/// Finds the service of a request, and leaves its URI and Host as the next hop wants them.
pub(super) fn route(peer: &Peer, parts: &mut Parts, services: &Services) -> Result<Routed, Failure> {
    if parts.uri.authority().is_some() {
        take_authority(parts)?;
    }
    if peer.entry != Entry::Inbound
        && services.takes_override()
        && let Some(name) = overridden(&parts.headers)?
    {
        let service = services.find(&name).ok_or_else(|| unknown(&name, services))?;
        speaks_http(service)?;
        service.ask_for();
        // Only now: a service that has yet to be made is looked for here twice.
        parts.headers.remove(OVERRIDE);
        let host = host(&parts.headers, parts.version)?;
        let host_names_service = host.and_then(|host| services.find(host)).is_some_and(|s| Arc::ptr_eq(s, service));
        return Ok(Routed { service: service.clone(), host_names_service });
    }
    let host = host(&parts.headers, parts.version)?;
    match &peer.entry {
        Entry::Service(name) => {
            let Some(service) = services.find(name.as_str()) else {
                return Err(unknown(name.as_str(), services));
            };
            speaks_http(service)?;
            service.ask_for();
            let host_names_service =
                host.and_then(|host| services.find(host)).is_some_and(|named| Arc::ptr_eq(named, service));
            Ok(Routed { service: service.clone(), host_names_service })
        }
        Entry::Inbound => {
            let service = inbound::admit(services.inbound(), &peer.identity, &mut parts.headers)?;
            // What the caller asked for is for the app to see.
            Ok(Routed { service, host_names_service: true })
        }
        Entry::Vip(addr) => {
            Err(Failure::new(Reason::UnknownService, format!("no service has the address {} any more", addr.ip())))
        }
        Entry::Intercepted => {
            let named = host.and_then(|host| services.find(host));
            let meant = || services.find(peer.meant.as_ref()?.as_str());
            let unknown = || host.map_or_else(no_host, |host| unknown(host, services));
            let service = named.or_else(meant).ok_or_else(unknown)?;
            speaks_http(service)?;
            service.ask_for();
            // The app knows nothing of us: its Host is for the endpoint to see, whatever it is.
            Ok(Routed { service: service.clone(), host_names_service: true })
        }
        Entry::Shared | Entry::Vips(_) => {
            let host = host.ok_or_else(no_host)?;
            match services.find(host) {
                Some(service) => {
                    speaks_http(service)?;
                    service.ask_for();
                    Ok(Routed { service: service.clone(), host_names_service: true })
                }
                None => Err(unknown(host, services)),
            }
        }
    }
}

/// Has the service made that a request asks for, where the configuration makes services of names, and routes the
/// request again; what was said of it stays where there is no such service.
pub(super) async fn route_made(
    worker: &Worker,
    peer: &Peer,
    parts: &mut Parts,
    failure: Failure,
) -> Result<Routed, Failure> {
    let Some(name) = failure.wanted.clone() else { return Err(failure) };
    match worker.summon(Wanted::Named(name)).await {
        Some(_) => route(peer, parts, &worker.table.current()),
        None => Err(not_made(worker, failure)),
    }
}

/// What there is to say when no service was made: nothing new, but in a stop, when nobody looks any more whether there
/// is one.
pub(super) fn not_made(worker: &Worker, failure: Failure) -> Failure {
    match worker.table.makes_no_more() {
        true => Failure::new(Reason::ShuttingDown, "the sidecar stops, and makes no more services"),
        false => failure,
    }
}

/// The service that a request names by a header, which is for us alone.
fn overridden(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let mut values = headers.get_all(OVERRIDE).iter();
    let name = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    let refused = || Failure::new(Reason::BadRequest, "x-outrigger-service is not the name of one service");
    name.map(|name| Some(name.to_owned())).ok_or_else(refused)
}

/// The header by which a request may name its service, for tests.
const OVERRIDE: HeaderName = HeaderName::from_static("x-outrigger-service");

/// A service whose bytes are carried as they are has no requests, and so no place on a port that has to read them.
fn speaks_http(service: &Service) -> Result<(), Failure> {
    if !tcp::is_tcp(service) {
        return Ok(());
    }
    let (name, detail) = (service.name(), "speaks no HTTP (protocol: tcp)");
    let detail = match (service.config().listen, service.vip()) {
        (Some(port), _) => format!("{name:?} {detail}: connect to its own port, {port}"),
        (None, Some(vip)) => format!("{name:?} {detail}: connect to its VIP, {vip}"),
        (None, None) => format!("{name:?} {detail}: give it a port of its own (listen), and connect to that"),
    };
    Err(Failure::new(Reason::BadRequest, detail))
}

/// There is no such service; perhaps one that can be made.
pub(super) fn unknown(host: &str, services: &Services) -> Failure {
    let wanted = services.summonable(host);
    Failure { wanted, ..Failure::new(Reason::UnknownService, format!("no service is named {host:?}")) }
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
