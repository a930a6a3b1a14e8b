//! Listening and dialling sockets, with the few options that matter to a proxy.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::tls::HandshakeError;

/// Connections the kernel may hold for us while no worker has taken them.
const BACKLOG: i32 = 4096;

/// Binds a listening socket, ready for an event loop.
///
/// `SO_REUSEADDR` lets a restarted sidecar take its port while old connections linger in TIME_WAIT;
/// `SO_REUSEPORT` is left out on purpose: a second process on the same port must fail, loudly.
///
/// # Errors
/// Whatever the kernel says: the address is in use, is not ours, or needs a right that we lack.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    bound(addr, |_| Ok(()))
}

/// Binds a port of every IPv4 address that is reached by way of the loopback interface, and of no other: the kernel
/// sees to it that nothing from outside comes in, whatever address it is for.
///
/// # Errors
/// As [`listen`]; another socket has the port at any address at all; or the kernel is older than Linux 5.7 and the
/// process has no `CAP_NET_RAW`.
pub fn listen_on_loopback(port: u16) -> io::Result<TcpListener> {
    bound((Ipv4Addr::UNSPECIFIED, port).into(), |socket| socket.bind_device(Some(b"lo")))
}

fn bound(addr: SocketAddr, prepare: impl Fn(&Socket) -> io::Result<()>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    prepare(&socket)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Prepares an accepted connection: no Nagle delay, and a kernel probe that finds dead peers.
///
/// # Errors
/// The connection is already gone.
pub fn prepare_accepted(stream: &std::net::TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)
}

/// Whether this machine has a way to an address at all. Nothing is sent: to connect a UDP socket only looks at
/// the routing table.
pub fn has_route(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, 9))).is_ok()
}

/// Whether an address is this machine's own. Nothing is sent: only to have a socket there is what is tried.
pub fn is_of_this_host(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// The mark of the connections that we open, 0 for none. It is the process's, like its user, and not of any one service:
/// it is what the kernel's rules know our connections by.
static MARK: AtomicU32 = AtomicU32::new(0);

/// Whether connections may be marked at all; nothing may do no harm.
///
/// # Errors
/// The kernel does not let us: it takes `CAP_NET_ADMIN` (or, since Linux 5.17, `CAP_NET_RAW`).
pub fn may_mark(mark: Option<u32>) -> io::Result<()> {
    let Some(mark) = mark else { return Ok(()) };
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?.set_mark(mark)
}

/// Has every connection that [`dial`] opens from now on bear a mark, which [`may_mark`] has allowed, or none.
pub fn mark_own(mark: Option<u32>) {
    MARK.store(mark.unwrap_or(0), Ordering::Relaxed);
}

/// Why a connection could not be had.
#[derive(Debug)]
pub enum DialError {
    /// The deadline passed first.
    Timeout,
    /// The peer refused, or cannot be reached.
    Refused(io::Error),
    /// TLS with the peer failed.
    Tls(HandshakeError),
    /// The peer does not speak what it has to, in words.
    Protocol(String),
}

/// Opens a connection before `deadline` (`None` waits as long as the kernel does).
///
/// # Errors
/// [`DialError`] tells a time-out from a refusal.
pub async fn dial(addr: SocketAddr, deadline: Option<Instant>) -> Result<TcpStream, DialError> {
    let connecting = connect(addr);
    let connected = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), connecting).await.map_err(|_| DialError::Timeout)?,
        None => connecting.await,
    };
    let stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => DialError::Timeout,
        _ => DialError::Refused(error),
    })?;
    // Cannot fail on a connected socket but by the peer's being gone, which the first write tells.
    let _ = stream.set_nodelay(true);
    keep_alive(&stream);
    Ok(stream)
}

/// Has the kernel ask a peer that says nothing for a minute whether it is still there, and break off if not.
pub fn keep_alive(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
    // Fails on no socket that is open.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let mark = MARK.load(Ordering::Relaxed);
    if mark == 0 {
        return TcpStream::connect(addr).await;
    }
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    SockRef::from(&socket).set_mark(mark)?;
    socket.connect(addr).await
}

/// Has the connection reset when it is closed (RFC 9293 §3.5.2), instead of ended: the peer learns that something
/// went wrong, and what was not yet sent is dropped.
pub fn reset_on_close(stream: &TcpStream) {
    // Fails on no socket that is open.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_way_to_ourselves_and_none_to_what_can_be_no_address() {
        assert!(has_route(Ipv4Addr::LOCALHOST.into()));
        assert!(!has_route(Ipv4Addr::new(255, 255, 255, 255).into()), "nobody may broadcast unasked");
    }

    #[test]
    fn loopback_is_this_host_and_what_nobody_has_is_not() {
        assert!(is_of_this_host(Ipv4Addr::new(127, 7, 7, 7).into()));
        // Of the range for documentation (RFC 5737).
        assert!(!is_of_this_host(Ipv4Addr::new(192, 0, 2, 1).into()));
    }
}
