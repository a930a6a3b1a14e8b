//! The control thread: everything that is not traffic.

use std::{
    net::TcpListener,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    Error, Origin,
    acceptor::Acceptor,
    file::{self, Look},
    listeners::Listeners,
    reload, shutdown,
    wiring::Wiring,
    workers::Workers,
};
use crate::{
    admin::{self, ReloadRequest, socket::AdminSocket},
    config::{self, Config},
    discovery::Discovery,
    health,
    net::resolve::{Resolver, System, Unusable},
    service::{Lifecycle, Table},
    telemetry::{AccessLog, Metrics},
    vip::dns::Responder,
};

/// How often to look whether certificates have changed on disk.
const CERTIFICATES: Duration = Duration::from_secs(1);

/// What the control thread takes over.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) origin: Option<Origin>,
    pub(super) listeners: Listeners,
    pub(super) observe: TcpListener,
    pub(super) admin: AdminSocket,
    pub(super) metrics: Metrics,
    pub(super) access_log: Option<AccessLog>,
    pub(super) table: Table,
    pub(super) lifecycle: Lifecycle,
    pub(super) workers: Workers,
    pub(super) acceptor: Acceptor,
    pub(super) responder: Option<Responder>,
    pub(super) system: System,
    pub(super) stopped: oneshot::Receiver<()>,
}

/// What a reload may change.
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) origin: Option<Origin>,
    pub(super) listeners: Listeners,
    pub(super) metrics: Metrics,
    pub(super) access_log: Option<AccessLog>,
    pub(super) table: Table,
    pub(super) workers: usize,
    pub(super) acceptor: Acceptor,
    pub(super) responder: Option<Responder>,
    pub(super) system: System,
    pub(super) wiring: Wiring,
}

/// Starts the thread. What can fail is tried before this returns.
pub(super) fn start(parts: Parts) -> Result<JoinHandle<()>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::System)?;
    let discovery = {
        let _entered = runtime.enter();
        discovery(&parts.config.resolver, &parts.system, &parts.metrics)
            .map_err(|error| Error::Resolver(error.to_string()))?
    };
    let signals = match parts.origin {
        Some(_) => {
            let _entered = runtime.enter();
            Some(Signals::install().map_err(Error::System)?)
        }
        None => None,
    };
    thread::Builder::new()
        .name("control".into())
        .spawn(move || runtime.block_on(run(parts, discovery, signals)))
        .map_err(Error::System)
}

/// Discovery that asks as the config says, and never ourselves.
pub(super) fn discovery(
    resolver: &config::Resolver,
    system: &System,
    metrics: &Metrics,
) -> Result<Discovery, Unusable> {
    Ok(Discovery::with_resolver(Resolver::with_system(resolver, system.clone())?, resolver, metrics.clone()))
}

async fn run(parts: Parts, discovery: Discovery, mut signals: Option<Signals>) {
    let Parts { config, origin, listeners, observe, admin, metrics, access_log, table, lifecycle, workers, .. } = parts;
    let (acceptor, mut stopped) = (parts.acceptor, parts.stopped);
    let (responder, system) = (parts.responder, parts.system);
    let (reloads, mut asked) = mpsc::channel::<ReloadRequest>(8);

    match tokio::net::TcpListener::from_std(observe) {
        Ok(observe) => {
            tokio::spawn(admin::observe::serve(observe, table.clone(), lifecycle.clone(), metrics.clone()));
        }
        Err(error) => tracing::error!(%error, "the observe port cannot be served"),
    }
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let checks = tokio::spawn(health::watch(table.clone(), metrics.clone(), seed));
    let socket = tokio::spawn(admin::socket::serve(admin, table.clone(), lifecycle.clone(), reloads));

    let mut wiring = Wiring::new(discovery, table.clone());
    wiring.watch(&config);
    tracing::info!(
        http = %listeners.shared_addr(), services = config.services.len(), workers = workers.count(), "started"
    );
    let count = workers.count();
    let mut running = Running {
        config,
        origin,
        listeners,
        metrics,
        access_log,
        table,
        workers: count,
        acceptor,
        responder,
        system,
        wiring,
    };
    let mut check = interval(file::EVERY);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut certificates = interval(CERTIFICATES);
    certificates.set_missed_tick_behavior(MissedTickBehavior::Delay);

    loop {
        tokio::select! {
            _ = &mut stopped => break,
            asked = Signals::next(&mut signals) => match asked {
                Asked::Stop => break,
                Asked::Reload => {
                    if let Some(log) = &running.access_log {
                        log.reopen();
                    }
                    let _ = reload::reload(&mut running).await;
                }
            },
            Some(request) = asked.recv() => {
                let _ = request.reply.send(reload::reload(&mut running).await);
            }
            _ = certificates.tick() => running.table.current().refresh_certificates(&running.metrics),
            _ = check.tick() => match running.origin.as_mut().map(|origin| origin.file.look()) {
                None | Some(Look::Same) => {}
                Some(Look::Changing) => check.reset_after(file::AT_REST),
                Some(Look::Changed) => {
                    let _ = reload::reload(&mut running).await;
                }
            },
        }
    }
    // Whoever asks for a reload from now on learns that it is too late.
    drop(asked);

    tracing::info!("stopping");
    lifecycle.start_stopping();
    let hurry = async {
        loop {
            if let Asked::Stop = Signals::next(&mut signals).await {
                return;
            }
        }
    };
    shutdown::stop(running.acceptor, running.listeners, workers, running.config.drain.limit, hurry).await;
    // Names are answered to the last: calls in flight may lead to further ones.
    drop(running.responder);
    checks.abort();
    socket.abort();
    let _ = socket.await;
    tracing::info!("stopped");
}

/// The signals of a process that belongs to us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
enum Asked {
    Stop,
    Reload,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one; never, where signals are somebody else's.
    async fn next(signals: &mut Option<Self>) -> Asked {
        match signals {
            Some(signals) => tokio::select! {
                _ = signals.terminate.recv() => Asked::Stop,
                _ = signals.interrupt.recv() => Asked::Stop,
                _ = signals.hangup.recv() => Asked::Reload,
            },
            None => std::future::pending().await,
        }
    }
}
