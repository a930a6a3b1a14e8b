//! How it is all put together, in dependency order.
//!
//! [`run`] is `outrigger run`; [`Sidecar`] is the same thing without a file and without signals, for the demo
//! and for tests. Both come down to [`Sidecar::start`]: bind everything first, so that what cannot be bound
//! is an error and not a half-started process; then telemetry, services, workers, the acceptor and the
//! control thread.
//!
//! | thread | file | does |
//! |---|---|---|
//! | one a worker | `workers` | carries traffic |
//! | acceptor | `acceptor` | hands each connection to a worker |
//! | control | `control` | discovery, observe port, admin socket, `reload`, `shutdown` |
//! | dns | `vip::dns` | answers names, where the configuration wants that |

mod acceptor;
mod control;
mod error;
mod file;
mod listeners;
mod reload;
mod shutdown;
mod wiring;
mod workers;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    path::Path,
    thread::JoinHandle,
};

use tokio::sync::oneshot;

pub use error::Error;

use crate::{
    admin,
    config::Config,
    model::ServiceName,
    net::{
        resolve::{Ourselves, System},
        tcp,
    },
    proxy::WorkerSettings,
    service::{Lifecycle, Services, Table, now},
    telemetry::{AccessLog, Metrics, log},
    vip::dns,
};
use file::ConfigFile;
use listeners::Listeners;

/// Runs the sidecar that a file describes until a signal stops it.
///
/// # Errors
/// The file is not valid, or something cannot be bound. A sidecar that has started does not fail any more.
pub fn run(path: &Path) -> Result<(), Error> {
    let file = ConfigFile::new(path);
    let loaded = Config::load(path).map_err(Error::Config)?;
    let level = log::install(loaded.config.log.level);
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "the configuration has a questionable point");
    }
    let sidecar = Sidecar::launch(loaded.config, Some(Origin { file, level }))?;
    sidecar.join()
}

/// Where a configuration came from, for a reload.
#[derive(Debug)]
struct Origin {
    file: ConfigFile,
    level: log::Control,
}

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    control: Option<JoinHandle<()>>,
}

/// Where a sidecar listens, ports chosen by the kernel included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The shared port.
    pub http: SocketAddr,
    /// The observe port.
    pub observe: SocketAddr,
    /// The services' own ports.
    pub services: BTreeMap<ServiceName, SocketAddr>,
    /// The receiving side.
    pub inbound: Option<SocketAddr>,
    /// The DNS responder.
    pub dns: Option<SocketAddr>,
}

impl Sidecar {
    /// Starts a sidecar, which serves until it is stopped or dropped.
    ///
    /// # Errors
    /// Something cannot be bound.
    pub fn start(config: Config) -> Result<Self, Error> {
        Self::launch(config, None)
    }

    fn launch(config: Config, origin: Option<Origin>) -> Result<Self, Error> {
        // What can fail comes first.
        let listeners = Listeners::bind(&config)?;
        let observe = tcp::listen(config.listen.observe).map_err(|source| Error::Bind {
            what: "observe",
            addr: config.listen.observe,
            source,
        })?;
        let sockets = config
            .listen
            .dns
            .map(|addr| dns::bind(addr).map_err(|source| Error::Bind { what: "listen.dns", addr, source }));
        let sockets = sockets.transpose()?;
        let admin = admin::socket::bind(&config.listen.admin).map_err(Error::Admin)?;
        let metrics = Metrics::new();
        let access_log = match &config.log.access {
            Some(access) => Some(AccessLog::open(access, metrics.access_log_lost()).map_err(Error::AccessLog)?),
            None => None,
        };
        let addresses = Addresses {
            http: listeners.shared_addr(),
            observe: observe.local_addr().map_err(Error::System)?,
            services: listeners.service_addrs(),
            inbound: listeners.inbound_addr(),
            dns: sockets.as_ref().map(dns::Sockets::address),
        };
        // Neither discovery nor the responder itself may ask the responder.
        let system = addresses.dns.map_or_else(System::default, |addr| System::with(Ourselves::new(addr)));

        let workers = workers::count(&config);
        let services = Services::new(&config, &metrics, access_log.clone(), workers, &HashMap::new(), None, now())
            .map_err(Error::Tls)?;
        let table = Table::new(services);
        table.bound_to(addresses.http);
        let lifecycle = Lifecycle::new(table.clone());
        let responder = sockets.map(|sockets| {
            let settings = dns::Settings::of(&config, None);
            dns::start(sockets, table.clone(), settings, system.clone(), metrics.dns()).map_err(Error::System)
        });
        let responder = responder.transpose()?;

        let randomness = RandomState::new();
        let template = WorkerSettings {
            index: 0,
            table: table.clone(),
            metrics: metrics.clone(),
            pseudonym: format!("outrigger-{:08x}", randomness.hash_one("pseudonym") as u32),
            seed: randomness.hash_one("seed"),
        };
        let (crew, intakes) = workers::start(workers, &template).map_err(Error::System)?;
        let acceptor =
            acceptor::start(&listeners, intakes, config.limits.connections, metrics.downstream_connections())
                .map_err(Error::System)?;

        let (stop, stopped) = oneshot::channel();
        let control = control::start(control::Parts {
            config,
            origin,
            listeners,
            observe,
            admin,
            metrics,
            access_log,
            table,
            lifecycle,
            workers: crew,
            acceptor,
            responder,
            system,
            stopped,
        })?;
        Ok(Self { addresses, stop: Some(stop), control: Some(control) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Stops gracefully: calls in flight have until the configuration's drain limit. Returns when it is over.
    pub fn stop(mut self) {
        self.finish();
    }

    /// Waits until a signal has stopped it.
    fn join(mut self) -> Result<(), Error> {
        let stop = self.stop.take();
        let ended = self.control.take().map(JoinHandle::join);
        drop(stop);
        match ended {
            Some(Err(_)) => Err(Error::Internal("the control thread panicked")),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.finish();
    }
}
