//! The control thread: everything that is not traffic.

use std::{
    net::TcpListener,
    pin::pin,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use super::{
    Error, Origin,
    acceptor::Acceptor,
    drain,
    file::{self, Look},
    listeners::Listeners,
    reload, shutdown,
    wildcard::Maker,
    wiring::Wiring,
    workers::{LAST_REQUEST, Workers},
};
use crate::{
    admin::{self, ReloadRequest, socket::AdminSocket},
    config::{self, Config},
    discovery::Discovery,
    health,
    net::resolve::{Resolver, System, Unusable},
    service::{Lifecycle, Table},
    telemetry::{AccessLog, Metrics},
    vip::{self, dns::Responder},
};

/// How often to look whether certificates have changed on disk, whether VIPs are to be remembered, and whether the wait for
/// endpoints is over.
const SECOND: Duration = Duration::from_secs(1);

/// What is left at least of a stop's limit when draining is over: idle connections are closed politely, those in use
/// told so.
const FAREWELL: Duration = LAST_REQUEST.saturating_mul(2);

/// Who may end the sidecar, beside whoever holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Master {
    /// The process's signals, and the admin socket.
    Process,
    /// The admin socket.
    Holder,
    /// Nobody: the holder hears the signals and the admin socket, and has an app to think of.
    Supervisor,
}

/// What whoever holds the sidecar tells it.
#[derive(Debug)]
pub(super) enum Order {
    /// Finish what is in flight, within this time or the configuration's, and end. Nobody needs new calls any more.
    Stop(Option<Duration>),
    /// End now.
    Hurry,
}

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
    pub(super) vips: Option<vip::Addresses>,
    pub(super) lifecycle: Lifecycle,
    pub(super) workers: Workers,
    pub(super) acceptor: Acceptor,
    pub(super) master: Master,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) responder: Option<Responder>,
    pub(super) system: System,
}

/// What a reload may change.
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) origin: Option<Origin>,
    pub(super) listeners: Listeners,
    pub(super) metrics: Metrics,
    pub(super) access_log: Option<AccessLog>,
    pub(super) table: Table,
    pub(super) vips: Option<vip::Addresses>,
    pub(super) lifecycle: Lifecycle,
    pub(super) workers: usize,
    pub(super) acceptor: Acceptor,
    pub(super) responder: Option<Responder>,
    pub(super) system: System,
    pub(super) wiring: Wiring,
    /// How many there have been: what was begun under one configuration is not finished under another.
    pub(super) reloads: u64,
}

