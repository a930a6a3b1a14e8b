//! How it is all put together, in dependency order.
//!
//! [`run`] is `outrigger run`, [`run_with_app`] the same with an app of its own; [`Sidecar`] is without a file and without
//! signals, for the demo and for tests. All come down to [`Sidecar::start`]: bind everything first, so that what cannot be bound
//! is an error and not a half-started process; then telemetry, services, workers, the acceptor and the
//! control thread.
//!
//! | thread | file | does |
//! |---|---|---|
//! | one a worker | `workers` | carries traffic |
//! | acceptor | `acceptor` | hands each connection to a worker |
//! | control | `control` | discovery, VIPs and `names`, services of `*` (`wildcard`), observe port, admin socket, `reload`; a stop: first `drain`, then `shutdown` |
//! | dns | `vip::dns` | answers names, where the configuration wants that |
//! | main | `child` | with an app of its own: starts it, passes signals on, ends with it |

mod acceptor;
mod child;
mod control;
mod drain;
mod error;
mod file;
mod listeners;
mod names;
mod reload;
mod shutdown;
mod wildcard;
mod wiring;
mod workers;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    path::Path,
    thread::JoinHandle,
};

use tokio::sync::mpsc;

pub use error::Error;

use crate::{
    admin,
    config::Config,
    model::ServiceName,
    net::{
        resolve::{Ourselves, System},
        tcp,
    },
    proxy::{Outgoing, WorkerSettings},
    service::{Lifecycle, Services, Table, now},
    telemetry::{AccessLog, Metrics, log},
    vip::{self, dns},
};
use control::{Master, Order};
use file::ConfigFile;
use listeners::Listeners;

/// Runs the sidecar that a file describes until a signal stops it.
///
/// # Errors
/// The file is not valid, or something cannot be bound. A sidecar that has started does not fail any more.
pub fn run(path: &Path) -> Result<(), Error> {
    let (config, origin) = load(path)?;
    Sidecar::launch(config, Some(origin), Master::Process)?.join()
}

/// Runs the sidecar that a file describes, and beside it an app, from the moment at which the sidecar is ready until
/// the app ends; the answer is the exit code that tells how. Signals go to the app.
///
/// # Errors
/// As of [`run`], and then the app has not been started; or the app cannot be.
///
/// # Panics
/// `command` is empty.
pub fn run_with_app(path: &Path, command: &[OsString]) -> Result<u8, Error> {
    let (config, origin) = load(path)?;
    child::run(command, || Sidecar::launch(config, Some(origin), Master::Supervisor))
}

fn load(path: &Path) -> Result<(Config, Origin), Error> {
    let file = ConfigFile::new(path);
    let loaded = Config::load(path).map_err(Error::Config)?;
    let level = log::install(loaded.config.log.level);
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "the configuration has a questionable point");
    }
    Ok((loaded.config, Origin { file, level }))
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
    lifecycle: Lifecycle,
    table: Table,
    orders: mpsc::Sender<Order>,
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
    /// Where redirected connections come in.
    pub intercepted: Option<SocketAddr>,
    /// The DNS responder.
    pub dns: Option<SocketAddr>,
}

impl Sidecar {
    /// Starts a sidecar, which serves until it is stopped or dropped.
    ///
    /// # Errors
    /// Something cannot be bound.
    pub fn start(config: Config) -> Result<Self, Error> {
        Self::launch(config, None, Master::Holder)
    }

    fn launch(config: Config, origin: Option<Origin>, master: Master) -> Result<Self, Error> {
        // What can fail comes first.
        let mark = config.mark();
        tcp::may_mark(mark).map_err(Error::Mark)?;
        let mut vips = config.vip.as_ref().map(vip::Addresses::open).transpose()?;
        if let Some(vips) = &mut vips {
            vips.assign(&config, [])?;
            // Before anybody is told.
            vips.remember();
        }
        let addresses_of = vips.as_ref().map(|vips| vips.current().clone()).unwrap_or_default();
        let listeners = Listeners::bind(&config, &addresses_of)?;
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
            intercepted: listeners.intercepted_addr(),
            dns: sockets.as_ref().map(dns::Sockets::address),
        };
        // Neither discovery nor the responder itself may ask the responder.
        let system = addresses.dns.map_or_else(System::default, |addr| System::with(Ourselves::new(addr)));

        let workers = workers::count(&config);
        let services = Services::new(&config, &metrics, access_log.clone(), workers, &addresses_of, None, now())
            .map_err(Error::Tls)?;
        let table = Table::new(services);
        table.bound_to(addresses.http);
        names::keep_hosts(None, &config, &table);
        let lifecycle = Lifecycle::new(table.clone(), config.ready_limit);
        let responder = sockets.map(|sockets| {
            let settings = dns::Settings::of(&config, names::summon(&config, &table));
            dns::start(sockets, table.clone(), settings, system.clone(), metrics.dns()).map_err(Error::System)
        });
        let responder = responder.transpose()?;

        tcp::mark_own(mark);
        let randomness = RandomState::new();
        let template = WorkerSettings {
            index: 0,
            table: table.clone(),
            metrics: metrics.clone(),
            outgoing: Outgoing::default(),
            pseudonym: format!("outrigger-{:08x}", randomness.hash_one("pseudonym") as u32),
            seed: randomness.hash_one("seed"),
        };
        let (crew, intakes) = workers::start(workers, &template).map_err(Error::System)?;
        let acceptor =
            acceptor::start(&listeners, intakes, config.limits.connections, metrics.downstream_connections())
                .map_err(Error::System)?;

        let (orders, received) = mpsc::channel(2);
        let (table_of_all, life) = (table.clone(), lifecycle.clone());
        let control = control::start(control::Parts {
            config,
            origin,
            listeners,
            observe,
            admin,
            metrics,
            access_log,
            table,
            vips,
            lifecycle,
            workers: crew,
            acceptor,
            master,
            orders: received,
            responder,
            system,
        })?;
        Ok(Self { addresses, lifecycle: life, table: table_of_all, orders, control: Some(control) })
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
        match self.control.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(Error::Internal("the control thread panicked")),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) {
        if let Some(control) = self.control.take() {
            // With no room for it there is an order to stop already.
            let _ = self.orders.try_send(Order::Stop(None));
            let _ = control.join();
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.finish();
    }
}
