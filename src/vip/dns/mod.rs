//! The DNS responder: names of services lead to their VIPs, and other names to where they always led.
//!
//! | question | file |
//! |---|---|
//! | whose is a name? | `zone` |
//! | what is answered? | `answer`, pure |
//! | what is a query, how long may a reply be? | `message`, pure |
//! | whom else may be believed, on what, for how long? | `filter`, `cache`, `flights`, pure |
//! | how much may who ask? | `rate`, pure |
//! | who asked? | `client`; by `udp` or `tcp` |
//! | how does it all go together? | `server` |
//!
//! It runs on a thread of its own, so that a flood of questions delays neither discovery nor calls. It asks nobody for
//! another host's sake unless it is told to, and it never asks itself, by whatever way (`net::resolve`).
//!
//! Left out: zone transfers, DNSSEC (what others signed is passed on as it is), encrypted transports, other classes.

mod answer;
mod cache;
mod client;
mod filter;
mod flights;
mod message;
mod rate;
mod server;
mod tcp;
#[cfg(test)]
mod testing;
mod udp;
mod zone;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    pin::Pin,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{runtime, sync::oneshot};

use self::{
    server::{Server, Setup, State},
    udp::Udp,
};
use crate::{
    config,
    model::ServiceName,
    net::{
        resolve::{Ourselves, Resolver, System},
        tcp as sockets,
    },
    service::{Service, Table, Undecided},
    telemetry::DnsMetrics,
};

/// Bytes of datagrams that may wait to be read: some thousand questions.
const WAITING: usize = 1024 * 1024;
/// Ports that are tried for one that both UDP and TCP can have.
const TRIES: usize = 32;
/// No forwarder is waited for longer: clients are not, either.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes a service of a name, or says that there is none.
#[derive(Clone)]
pub struct Summon(Arc<dyn Fn(ServiceName) -> Summoned + Send + Sync>);

/// The service, once it is there, or that there is none; or that nobody has found out.
pub type Summoned = Pin<Box<dyn Future<Output = Result<Option<Arc<Service>>, Undecided>> + Send>>;

impl Summon {
    /// A way to make services.
    pub fn new<F>(make: impl Fn(ServiceName) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Option<Arc<Service>>, Undecided>> + Send + 'static,
    {
        Self(Arc::new(move |name| Box::pin(make(name))))
    }

    fn ask(&self, name: ServiceName) -> Summoned {
        (self.0)(name)
    }
}

impl fmt::Debug for Summon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Summon")
    }
}

/// What a responder says to whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The section `dns` of the configuration.
    pub dns: config::Dns,
    /// How long the forwarders may take in all; 5 s at most.
    pub timeout: Duration,
    /// How a service is made of a name that nobody bears, where there is a wildcard.
    pub summon: Option<Summon>,
}

impl Settings {
    /// Those of a configuration.
    pub fn of(config: &config::Config, summon: Option<Summon>) -> Self {
        Self { dns: config.dns.clone(), timeout: config.resolver.timeout, summon }
    }

    /// With `before`, who is asked already is kept, with all that is known of them.
    fn setup(self, system: &System, before: Option<&Setup>) -> io::Result<Setup> {
        let timeout = self.timeout.min(PATIENCE);
        let same = before.filter(|before| {
            before.settings.dns.forward == self.dns.forward && before.settings.timeout.min(PATIENCE) == timeout
        });
        let resolver = match same {
            Some(before) => before.resolver.clone(),
            None if self.dns.forward.is_empty() => None,
            None => {
                let servers = self.dns.forward.clone();
                let (ttl_min, ttl_max, hold) = Default::default();
                let settings = config::Resolver { servers, ttl_min, ttl_max, hold, timeout };
                Some(Resolver::with_system(&settings, system.clone()).map_err(io::Error::other)?)
            }
        };
        Ok(Setup { settings: self, resolver, told: Default::default() })
    }
}

/// The sockets of a responder.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Sockets {
    /// Where they are bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Binds UDP and TCP at the same port; port 0 is any that is free for both.
///
/// # Errors
/// Whatever the kernel says: the address is in use, is not ours, or needs a right that we lack.
pub fn bind(addr: SocketAddr) -> io::Result<Sockets> {
    let mut tries = if addr.port() == 0 { TRIES } else { 1 };
    loop {
        let tcp = sockets::listen(addr)?;
        let address = tcp.local_addr()?;
        tries -= 1;
        match bind_udp(address) {
            Ok(udp) => return Ok(Sockets { udp, tcp, address }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

fn bind_udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // As much as the system allows.
    let _ = socket.set_recv_buffer_size(WAITING);
    socket.bind(&addr.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A running responder. Dropping it stops it.
#[derive(Debug)]
pub struct Responder {
    address: SocketAddr,
    server: Arc<Server>,
    system: System,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a responder on bound sockets, for the services of a table. `system` tells where the system's resolvers are
/// found, and should bear the mark that the sidecar's own lookups bear, too.
///
/// # Errors
/// The system refuses a thread or an event loop, or the DNS client cannot be set up.
pub fn start(
    sockets: Sockets,
    table: Table,
    settings: Settings,
    mut system: System,
    metrics: Arc<DnsMetrics>,
) -> io::Result<Responder> {
    let Sockets { udp, tcp, address } = sockets;
    let ourselves = system.ourselves.get_or_insert_with(|| Ourselves::new(address)).clone();
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (udp, tcp, setup) = {
        let _entered = runtime.enter();
        (Udp::new(udp)?, tokio::net::TcpListener::from_std(tcp)?, settings.setup(&system, None)?)
    };
    let setup = ArcSwap::from_pointee(setup);
    let server = Arc::new(Server { table, setup, ourselves, metrics, udp, state: State::default() });
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = server.clone();
    let thread = thread::Builder::new().name("dns".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                // It ends when it is told to, or when nobody is left who could.
                _ = stopped => {}
                () = datagrams(serving.clone()) => {}
                () = tcp::serve(tcp, serving) => {}
            }
        });
    })?;
    Ok(Responder { address, server, system, stop: Some(stop), thread: Some(thread) })
}

/// Settings that a responder can go over to.
#[derive(Debug)]
pub struct Prepared(Setup);

/// Answers datagrams for good: should one of them ever make us panic, the next ones are answered all the same.
async fn datagrams(server: Arc<Server>) {
    while let Err(error) = tokio::spawn(udp::serve(server.clone())).await {
        tracing::error!(%error, "the DNS responder could not take a question, and goes on");
    }
}

impl Responder {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gets ready for other settings; nothing changes yet.
    ///
    /// # Errors
    /// The DNS client cannot be set up.
    pub fn prepare(&self, settings: Settings) -> io::Result<Prepared> {
        let before = self.server.setup.load();
        settings.setup(&self.system, Some(&before)).map(Prepared)
    }

    /// Goes by other settings from now on.
    pub fn reconfigure(&self, prepared: Prepared) {
        self.server.reconfigure(prepared.0);
    }

    /// Stops answering; returns when its thread has ended and its port is free.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the DNS responder panicked");
        }
    }
}