/// Starts the thread. What can fail is tried before this returns.
pub(super) fn start(parts: Parts) -> Result<JoinHandle<()>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::System)?;
    let discovery = {
        let _entered = runtime.enter();
        discovery(&parts.config.resolver, &parts.system, &parts.metrics)
            .map_err(|error| Error::Resolver(error.to_string()))?
    };
    let signals = match parts.master {
        Master::Process => {
            let _entered = runtime.enter();
            Some(Signals::install().map_err(Error::System)?)
        }
        Master::Holder | Master::Supervisor => None,
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

async fn run(parts: Parts, discovery: Discovery, signals: Option<Signals>) {
    let Parts { config, origin, listeners, observe, admin, metrics, access_log, table, lifecycle, vips, .. } = parts;
    let (workers, acceptor, orders) = (parts.workers, parts.acceptor, parts.orders);
    let (responder, system) = (parts.responder, parts.system);
    let (reloads, asked) = mpsc::channel::<ReloadRequest>(8);

    match tokio::net::TcpListener::from_std(observe) {
        Ok(observe) => {
            tokio::spawn(admin::observe::serve(observe, table.clone(), lifecycle.clone(), metrics.clone()));
        }
        Err(error) => tracing::error!(%error, "the observe port cannot be served"),
    }
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let checks = tokio::spawn(health::watch(table.clone(), metrics.clone(), seed));
    let socket = tokio::spawn(admin::socket::serve(admin, table.clone(), lifecycle.clone(), reloads));

    let (maker, summoner) = Maker::new();
    table.summons_go_to(summoner);
    let mut wiring = Wiring::new(discovery, table.clone());
    wiring.watch(&config);
    tracing::info!(
        http = %listeners.shared_addr(), services = config.services.len(), workers = workers.count(), "started"
    );
    let count = workers.count();
    let lives = lifecycle.clone();
    let running = Running {
        config,
        origin,
        listeners,
        metrics,
        access_log,
        table,
        vips,
        lifecycle,
        workers: count,
        acceptor,
        responder,
        system,
        wiring,
        reloads: 0,
    };
    let hears_the_socket = parts.master != Master::Supervisor;
    let [file, second] = [file::EVERY, SECOND].map(|every| {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let mut desk = Desk { running, maker, asked, orders, signals, hears_the_socket, file, second };

    let limit = match desk.attend(std::future::pending()).await {
        Event::Signal | Event::Asked | Event::Over => desk.drain(&workers).await,
        Event::Ordered(limit) => desk.left(limit),
    };
    let Desk { running, maker, asked, mut orders, mut signals, .. } = desk;
    // Whoever asks for a reload or a service from now on learns that it is too late.
    drop((maker, asked));

    tracing::info!("stopping");
    lives.start_stopping();
    let hurry = async {
        let signal = async {
            loop {
                if let Wish::Stop = Signals::next(&mut signals).await {
                    return;
                }
            }
        };
        tokio::select! {
            () = signal => {}
            Some(Order::Hurry) = orders.recv() => {}
            else => std::future::pending().await,
        }
    };
    shutdown::stop(running.acceptor, running.listeners, workers, limit, hurry).await;
    // Names are answered to the last: calls in flight may lead to further ones.
    drop(running.responder);
    checks.abort();
    socket.abort();
    let _ = socket.await;
    tracing::info!("stopped");
}

/// What there is to attend to while the sidecar runs.
struct Desk {
    running: Running,
    maker: Maker,
    asked: mpsc::Receiver<ReloadRequest>,
    orders: mpsc::Receiver<Order>,
    signals: Option<Signals>,
    hears_the_socket: bool,
    file: Interval,
    second: Interval,
}

/// Why there is no more to attend to, or for the moment.
enum Event {
    /// A signal asks for a stop.
    Signal,
    /// Somebody asks for one by way of the admin socket.
    Asked,
    /// Whoever started the sidecar ends it, and says how long that may take.
    Ordered(Option<Duration>),
    /// What was waited for has come.
    Over,
}

impl Desk {
    /// From running ⇒ to drained: everything goes on, but for readiness. How long the rest of the stop may take.
    async fn drain(&mut self, workers: &Workers) -> Duration {
        let began = Instant::now();
        self.running.lifecycle.start_draining();
        let config = self.running.config.clone();
        let (until, limit) = (drain::word(config.drain.until), config.drain.limit);
        tracing::info!(until, ?limit, "draining: not ready, calls go on");
        let mut drained = pin!(drain::drained(&config, workers));
        loop {
            match self.attend(drained.as_mut()).await {
                // It has been heard already.
                Event::Asked => {}
                // The second one.
                Event::Signal => return Duration::ZERO,
                Event::Ordered(limit) => return self.left(limit),
                Event::Over => return self.left(Some(config.drain.limit.saturating_sub(began.elapsed()))),
            }
        }
    }

    /// What a stop may take of this limit, or else the configuration's.
    fn left(&self, limit: Option<Duration>) -> Duration {
        limit.unwrap_or(self.running.config.drain.limit).max(FAREWELL)
    }

    /// Reloads, looks after certificates, and waits for the end: of `over`, or by whoever may ask for it.
    async fn attend(&mut self, over: impl Future<Output = ()>) -> Event {
        let mut over = pin!(over);
        let running = &mut self.running;
        let lifecycle = running.lifecycle.clone();
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Stop(limit)) => return Event::Ordered(limit),
                    Some(Order::Hurry) => return Event::Ordered(Some(Duration::ZERO)),
                    None => return Event::Ordered(None),
                },
                () = lifecycle.stop_asked(), if self.hears_the_socket => return Event::Asked,
                () = &mut over => return Event::Over,
                wish = Signals::next(&mut self.signals) => match wish {
                    Wish::Stop => return Event::Signal,
                    Wish::Reload => {
                        if let Some(log) = &running.access_log {
                            log.reopen();
                        }
                        let _ = reload::reload(running).await;
                    }
                },
                Some(request) = self.asked.recv() => {
                    let _ = request.reply.send(reload::reload(running).await);
                }
                event = self.maker.next() => self.maker.handle(event, running).await,
                _ = self.second.tick() => {
                    running.table.current().refresh_certificates(&running.metrics);
                    if let Some(vips) = &mut running.vips {
                        vips.remember();
                    }
                    // Said by the log at the latest now, should nobody ask.
                    let _ = lifecycle.readiness();
                }
                _ = self.file.tick() => match running.origin.as_mut().map(|origin| origin.file.look()) {
                    None | Some(Look::Same) => {}
                    Some(Look::Changing) => self.file.reset_after(file::AT_REST),
                    Some(Look::Changed) => {
                        let _ = reload::reload(running).await;
                    }
                },
            }
        }
    }
}

/// The signals of a process that belongs to us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
enum Wish {
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
    async fn next(signals: &mut Option<Self>) -> Wish {
        match signals {
            Some(signals) => tokio::select! {
                _ = signals.terminate.recv() => Wish::Stop,
                _ = signals.interrupt.recv() => Wish::Stop,
                _ = signals.hangup.recv() => Wish::Reload,
            },
            None => std::future::pending().await,
        }
    }
}
