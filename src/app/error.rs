//! Why a sidecar cannot start, and what a shell is told of it.

use std::{ffi::OsString, io, net::SocketAddr};

use crate::{
    admin::socket::BindError,
    config::Problems,
    net::tls::FileError,
    vip::{allocate::Exhausted, memory::MemoryError},
};

/// Why a sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is not valid.
    #[error("{0}")]
    Config(Problems),
    /// A port cannot be had.
    #[error("cannot listen on {addr} ({what}): {source}{}", remedy(source))]
    Bind {
        /// Whose port it is, as the config names it.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A service's own port cannot be had.
    #[error("cannot listen on {addr} (services.{service}.listen): {source}{}", remedy(source))]
    BindService {
        /// The service.
        service: String,
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A VIP's port cannot be had.
    #[error("cannot listen on {addr} (vip.ports): {source}{}", vip_remedy(source))]
    BindVip {
        /// The VIP and its port, or the port of all of them.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// What is remembered of VIPs says nothing.
    #[error("{0}")]
    Memory(#[from] MemoryError),
    /// There are more services than addresses.
    #[error("{0}")]
    Exhausted(#[from] Exhausted),
    /// The admin socket cannot be had.
    #[error("{0}")]
    Admin(BindError),
    /// Certificates or keys cannot be used.
    #[error("{0}")]
    Tls(FileError),
    /// The access log cannot be written.
    #[error("cannot open the access log: {0}")]
    AccessLog(io::Error),
    /// Connections cannot be marked.
    #[error(
        "cannot mark our own connections (intercept.mark): {0}; it needs CAP_NET_ADMIN: grant that, or leave the mark \
         out and have them known by `intercept.user`"
    )]
    Mark(io::Error),
    /// The system refuses a thread, a socket, an event loop.
    #[error("the system refuses what a sidecar needs: {0}")]
    System(io::Error),
    /// The name servers cannot be found out.
    #[error("cannot look up names: {0}")]
    Resolver(String),
    /// The app cannot be started.
    #[error("cannot start {}: {source}", command.display())]
    App {
        /// What was to be run.
        command: OsString,
        /// What the system said.
        source: io::Error,
    },
    /// Something broke that should not.
    #[error("{0}")]
    Internal(&'static str),
}

impl Error {
    /// What a shell is told: 1 is "no, not like this", 70 is a fault of ours (sysexits.h, EX_SOFTWARE); of an app, what
    /// the shell itself would say: 127 when there is no such command, 126 when it cannot be run.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Internal(_) => 70,
            Self::App { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::App { .. } => 126,
            _ => 1,
        }
    }
}

/// What to do about the reasons for which binding fails in practice.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has it, perhaps another outrigger: stop that one, or choose another port"
        }
        io::ErrorKind::PermissionDenied => "; choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; no interface here has this address",
        _ => "",
    }
}

/// The same for VIPs, which a system must have and may give to somebody else.
fn vip_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there, perhaps another outrigger or a web server: stop it, or choose other ports \
             with `vip: { ports: [...] }`"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE here (or sysctl net.ipv4.ip_unprivileged_port_start=80): grant \
             it, or choose other ports with `vip: { ports: [...] }`"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this host has no such address: choose a `vip.range` in 127.0.0.0/8, or add the range to loopback with \
             `ip route add local RANGE dev lo`"
        }
        _ => "",
    }
}
