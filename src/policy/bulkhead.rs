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
//! - Once calls are told apart by priority, the last places are for those that matter: `low` calls may take four fifths
//!   of them, `normal` ones nine tenths, `high` ones all but a twentieth. The most important waiter is served first, and
//!   a call that finds the queue full takes the place of the least important one in it, if it matters more itself.
//!   Where nobody tells calls apart, all of them are `normal`, and may take every place.
//!
//! It is an account, and no more. Wakers, guards and the wait limit belong to the shell, which maps each
//! [`WaiterId`] to whom it has to wake. `per_endpoint` is a plain count per endpoint, and is looked at
//! where an endpoint is picked. A limit that follows latency is `adaptive`.

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

impl Priority {
    /// Every priority, the most important first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The priority that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == word)
    }
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
    queues: [Queue; 4],
    /// Calls are told apart.
    graded: bool,
}

/// One call's stay in the queue; never used again for another. Later ones compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(Ticket, Priority);

/// Whether a call may go ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It may, and holds a permit that must be released exactly once.
    Admit,
    /// It may wait: it will be named by [`Bulkhead::release`] or [`Bulkhead::resize`], or gives up.
    Queue(WaiterId),
    /// It may wait, in the place of a waiter that matters less, which is refused now.
    Displace {
        /// Who waits.
        waiter: WaiterId,
        /// Who waits no longer.
        refused: WaiterId,
    },
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
        let graded = !settings.priorities.is_empty();
        Self { max: settings.max, may_wait: settings.queue, in_flight: 0, queues: Default::default(), graded }
    }

    /// May one more call be outstanding?
    pub fn admit(&mut self) -> Verdict {
        self.admit_as(Priority::Normal)
    }

    /// May one more call of this priority be outstanding?
    pub fn admit_as(&mut self, priority: Priority) -> Verdict {
        self.graded |= priority != Priority::Normal;
        if self.in_flight < self.allowance(priority) {
            self.in_flight += 1;
            return Verdict::Admit;
        }
        if self.queued() < self.may_wait {
            return Verdict::Queue(WaiterId(self.queues[priority as usize].join(), priority));
        }
        let least = Priority::ALL.into_iter().rev().find_map(|p| Some(WaiterId(self.queues[p as usize].last()?, p)));
        match least.filter(|least| least.1 > priority) {
            Some(refused) => {
                self.queues[refused.1 as usize].leave(refused.0);
                let waiter = WaiterId(self.queues[priority as usize].join(), priority);
                Verdict::Displace { waiter, refused }
            }
            None => Verdict::Refuse,
        }
    }

    /// How many calls may be outstanding for one more of this priority to come in.
    fn allowance(&self, priority: Priority) -> u32 {
        let of = |percent: u64| (u64::from(self.max) * percent).div_ceil(100) as u32;
        match priority {
            _ if !self.graded => self.max,
            Priority::Critical => self.max,
            Priority::High => of(95),
            Priority::Normal => of(90),
            Priority::Low => of(80),
        }
    }

    fn queued(&self) -> u32 {
        self.queues.iter().map(Queue::len).sum()
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
        if self.queues[waiter.1 as usize].leave(waiter.0) { GaveUp::Left } else { GaveUp::AlreadyAdmitted }
    }

    /// Takes new limits; the waiters that are named hold a permit from now on.
    #[must_use = "these waiters hold permits, and must be told"]
    pub fn resize(&mut self, settings: Settings) -> Vec<WaiterId> {
        self.max = settings.max;
        self.may_wait = settings.queue;
        self.graded |= !settings.priorities.is_empty();
        std::iter::from_fn(|| self.serve()).collect()
    }

    /// Takes another limit, and nothing else; the waiters that are named hold a permit from now on.
    #[must_use = "these waiters hold permits, and must be told"]
    pub fn limit_to(&mut self, max: u32) -> Vec<WaiterId> {
        self.max = max;
        std::iter::from_fn(|| self.serve()).collect()
    }

    /// How it stands, for people.
    pub fn view(&self) -> View {
        View { in_flight: self.in_flight, limit: self.max, queued: self.queued(), queue: self.may_wait }
    }

    /// Admits the most important waiter, of those the one that has waited longest, where there is room for it.
    fn serve(&mut self) -> Option<WaiterId> {
        let fits = |priority: &Priority| self.in_flight < self.allowance(*priority);
        let waiting = Priority::ALL.into_iter().filter(fits).find(|p| self.queues[*p as usize].len() > 0)?;
        let ticket = self.queues[waiting as usize].serve()?;
        self.in_flight += 1;
        Some(WaiterId(ticket, waiting))
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
    fn where_calls_are_told_apart_the_last_places_are_for_those_that_matter() {
        let mut b = bulkhead(20, 0);
        assert_eq!(b.admit_as(Priority::Critical), Verdict::Admit);
        let admitted = |b: &mut Bulkhead, p| (0..).take_while(|_| b.admit_as(p) == Verdict::Admit).count();
        assert_eq!(admitted(&mut b, Priority::Low), 15, "four fifths of twenty");
        assert_eq!(admitted(&mut b, Priority::Normal), 2);
        assert_eq!(admitted(&mut b, Priority::High), 1);
        assert_eq!(admitted(&mut b, Priority::Critical), 1);
        assert_eq!(b.view().in_flight, 20);
    }

    #[test]
    fn who_matters_most_is_served_first_and_takes_the_place_of_who_matters_least() {
        let mut b = bulkhead(1, 2);
        assert_eq!(b.admit_as(Priority::Critical), Verdict::Admit);
        let Verdict::Queue(first) = b.admit_as(Priority::Low) else { panic!("a place in the queue") };
        let Verdict::Queue(second) = b.admit_as(Priority::Low) else { panic!("a place in the queue") };
        assert_eq!(b.admit_as(Priority::Low), Verdict::Refuse);
        let Verdict::Displace { waiter: high, refused } = b.admit_as(Priority::High) else {
            panic!("a displaced waiter")
        };
        assert_eq!(refused, second, "the youngest of the least");
        let Verdict::Displace { waiter: critical, refused } = b.admit_as(Priority::Critical) else {
            panic!("another one")
        };
        assert_eq!((refused, b.view().queued), (first, 2));
        assert_eq!(b.admit_as(Priority::Normal), Verdict::Refuse);
        assert_eq!((b.release(), b.release(), b.release()), (Some(critical), Some(high), None));
    }

    /// Whatever comes and goes in which order, nothing is lost: places, waiters and limits add up.
    #[test]
    fn a_random_life_adds_up() {
        for seed in 0..100 {
            let mut random = crate::model::Random::seeded(seed);
            let mut b = bulkhead(1 + random.below(20), random.below(8));
            let (mut permits, mut waiting) = (0u32, Vec::new());
            for step in 0..2_000 {
                let priority = Priority::ALL[random.below(4) as usize];
                match random.below(10) {
                    0..5 => match b.admit_as(priority) {
                        Verdict::Admit => permits += 1,
                        Verdict::Queue(id) => waiting.push(id),
                        Verdict::Displace { waiter, refused } => {
                            assert!(refused.1 > waiter.1, "seed {seed}");
                            waiting.retain(|id| *id != refused);
                            waiting.push(waiter);
                        }
                        Verdict::Refuse => {}
                    },
                    5..8 if permits > 0 => match b.release() {
                        Some(id) => {
                            assert!(
                                waiting.iter().all(|other| other.1 >= id.1),
                                "seed {seed}: {id:?} before {waiting:?}"
                            );
                            waiting.retain(|other| *other != id);
                        }
                        None => permits -= 1,
                    },
                    8 if !waiting.is_empty() => {
                        let id = waiting.remove(random.below(waiting.len() as u32) as usize);
                        assert_eq!(b.give_up(id), GaveUp::Left, "seed {seed}");
                    }
                    9 => {
                        for id in b.limit_to(1 + random.below(20)) {
                            waiting.retain(|other| *other != id);
                            permits += 1;
                        }
                    }
                    _ => {}
                }
                let view = b.view();
                assert_eq!((view.in_flight, view.queued), (permits, waiting.len() as u32), "seed {seed}, step {step}");
                assert!(view.queued <= view.queue);
            }
        }
    }

    #[test]
    fn a_permit_given_back_twice_makes_no_room() {
        let mut b = bulkhead(1, 0);
        assert_eq!(b.release(), None);
        assert_eq!(b.admit(), Verdict::Admit);
        assert_eq!(b.admit(), Verdict::Refuse);
    }
}
