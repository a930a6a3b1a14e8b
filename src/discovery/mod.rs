//! Discovery: which endpoints are there right now?
//!
//! A source may fall silent, lie, or lose everything for a minute, and the calls must go on meanwhile.
//! So looking and believing are two things here. A [`Source`] looks, once each time it is asked, and
//! reports what it saw. What is believed is decided in one place for all sources: `keep` holds the last
//! good set through failures, and gives a set that the source says is gone some time before it is
//! dropped; `rhythm` says when to look again; `supervise` is the shell that joins them to clocks,
//! metrics and subscribers.
//!
//! | source | looks at | again |
//! |---|---|---|
//! | `fixed` | addresses in the config | never |
//! | `file` | a list in YAML or JSON | each second, at its `stat` |
//! | `dns` | A and AAAA records | as the TTL says, within the config's range |
//! | `srv` | SRV records and their targets' addresses | the same |
//!
//! Everything runs on the control thread. To add a source: a module with a [`Source`], a variant in
//! `config::Source` and `SourceKind`, an arm in [`Discovery::watch`], a row above and in
//! `docs/discovery.md`.
//!
//! Left out: merging several sources into one set, and health; an endpoint that is there but does not
//! answer is the business of ejection.

mod dns;
mod file;
mod fixed;
mod guard;
mod host;
mod keep;
mod list;
mod rhythm;
mod srv;
mod supervise;

use std::{
    future::Future,
    hash::{BuildHasher, Hasher, RandomState},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore, watch};

use crate::{
    config,
    model::{Endpoint, EndpointSet, Random, ServiceName},
    net::resolve::{Resolver, Unusable},
    telemetry::metrics::Metrics,
};
pub use guard::Guard;
use guard::Guarded;
use keep::Keeper;
use rhythm::Rhythm;

/// Files that may be looked at at once, each on a thread of its own: a file system that hangs may stop
/// the looks at files, and nothing else.
const FILES_AT_ONCE: usize = 8;

/// Endpoints of one service: far more than a sidecar can use, and little enough memory.
const MAX_ENDPOINTS: usize = 10_000;

/// Something that endpoints are learnt from. The one open trait of the house: looks are rare, so a boxed
/// future costs nothing that matters.
pub trait Source: Send {
    /// Looks once. Must end within a bounded time; dropping the future abandons the look.
    fn look(&mut self) -> Look<'_>;
}

/// A look under way.
pub type Look<'a> = Pin<Box<dyn Future<Output = Report> + Send + 'a>>;

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was seen.
    pub sight: Sight,
    /// When to look again.
    pub again: Again,
}

/// What a source saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// These endpoints; the text says what is wrong with a part of the answer. An empty list is taken for `Gone`.
    Endpoints(Vec<Endpoint>, Option<Arc<str>>),
    /// The source answered that there are none, and why.
    Gone(Arc<str>),
    /// The source could not be asked, or its answer not be read, and why.
    Failed(Arc<str>),
}

/// When a source wants to be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// After this time, and up to a tenth more: a poll.
    In(Duration),
    /// After this time or the nearest that the config allows, and not in step with others: a TTL.
    Ttl(Duration),
    /// Soon, and later each time that nothing has come of it.
    BackOff,
    /// Never: what was said is said for good.
    Never,
}

/// Watches sources. Made once a configuration: all watches share the resolver and the limits.
#[derive(Debug)]
pub struct Discovery {
    resolver: Resolver,
    metrics: Metrics,
    rhythm: Rhythm,
    hold: Duration,
    files: Arc<Semaphore>,
}

impl Discovery {
    /// Sets up name resolution; nothing is asked yet.
    ///
    /// # Errors
    /// [`Unusable`] if there is no DNS server to ask.
    pub fn new(resolver: &config::Resolver, metrics: Metrics) -> Result<Self, Unusable> {
        Ok(Self::with_resolver(Resolver::new(resolver)?, resolver, metrics))
    }

    /// Like [`new`](Self::new), with a resolver that is there already.
    pub fn with_resolver(resolver: Resolver, settings: &config::Resolver, metrics: Metrics) -> Self {
        Self {
            resolver,
            metrics,
            rhythm: Rhythm { ttl_min: settings.ttl_min, ttl_max: settings.ttl_max },
            hold: settings.hold,
            files: Arc::new(Semaphore::new(FILES_AT_ONCE)),
        }
    }

    /// Starts watching a source, until the subscription is dropped. The first look begins at once.
    ///
    /// Must be called within a tokio runtime.
    pub fn watch(&self, service: &ServiceName, source: &config::Source) -> Subscription {
        self.watch_guarded(service, service.as_str(), source, Guard::default())
    }

    /// The same, where metrics call the service by a `label`, and its addresses are held against a `guard`.
    pub fn watch_guarded(
        &self,
        service: &ServiceName,
        label: &str,
        source: &config::Source,
        guard: Guard,
    ) -> Subscription {
        let resolver = self.resolver.clone();
        let kind = source.kind();
        let source: Box<dyn Source> = match source {
            config::Source::Static(addrs) => Box::new(fixed::Fixed::new(addrs)),
            config::Source::File(path) => Box::new(file::File::new(path, Arc::clone(&self.files))),
            config::Source::Dns { host, port } => {
                Box::new(Guarded { source: dns::Dns::new(resolver, host, *port), guard })
            }
            config::Source::Srv { name } => Box::new(Guarded { source: srv::Srv::new(resolver, name), guard }),
        };
        let (metrics, label) = (self.metrics.clone(), label.to_owned());
        supervise::start(supervise::Watch {
            service: service.clone(),
            source,
            keeper: Keeper::new(self.hold),
            rhythm: self.rhythm,
            random: Random::seeded(RandomState::new().build_hasher().finish()),
            undeclared: guard.undeclared,
            count: Box::new(move |result| metrics.discovery_look(&label, kind, result)),
        })
    }
}

/// A source being watched. Dropping it ends the watch.
#[derive(Debug)]
pub struct Subscription {
    /// What is believed now. `changed()` wakes for another set or another problem; the times in the status
    /// are kept current without waking anybody.
    pub snapshots: watch::Receiver<Snapshot>,
    /// Asks for an early look.
    pub nudge: Nudge,
    _task: supervise::Task,
}

/// Asks for an early look, e.g. after a connect failure: the endpoint may have moved.
///
/// However often it is asked, a look begins no sooner than 500 ms (or the resolver's `ttl.min`, if that is
/// less) after the one before has ended. Asking is an atomic operation, from any thread, and leaves
/// nothing behind that could grow.
#[derive(Debug, Clone)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    /// Asks for a look as soon as one is allowed.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// What is believed of a source at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The endpoints; revision 0 is "nothing known yet".
    pub set: EndpointSet,
    /// How the looks go.
    pub status: Status,
}

/// How the looks at a source go, for `explain`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// When the source last said anything definite, be it "none".
    pub last_answer: Option<Instant>,
    /// What is wrong: the last look failed, in part at least, or the source says that there is nothing.
    pub problem: Option<Arc<str>>,
    /// When the last good set is dropped, if the source stays with it that there is nothing.
    pub drop_at: Option<Instant>,
    /// When the source is looked at next; `None` while a look is under way, or if there is no need.
    pub next_look: Option<Instant>,
}
