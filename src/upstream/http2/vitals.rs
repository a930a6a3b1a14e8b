//! Whether there is a peer at the other end, asked as rarely as can be.
//!
//! A peer that has lost its power sends no FIN. Whoever waits for it asks by a PING (RFC 9113 §6.7) after ten
//! seconds of silence; what is not answered within five is dead, and all its calls fail at once.
//!
//! Servers of gRPC count PINGs: more than two without a head or data of theirs in between, within five minutes,
//! and they close the connection with ENHANCE_YOUR_CALM, "too_many_pings". So one that was answered is not
//! repeated in the same silence before five minutes have passed, and samples for the window are taken only
//! while data flow.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{trunk::Trunk, window::Window};

/// Silence after which a peer with open streams is asked.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// How long it may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// From one PING to the next in the same silence.
pub(super) const REPEAT: Duration = Duration::from_secs(300);

/// How long a connection without streams may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why the calls on a dead connection fail.
const DEAD: &str = "the endpoint has fallen silent, and does not answer a PING either";

/// What a look at a connection has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is to be done before something happens.
    Well,
    /// There is something to be written.
    Speaks,
    /// Nobody is there.
    Over,
}

/// What is to happen, and when.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Ask(Instant),
    GiveUp(Instant),
    Close(Instant),
}

/// How one connection is.
pub(super) struct Vitals {
    pings: PingPong,
    /// When the PING that has not been answered yet was sent.
    asked: Option<Instant>,
    /// The last PING: when, and how much the streams had heard by then.
    last: Option<(Instant, u64)>,
    /// When the peer was last heard, and how often by then.
    heard: (Instant, u64),
    /// Since when there is nothing left to do but to close.
    leaving: Option<Instant>,
    window: Window,
    alarm: Pin<Box<Sleep>>,
    /// The alarm is set, for then.
    set: Option<Instant>,
}

impl Vitals {
    pub(super) fn new(pings: PingPong, trunk: &Trunk) -> Self {
        let now = Instant::now();
        Self {
            pings,
            asked: None,
            last: None,
            heard: (now, trunk.traffic.reads()),
            leaving: None,
            window: Window::new(),
            alarm: Box::pin(sleep_until(now)),
            set: None,
        }
    }

    /// Looks at the connection, after it has been polled. `widen` has the peer told of another window; it may
    /// decline.
    pub(super) fn check(&mut self, cx: &mut Context<'_>, trunk: &Trunk, mut widen: impl FnMut(u32) -> bool) -> Verdict {
        let now = Instant::now();
        let reads = trunk.traffic.reads();
        if reads != self.heard.1 {
            self.heard = (now, reads);
        }
        if let Some(asked) = self.asked
            && let Poll::Ready(Ok(_)) = self.pings.poll_pong(cx)
        {
            self.asked = None;
            if let Some(size) = self.window.sample(trunk.taken(), now - asked, now)
                && widen(size)
            {
                self.window.set(size);
                return Verdict::Speaks;
            }
        }
        if self.asked.is_none() && self.window.wants_sample(trunk.taken(), now) && self.ask(trunk, now) {
            return Verdict::Speaks;
        }
        self.follow(cx, trunk, now)
    }

    /// Does what the time has come for, and sets the alarm for the rest.
    fn follow(&mut self, cx: &mut Context<'_>, trunk: &Trunk, mut now: Instant) -> Verdict {
        loop {
            let due = match self.plan(trunk, now) {
                None => return Verdict::Well,
                Some(Plan::Close(due)) if due <= now => return Verdict::Over,
                Some(Plan::GiveUp(due)) if due <= now => {
                    trunk.give_up(DEAD);
                    return Verdict::Over;
                }
                Some(Plan::Ask(due)) if due <= now => {
                    // It can fail only on a connection that is over, which is told elsewhere.
                    return if self.ask(trunk, now) { Verdict::Speaks } else { Verdict::Well };
                }
                Some(Plan::Close(due) | Plan::GiveUp(due) | Plan::Ask(due)) => due,
            };
            // What is due later than the alarm rings is looked at then: life goes on, and moves it all the time.
            if self.set.is_none_or(|set| due < set) {
                self.alarm.as_mut().reset(due);
                self.set = Some(due);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Verdict::Well;
            }
            self.set = None;
            now = Instant::now();
        }
    }

    fn plan(&mut self, trunk: &Trunk, now: Instant) -> Option<Plan> {
        let busy = !trunk.is_idle();
        let silent = self.heard.0.max(Instant::from_std(trunk.unheard_since()));
        let suspect = trunk.is_suspect();
        if suspect && !busy && self.asked.is_none() && !self.may_ask(trunk, now) {
            // Nobody waits for it, and it cannot be found out whether anybody should.
            trunk.retire();
        }
        if !busy && !trunk.is_usable() {
            return Some(Plan::Close(*self.leaving.get_or_insert(now) + GOODBYE));
        }
        self.leaving = None;
        if let Some(asked) = self.asked {
            return (busy || suspect).then(|| Plan::GiveUp(asked.max(silent) + PATIENCE));
        }
        if suspect && self.may_ask(trunk, now) {
            return Some(Plan::Ask(now));
        }
        let due = silent + SILENCE;
        busy.then(|| Plan::Ask(self.next_ask(trunk).map_or(due, |next| due.max(next))))
    }

    /// When the next PING may be sent, if not at any time.
    fn next_ask(&self, trunk: &Trunk) -> Option<Instant> {
        self.last.filter(|(_, answers)| *answers == trunk.answers()).map(|(at, _)| at + REPEAT)
    }

    fn may_ask(&self, trunk: &Trunk, now: Instant) -> bool {
        self.next_ask(trunk).is_none_or(|next| now >= next)
    }

    fn ask(&mut self, trunk: &Trunk, now: Instant) -> bool {
        let asks = self.pings.send_ping(Ping::opaque()).is_ok();
        if asks {
            self.asked = Some(now);
            self.last = Some((now, trunk.answers()));
            trunk.start_sample();
        }
        asks
    }
}
