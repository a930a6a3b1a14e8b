//! The breaker's shell: its lock, its clock, its metrics and its log line.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{lock, now};
use crate::{
    model::{Judgement, ServiceName},
    policy::breaker::{Breaker as Core, Forced, Settings, Ticket, Transition, Verdict, View},
    telemetry::ServiceMetrics,
};

/// One service's breaker, shared by all workers. The lock is held for a few additions at a time.
#[derive(Debug)]
pub struct Breaker {
    service: ServiceName,
    core: Mutex<Core>,
    metrics: ServiceMetrics,
}

/// The breaker refuses calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOpen {
    /// When it will try again, where it knows.
    pub retry_after: Option<Duration>,
}

impl Breaker {
    pub(super) fn new(service: ServiceName, settings: Settings, metrics: &ServiceMetrics, now: Instant) -> Self {
        Self { service, core: Mutex::new(Core::new(settings, now)), metrics: metrics.clone() }
    }

    /// Asks for leave to make one attempt.
    ///
    /// # Errors
    /// [`BreakerOpen`] when it refuses.
    pub fn admit(self: &Arc<Self>, now: Instant) -> Result<Trial, BreakerOpen> {
        let admission = lock(&self.core).admit(now);
        self.tell(admission.transition);
        match admission.verdict {
            Verdict::Admit(ticket) => Ok(Trial { breaker: self.clone(), started: now, ticket: Some(ticket) }),
            Verdict::Refuse { retry_after } => Err(BreakerOpen { retry_after }),
        }
    }

    /// Forces it open or closed, or lets it decide again.
    pub fn force(&self, forced: Forced, now: Instant) {
        let transition = lock(&self.core).force(forced, now);
        self.tell(transition);
    }

    /// Takes other settings and keeps its state: a reload in the middle of an outage, or of an operator's
    /// intervention, ends neither.
    pub(super) fn reconfigure(&self, settings: Settings, now: Instant) {
        lock(&self.core).reconfigure(settings, now);
    }

    /// Its state, for people.
    pub fn view(&self, now: Instant) -> View {
        lock(&self.core).view(now)
    }

    fn record(&self, now: Instant, ticket: Ticket, took: Duration, judgement: Judgement) {
        let transition = lock(&self.core).record(now, ticket, took, judgement);
        self.tell(transition);
    }

    /// Counts and logs a transition. A breaker that opens is somebody's business; one that closes is news.
    fn tell(&self, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let (service, to, why) = (&self.service, transition.to.as_str(), &transition.why);
        self.metrics.breaker_transitions[transition.to.as_gauge() as usize].inc();
        if to == "open" {
            tracing::warn!(%service, %why, "breaker opened");
        } else {
            tracing::info!(%service, to, %why, "breaker changed");
        }
    }
}

/// Leave to make one attempt. What the attempt came to is reported with [`Trial::report`]; a trial that is
/// dropped counts for nothing and gives a probe's place back.
#[derive(Debug)]
pub struct Trial {
    breaker: Arc<Breaker>,
    started: Instant,
    ticket: Option<Ticket>,
}

impl Trial {
    /// Whether a half-open breaker waits for it.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_some_and(Ticket::is_probe)
    }

    /// Reports how the attempt went.
    pub fn report(mut self, now: Instant, judgement: Judgement) {
        if let Some(ticket) = self.ticket.take() {
            let took = now.saturating_duration_since(self.started);
            self.breaker.record(now, ticket, took, judgement);
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.breaker.record(now(), ticket, Duration::ZERO, Judgement::Nothing);
        }
    }
}
