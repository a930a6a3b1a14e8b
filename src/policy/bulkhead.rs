//! The bulkhead: may one more call to this service be outstanding?
//!
//! A slow service must not take its caller down with it. The bulkhead lets `max` calls be outstanding at
//! once; `queue` more may wait for a place, first come, first served; everyone else is refused at once.
//! It counts *calls*, retries and all: what it bounds is what a slow service costs us, not how often we try.
//!
//! Rules:
//! - Nobody passes those who wait: as long as somebody waits, a place that falls free goes to the first of
//!   them, and stays taken on the way.
//! - A waiter that gives up may have been admitted a moment before, by another thread.
//!   [`Bulkhead::give_up`] says so, and the permit is then its own to release.
//! - After a smaller limit (a reload) calls above it end in their own time; nobody new comes in before the
//!   count has fallen below. Nobody who waits is sent away.
//!
//! It is an account, and no more. Wakers, guards and the wait limit belong to the shell, which maps each
//! [`WaiterId`] to whom it has to wake. `per_endpoint` is a plain count per endpoint, and is looked at
//! where an endpoint is picked. Left out: adaptive limits.

use std::time::Duration;

use super::queue::{Queue, Ticket};

/// The limit on a service's outstanding calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Calls outstanding at once, over all workers. Default 100.
    pub max: u32,
    /// Calls that may wait for a place. Default 0: a full bulkhead refuses at once.
    pub queue: u32,
    /// How long a call may wait for a place. Default 50 ms; counts against the call's deadline.
    pub wait: Duration,
    /// Attempts outstanding at once at one endpoint. Off by default.
    pub per_endpoint: Option<u32>,
    /// How the limit follows the service's latency; `max` is its ceiling. Off by default.
    pub adaptive: Option<super::adaptive::Settings>,
    /// How much calls matter whose path begins so; the first that fits holds. None by default.
    pub priorities: Vec<(String, Priority)>,
}

/// How much a call matters when not all can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// More than any other.
    Critical,
    /// More than most.
    High,
    /// As much as most.
    Normal,
    /// Less than most.
    Low,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max: 100,
            queue: 0,
            wait: Duration::from_millis(50),
            per_endpoint: None,
            adaptive: None,
            priorities: Vec::new(),
        }
    }
}

/// One service's bulkhead. While anybody waits, every place is taken.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    max: u32,
    may_wait: u32,
    in_flight: u32,
    queue: Queue,
}

/// One call's stay in the queue; never used again for another. Later ones compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(Ticket);

/// Whether a call may go ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It may, and holds a permit that must be released exactly once.
    Admit,
    /// It may wait: it will be named by [`Bulkhead::release`] or [`Bulkhead::resize`], or gives up.
    Queue(WaiterId),
    /// It may not: every place is taken, in the queue too.
    Refuse,
}

/// How a waiter that gives up stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum GaveUp {
    /// It has left the queue, and holds nothing.
    Left,
    /// It had been admitted already: it holds a permit now, which it must release.
    AlreadyAdmitted,
}

/// A bulkhead, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Calls outstanding; above the limit only after a reload that lowered it.
    pub in_flight: u32,
    /// Calls that may be outstanding at once.
    pub limit: u32,
    /// Calls waiting for a place.
    pub queued: u32,
    /// Calls that may wait.
    pub queue: u32,
}

impl Bulkhead {
    /// An empty bulkhead.
    pub fn new(settings: Settings) -> Self {
        Self { max: settings.max, may_wait: settings.queue, in_flight: 0, queue: Queue::default() }
    }

    /// May one more call be outstanding?
    pub fn admit(&mut self) -> Verdict {
        if self.in_flight < self.max {
            self.in_flight += 1;
            Verdict::Admit
        } else if self.queue.len() < self.may_wait {
            Verdict::Queue(WaiterId(self.queue.join()))
        } else {
            Verdict::Refuse
        }
    }

    /// Takes a permit back, and passes it on: the waiter that is named holds it from now on.
    #[must_use = "the waiter holds a permit, and must be told"]
    pub fn release(&mut self) -> Option<WaiterId> {
        // A permit given back twice is a fault of the shell's; it must not make room for ever.
        self.in_flight = self.in_flight.saturating_sub(1);
        self.serve()
    }

    /// A waiter waits no longer: its time is over, or its caller went away. To be said once a waiter.
    pub fn give_up(&mut self, waiter: WaiterId) -> GaveUp {
        if self.queue.leave(waiter.0) { GaveUp::Left } else { GaveUp::AlreadyAdmitted }
    }

    /// Takes new limits; the waiters that are named hold a permit from now on.
    #[must_use = "these waiters hold permits, and must be told"]
    pub fn resize(&mut self, settings: Settings) -> Vec<WaiterId> {
        self.max = settings.max;
        self.may_wait = settings.queue;
        std::iter::from_fn(|| self.serve()).collect()
    }

