//! Readers of addresses and of names that are looked up: where to listen, whom to connect to, whom to ask.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    problem::quoted,
    scalar::{Complaint, plain},
};
use crate::model::ServiceName;

/// Reads where to listen.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Complaint> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| {
        let hint = match text.rsplit_once(':') {
            Some(("localhost", port)) => Some(format!("write `127.0.0.1:{port}`")),
            Some(("" | "*", port)) => {
                Some(format!("write `127.0.0.1:{port}`, or `0.0.0.0:{port}` to listen on every address"))
            }
            Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
                Some(format!("write `[{host}]:{port}`"))
            }
            _ => Some("write it like `127.0.0.1:8470`; a port alone is one of 127.0.0.1".to_owned()),
        };
        (format!("{} is not IP:PORT", quoted(text)), hint)
    })
}

/// Reads where to connect.
pub(super) fn address(text: &str) -> Result<SocketAddr, Complaint> {
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.port() == 0 => Err((format!("`{text}`: nothing can be reached at port 0"), None)),
        Ok(addr) if addr.ip().is_unspecified() => Err((
            format!("`{text}`: an endpoint is not at `{}`", addr.ip()),
            Some(format!("write `127.0.0.1:{}`", addr.port())),
        )),
        Ok(addr) => Ok(addr),
        Err(_) if host_port(text).is_ok() => Err((
            format!("{} is a name, not an address", quoted(text)),
            Some(format!("names are looked up with `dns: {text}`")),
        )),
        Err(_) if text.parse::<IpAddr>().is_ok() => {
            Err((format!("{} has no port", quoted(text)), Some(format!("write `{}`", with_port(text)))))
        }
        Err(_) => Err((format!("{} is not IP:PORT", quoted(text)), None)),
    }
}

fn with_port(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:8080") } else { format!("{ip}:8080") }
}

/// Reads a DNS server, at port 53 unless another is given.
pub(super) fn nameserver(text: &str) -> Result<SocketAddr, Complaint> {
    let addr = text.parse::<IpAddr>().map(|ip| SocketAddr::from((ip, 53))).or_else(|_| text.parse::<SocketAddr>());
    match addr {
        Ok(addr) if addr.port() != 0 => Ok(addr),
        _ => Err((
            format!("{} is neither `system` nor an IP address", quoted(text)),
            Some("write `system`, `10.0.0.2` or `10.0.0.2:53`".into()),
        )),
    }
}

/// Reads a name to look up and the port of its endpoints.
pub(super) fn host_port(text: &str) -> Result<(&str, u16), Complaint> {
    if let Some((_, rest)) = text.split_once("://") {
        let authority = rest.split('/').next().unwrap_or(rest);
        return Err((format!("{} is a URL", quoted(text)), Some(format!("write HOST:PORT alone: `{authority}`"))));
    }
    if text.parse::<SocketAddr>().is_ok() || text.parse::<IpAddr>().is_ok() {
        return Err((
            format!("{} is an address, not a name", quoted(text)),
            Some(format!("addresses are listed with `static: [{text}]`")),
        ));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        dns_name(text)?;
        return Err((
            format!("{} has no port", quoted(text)),
            Some(format!("write `{text}:8080`, with the port of its endpoints")),
        ));
    };
    dns_name(host)?;
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok((host, port)),
        _ => Err((format!("{} is not a port, 1 to 65535", quoted(port)), None)),
    }
}

/// Reads a DNS name (RFC 1035 §2.3.4), with underscores (RFC 2782) and with or without the final dot.
pub(super) fn dns_name(text: &str) -> Result<&str, Complaint> {
    let labels = text.strip_suffix('.').unwrap_or(text);
    match ServiceName::parse(labels) {
        // A name whose last label is a number would be read as an IPv4 address (RFC 1123 §2.1).
        Ok(_) if labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) => {
            Err((format!("{} is not a DNS name: its last label is a number", quoted(text)), None))
        }
        Ok(_) => Ok(text),
        Err(why) => {
            let hint = text.split_once(':').map(|(name, _)| format!("a name alone stands here: `{name}`"));
            Err((format!("{} is not a DNS name: {why}", quoted(text)), hint))
        }
    }
}

/// Reads our own app: IP:PORT, or a port of 127.0.0.1.
pub(super) fn app(text: &str) -> Result<SocketAddr, Complaint> {
    match text.parse::<u16>() {
        Ok(0) => Err(("nothing can be reached at port 0".to_owned(), None)),
        Ok(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        Err(_) if host_port(text).is_ok() => {
            let local = text.strip_prefix("localhost:").map(|port| format!("write `127.0.0.1:{port}`"));
            Err((format!("{} is a name, not an address", quoted(text)), local))
        }
        Err(_) => address(text),
    }
}

/// Holds a text against what the path of a Unix socket may be.
pub(super) fn socket(text: &str) -> Result<(), Complaint> {
    // sun_path of sockaddr_un(7) is 108 bytes long, with the final NUL.
    const LONGEST: usize = 107;
    if text.parse::<u16>().is_ok() || text.parse::<SocketAddr>().is_ok() {
        let hint = "changes come over a Unix socket, never TCP: `/run/outrigger/admin.sock`".to_owned();
        return Err((format!("{} is an address", quoted(text)), Some(hint)));
    }
    if text.len() > LONGEST {
        return Err((
            format!("{} is too long for a Unix socket", quoted(text)),
            Some(format!("{LONGEST} bytes at most")),
        ));
    }
    plain(!text.is_empty() && !text.contains('\0'), text, "the path of a Unix socket")
}
