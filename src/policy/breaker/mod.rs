//! The breaker: is the service worth trying?
//!
//! A service that fails most of its calls is better left alone for a while: its callers get their answer
//! at once, and it gets room to recover. The breaker counts *attempts*, so that it sees the failure that
//! a retry healed, and so that an open one stops retries too.
//!
//! ```text
//!           shares reached               strictly more than open_for
//!  closed ───────────────────► open ────────────────────────────────► half-open
//!    ▲                          ▲                                      │    │
//!    │                          └────────── the probes fail ───────────┘    │
//!    └───────────────────────────────────── the probes pass ────────────────┘
//! ```
//!
//! The rules are resilience4j's (`CircuitBreakerStateMachine`, time-based window):
//! - **Closed**: with at least `min_calls` in the window it opens when failures reach `error_rate`, or when
//!   calls that took strictly longer than `slow_call` reach `slow_rate`. It asks after each counted call.
//! - **Open**: it refuses until strictly more than `open_for` has passed; the next call then makes it
//!   half-open. There is no timer: a service that nobody calls stays open.
//! - **Half-open**: `probes` attempts are admitted, the others refused. When all have reported, the same two
//!   shares decide over them: open again, or closed with an empty window.
//!
//! Two differences, both on purpose. A probe that ends without a result gives its place back, so half-open
//! cannot stick (resilience4j can). And a result that belongs to an earlier state counts for nothing: the
//! [`Ticket`] knows the state that admitted it.
//!
//! **Observing** ([`Mode::Observe`]) runs the same machine over the attempts that [`Mode::On`] would have
//! admitted. Those that it would have refused are admitted as bystanders, whose results count for nothing.
//! So it opens, probes and closes when it would in earnest, and recovers by the same probes.
//!
//! **Forced** states are the operator's word, which stands above the mode, as in Hystrix: forced open
//! refuses everything, forced closed admits everything, and both judge nothing until told `auto`.
//!
//! Left out: open times that grow. One service, one `open_for`, as in Hystrix.

mod report;
mod settings;
#[cfg(test)]
mod timelines;

use std::time::{Duration, Instant};

use super::window::{Tally, Window};
use crate::model::Judgement;

pub use report::{Forced, State, Transition, View, Why};
pub use settings::{Mode, Settings};

/// One service's breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: Settings,
    /// When it began: the window's buckets are counted from here, also after it has been open.
    start: Instant,
    /// Counts the changes of state, so that a ticket of an earlier state is known as such.
    epoch: u64,
    phase: Phase,
}

/// A state with what only that state knows; what leaves the state is forgotten.
#[derive(Debug, Clone)]
enum Phase {
    Closed {
        window: Window,
    },
    /// `calls` are those that opened it, for people to look at.
    Open {
        since: Instant,
        calls: Tally,
    },
    /// `outstanding` probes are under way, `results` have reported: together never more than `probes`.
    HalfOpen {
        outstanding: u32,
        results: Tally,
    },
    ForcedOpen,
    ForcedClosed,
}

/// An answer to [`Breaker::admit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Admission {
    /// Whether the attempt may go ahead.
    pub verdict: Verdict,
    /// What asking has changed: an open breaker becomes half-open by the call that comes next.
    pub transition: Option<Transition>,
}

/// Whether an attempt may go ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It may, and its ticket must come back to [`Breaker::record`] exactly once, however it ends.
    Admit(Ticket),
    /// It may not.
    Refuse {
        /// Until the breaker probes; `None` while it is probing, or is forced open. Zero is "any moment".
        retry_after: Option<Duration>,
    },
}

/// What an admitted attempt shows when it reports: which state admitted it, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Ticket(Role);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Counts in the window.
    Call { epoch: u64 },
    /// Holds one of the places of a half-open breaker.
    Probe { epoch: u64 },
    /// Counts for nothing: forced closed, or admitted only because the breaker observes.
    Bystander,
}

impl Ticket {
    /// Whether this attempt decides about a half-open breaker.
    pub fn is_probe(self) -> bool {
        matches!(self.0, Role::Probe { .. })
    }
}

impl Breaker {
    /// A closed breaker with an empty window, whose buckets are counted from `now`.
    pub fn new(settings: Settings, now: Instant) -> Self {
        let phase = Phase::Closed { window: Window::new(now, settings.window, now) };
        Self { settings, start: now, epoch: 0, phase }
    }

    /// May an attempt go ahead?
    pub fn admit(&mut self, now: Instant) -> Admission {
        let mut transition = None;
        if let Phase::Open { since, .. } = self.phase
            && now.saturating_duration_since(since) > self.settings.open_for
        {
            // Open => half-open.
            self.enter(Phase::HalfOpen { outstanding: 0, results: Tally::default() });
            transition = Some(Transition { to: State::HalfOpen, why: Why::OpenElapsed });
        }
        let epoch = self.epoch;
        let verdict = match &mut self.phase {
            Phase::Closed { .. } => Verdict::Admit(Ticket(Role::Call { epoch })),
            Phase::HalfOpen { outstanding, results } => {
                if *outstanding + results.calls < self.settings.probes.max(1) {
                    *outstanding += 1;
                    Verdict::Admit(Ticket(Role::Probe { epoch }))
                } else {
                    self.would_refuse(None)
                }
            }
            Phase::Open { since, .. } => {
                let waited = now.saturating_duration_since(*since);
                let left = self.settings.open_for.saturating_sub(waited);
                self.would_refuse(Some(left))
            }
            Phase::ForcedOpen => Verdict::Refuse { retry_after: None },
            Phase::ForcedClosed => Verdict::Admit(Ticket(Role::Bystander)),
        };
        Admission { verdict, transition }
    }