    /// How it stands, for people.
    pub fn view(&self) -> View {
        View { in_flight: self.in_flight, limit: self.max, queued: self.queue.len(), queue: self.may_wait }
    }

    /// Admits who has waited longest, where there is room.
    fn serve(&mut self) -> Option<WaiterId> {
        if self.in_flight >= self.max {
            return None;
        }
        let ticket = self.queue.serve()?;
        self.in_flight += 1;
        Some(WaiterId(ticket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulkhead(max: u32, queue: u32) -> Bulkhead {
        Bulkhead::new(settings(max, queue))
    }

    fn settings(max: u32, queue: u32) -> Settings {
        Settings { max, queue, ..Settings::default() }
    }

    fn queued(bulkhead: &mut Bulkhead) -> WaiterId {
        match bulkhead.admit() {
            Verdict::Queue(id) => id,
            other => panic!("{other:?} instead of a place in the queue"),
        }
    }

    #[test]
    fn it_admits_then_queues_then_refuses() {
        let mut b = bulkhead(2, 1);
        assert_eq!(b.admit(), Verdict::Admit);
        assert_eq!(b.admit(), Verdict::Admit);
        let _ = queued(&mut b);
        assert_eq!(b.admit(), Verdict::Refuse);
        assert_eq!(b.view(), View { in_flight: 2, limit: 2, queued: 1, queue: 1 });
    }

    #[test]
    fn by_default_a_full_one_refuses_at_once() {
        let mut b = Bulkhead::new(Settings::default());
        assert!((0..100).all(|_| b.admit() == Verdict::Admit));
        assert_eq!(b.admit(), Verdict::Refuse);
        assert_eq!(b.release(), None);
        assert_eq!(b.admit(), Verdict::Admit);
    }

    #[test]
    fn a_permit_passes_to_who_has_waited_longest() {
        let mut b = bulkhead(1, 3);
        assert_eq!(b.admit(), Verdict::Admit);
        let (first, second, third) = (queued(&mut b), queued(&mut b), queued(&mut b));
        assert_eq!(b.give_up(second), GaveUp::Left);
        assert_eq!(b.release(), Some(first));
        assert_eq!(b.view().in_flight, 1, "the permit passed on, it did not fall free");
        let fourth = queued(&mut b);
        assert_eq!(b.release(), Some(third));
        assert_eq!(b.release(), Some(fourth));
        assert_eq!(b.release(), None);
        assert_eq!(b.view().in_flight, 0);
    }

    #[test]
    fn who_gives_up_too_late_holds_a_permit() {
        let mut b = bulkhead(1, 1);
        assert_eq!(b.admit(), Verdict::Admit);
        let waiter = queued(&mut b);
        assert_eq!(b.release(), Some(waiter));
        assert_eq!(b.give_up(waiter), GaveUp::AlreadyAdmitted);
        assert_eq!(b.view().in_flight, 1);
        assert_eq!(b.release(), None);
        assert_eq!(b.view().in_flight, 0);
    }

    #[test]
    fn a_place_in_the_queue_that_is_used_again_is_another_waiter() {
        let mut b = bulkhead(1, 1);
        assert_eq!(b.admit(), Verdict::Admit);
        let early = queued(&mut b);
        assert_eq!(b.release(), Some(early));
        let late = queued(&mut b);
        assert_eq!(b.give_up(early), GaveUp::AlreadyAdmitted);
        assert_eq!(b.view().queued, 1, "the late one still waits");
        assert_eq!(b.give_up(late), GaveUp::Left);
    }

    #[test]
    fn a_greater_limit_admits_as_many_as_fit() {
        let mut b = bulkhead(1, 5);
        assert_eq!(b.admit(), Verdict::Admit);
        let waiters: Vec<_> = (0..5).map(|_| queued(&mut b)).collect();
        assert_eq!(b.resize(settings(4, 5)), waiters[..3]);
        assert_eq!(b.view(), View { in_flight: 4, limit: 4, queued: 2, queue: 5 });
    }

    #[test]
    fn a_smaller_limit_waits_for_calls_to_end() {
        let mut b = bulkhead(3, 2);
        assert!((0..3).all(|_| b.admit() == Verdict::Admit));
        let waiters = [queued(&mut b), queued(&mut b)];
        assert_eq!(b.resize(settings(1, 0)), []);
        assert_eq!(b.admit(), Verdict::Refuse);
        assert_eq!(b.release(), None);
        assert_eq!(b.release(), None);
        assert_eq!(b.release(), Some(waiters[0]));
        assert_eq!(b.release(), Some(waiters[1]));
        assert_eq!(b.release(), None);
        assert_eq!(b.view(), View { in_flight: 0, limit: 1, queued: 0, queue: 0 });
    }

    #[test]
    fn a_permit_given_back_twice_makes_no_room() {
        let mut b = bulkhead(1, 0);
        assert_eq!(b.release(), None);
        assert_eq!(b.admit(), Verdict::Admit);
        assert_eq!(b.admit(), Verdict::Refuse);
    }
}