    /// Takes the result of an admitted attempt: how long it took, and what it says about the service.
    ///
    /// [`Judgement::Nothing`] (the attempt was cancelled, or its guard dropped) gives a probe's place back
    /// and counts for nothing. So does every ticket of an earlier state.
    ///
    /// While a probe is under way its place is taken. An answer that may go on for hours (an upgrade, a stream
    /// of events) should therefore be recorded at its head when [`Ticket::is_probe`], or the others wait for it.
    pub fn record(&mut self, now: Instant, ticket: Ticket, took: Duration, judgement: Judgement) -> Option<Transition> {
        let failed = match judgement {
            Judgement::Success => Some(false),
            Judgement::Failure => Some(true),
            Judgement::Nothing => None,
        };
        match (ticket.0, &mut self.phase) {
            (Role::Call { epoch }, Phase::Closed { window }) if epoch == self.epoch => {
                let calls = window.record(now, failed?, self.settings.is_slow(took));
                if calls.calls < self.settings.min_calls {
                    return None;
                }
                let why = self.settings.against(calls)?;
                // Closed => open.
                Some(self.open(now, calls, why))
            }
            (Role::Probe { epoch }, Phase::HalfOpen { outstanding, results }) if epoch == self.epoch => {
                *outstanding = outstanding.saturating_sub(1);
                results.add(failed?, self.settings.is_slow(took));
                let calls = *results;
                if calls.calls < self.settings.probes {
                    return None;
                }
                let Tally { calls: probes, failures, slow } = calls;
                if self.settings.against(calls).is_some() {
                    // Half-open => open.
                    Some(self.open(now, calls, Why::ProbeFailed { failures, slow, probes }))
                } else {
                    // Half-open => closed.
                    Some(self.close(now, Why::Probed { probes }))
                }
            }
            // A result of an earlier state, or of a bystander.
            _ => None,
        }
    }

    /// Does what an operator says. Leaving a forced state for [`Forced::Auto`] starts closed, with an empty
    /// window; saying again what already holds changes nothing.
    ///
    /// The transition is that of the visible state: forcing an open breaker open gives none.
    pub fn force(&mut self, forced: Forced, now: Instant) -> Option<Transition> {
        if forced == self.forced() {
            return None;
        }
        let before = self.state();
        match forced {
            // Any => forced open.
            Forced::Open => self.enter(Phase::ForcedOpen),
            // Any => forced closed.
            Forced::Closed => self.enter(Phase::ForcedClosed),
            // Forced open, forced closed => closed.
            Forced::Auto => {
                let _ = self.close(now, Why::Forced);
            }
        }
        let to = self.state();
        (to != before).then_some(Transition { to, why: Why::Forced })
    }

    /// Takes new settings, and keeps its state: a reload in the middle of an outage must not send all
    /// traffic back to a service that is down.
    ///
    /// Another `window` begins empty. A half-open breaker begins its probing anew, because the number of
    /// probes may be another one.
    pub fn reconfigure(&mut self, settings: Settings, now: Instant) {
        let other_window = settings.window != self.settings.window;
        self.settings = settings;
        match &mut self.phase {
            Phase::Closed { window } if other_window => *window = Window::new(self.start, self.settings.window, now),
            // Half-open => half-open.
            Phase::HalfOpen { .. } => self.enter(Phase::HalfOpen { outstanding: 0, results: Tally::default() }),
            Phase::Closed { .. } | Phase::Open { .. } | Phase::ForcedOpen | Phase::ForcedClosed => {}
        }
    }

    /// The state, as callers feel it (or would, were it not observing).
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } | Phase::ForcedClosed => State::Closed,
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::Open { .. } | Phase::ForcedOpen => State::Open,
        }
    }

    /// What an operator has forced.
    pub fn forced(&self) -> Forced {
        match self.phase {
            Phase::Closed { .. } | Phase::HalfOpen { .. } | Phase::Open { .. } => Forced::Auto,
            Phase::ForcedOpen => Forced::Open,
            Phase::ForcedClosed => Forced::Closed,
        }
    }

    /// How it stands now, for people.
    pub fn view(&self, now: Instant) -> View {
        let mut probes_in = None;
        let calls = match &self.phase {
            Phase::Closed { window } => window.tally(now),
            Phase::HalfOpen { results, .. } => *results,
            Phase::Open { since, calls } => {
                let waited = now.saturating_duration_since(*since);
                probes_in = Some(self.settings.open_for.saturating_sub(waited));
                *calls
            }
            Phase::ForcedOpen | Phase::ForcedClosed => Tally::default(),
        };
        let Tally { calls, failures, slow } = calls;
        let (state, forced, mode) = (self.state(), self.forced(), self.settings.mode);
        View { state, forced, mode, calls, failures, slow, probes_in }
    }

    /// A refusal, or what observing makes of it.
    fn would_refuse(&self, retry_after: Option<Duration>) -> Verdict {
        match self.settings.mode {
            Mode::On => Verdict::Refuse { retry_after },
            Mode::Observe => Verdict::Admit(Ticket(Role::Bystander)),
        }
    }

    fn open(&mut self, now: Instant, calls: Tally, why: Why) -> Transition {
        self.enter(Phase::Open { since: now, calls });
        Transition { to: State::Open, why }
    }

    fn close(&mut self, now: Instant, why: Why) -> Transition {
        self.enter(Phase::Closed { window: Window::new(self.start, self.settings.window, now) });
        Transition { to: State::Closed, why }
    }

    fn enter(&mut self, phase: Phase) {
        self.epoch += 1;
        self.phase = phase;
    }
}
