//! What the caller saw: counts and latencies by service, in all and by the second.
//!
//! Pure: a call's end goes in with its time since the start, figures come out. The last sixty seconds
//! are kept one by one, older ones only in the totals, so that an endless run holds no more than a
//! short one.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::histogram::Histogram;
use crate::model::{Outcome, Reason};

/// Seconds that are kept one by one.
pub(crate) const KEPT: usize = 60;
/// Instances told apart per service and second; the ones beyond are not counted.
const INSTANCES: usize = 1_000;

/// Nothing came back: the sidecar itself could not be reached, or broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAnswer;

/// A call that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// Which service was called, by its place in the list.
    pub service: usize,
    /// When it ended, since the start.
    pub at: Duration,
    /// How long it took, as the app feels it.
    pub took: Duration,
    /// Whether it was sent later than it was due.
    pub late: bool,
    /// How it ended.
    pub outcome: Result<Outcome, NoAnswer>,
    /// Which instance says that it answered.
    pub instance: Option<Arc<str>>,
}

/// Calls added up.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Calls that ended.
    pub calls: u64,
    /// Those among them that were sent later than they were due.
    pub late: u64,
    /// Calls that fell due and were not sent, because too many were outstanding.
    pub unsent: u64,
    /// Calls by [`Outcome::index`].
    outcomes: [u64; Outcome::COUNT],
    /// Calls that got nothing at all.
    pub no_answer: u64,
    /// How long all of them took.
    pub latency: Histogram,
    /// Instances that answered.
    pub instances: BTreeSet<Arc<str>>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            calls: 0,
            late: 0,
            unsent: 0,
            outcomes: [0; Outcome::COUNT],
            no_answer: 0,
            latency: Histogram::new(),
            instances: BTreeSet::new(),
        }
    }

    /// Calls that succeeded.
    pub(crate) fn ok(&self) -> u64 {
        self.outcomes[Outcome::Ok.index()]
    }

    /// Calls that got the upstream's own error.
    pub(crate) fn upstream_errors(&self) -> u64 {
        // The place does not depend on the status.
        self.outcomes[Outcome::of_status(http::StatusCode::BAD_GATEWAY).index()]
    }

    /// Calls that got a local reply for this reason.
    pub(crate) fn local(&self, reason: Reason) -> u64 {
        self.outcomes[Outcome::Failed(reason).index()]
    }

    /// Local replies by reason, those that were given.
    pub(crate) fn local_replies(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().map(|reason| (reason, self.local(reason))).filter(|&(_, count)| count > 0)
    }

    /// All local replies.
    pub(crate) fn all_local(&self) -> u64 {
        self.local_replies().map(|(_, count)| count).sum()
    }

    fn count(&mut self, call: &Ended) {
        self.calls += 1;
        self.late += u64::from(call.late);
        match call.outcome {
            Ok(outcome) => self.outcomes[outcome.index()] += 1,
            Err(NoAnswer) => self.no_answer += 1,
        }
        self.latency.record(call.took);
        if let Some(instance) = &call.instance
            && self.instances.len() < INSTANCES
        {
            self.instances.insert(Arc::clone(instance));
        }
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.late += other.late;
        self.unsent += other.unsent;
        self.no_answer += other.no_answer;
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(mine, theirs)| *mine += theirs);
        self.latency.add(&other.latency);
        let room = INSTANCES.saturating_sub(self.instances.len());
        self.instances.extend(other.instances.iter().take(room).cloned());
    }
}

/// One service's figures.
#[derive(Debug, Clone)]
pub(crate) struct ServiceStatistics {
    /// Its name.
    pub name: String,
    /// From the start to now.
    pub total: Tally,
    /// How long the calls took that the breaker refused.
    pub refused: Histogram,
    /// How long the calls took that got `request_timeout`.
    pub timed_out: Histogram,
    seconds: VecDeque<(u64, Tally)>,
}

impl ServiceStatistics {
    fn new(name: String) -> Self {
        Self {
            name,
            total: Tally::new(),
            refused: Histogram::new(),
            timed_out: Histogram::new(),
            seconds: VecDeque::with_capacity(KEPT),
        }
    }

    /// The calls that ended in this second (from 0) of the run; none when it is not kept any more.
    pub(crate) fn second(&self, second: u64) -> Option<&Tally> {
        self.seconds.iter().rev().find(|(number, _)| *number == second).map(|(_, tally)| tally)
    }

    /// The calls that ended in the `count` seconds before `second`.
    pub(crate) fn before(&self, second: u64, count: u64) -> Tally {
        let mut sum = Tally::new();
        (second.saturating_sub(count)..second).filter_map(|second| self.second(second)).for_each(|t| sum.add(t));
        sum
    }

    fn tally_of(&mut self, at: Duration) -> Option<&mut Tally> {
        let second = at.as_secs();
        match self.seconds.iter().rposition(|(number, _)| *number <= second) {
            Some(place) if self.seconds[place].0 == second => return self.seconds.get_mut(place).map(|(_, t)| t),
            // Older than all that is kept, and nothing may be put before that.
            None if self.seconds.len() == KEPT => return None,
            place => {
                let place = place.map_or(0, |place| place + 1);
                self.seconds.insert(place, (second, Tally::new()));
            }
        }
        if self.seconds.len() > KEPT {
            self.seconds.pop_front();
        }
        self.seconds.iter_mut().find(|(number, _)| *number == second).map(|(_, tally)| tally)
    }
}

/// The figures of every service that is called.
#[derive(Debug, Clone)]
pub(crate) struct Statistics {
    /// In the order in which they were given.
    pub services: Vec<ServiceStatistics>,
}

impl Statistics {
    /// Of these services, which nobody has called yet.
    pub(crate) fn new<'a>(services: impl IntoIterator<Item = &'a str>) -> Self {
        Self { services: services.into_iter().map(|name| ServiceStatistics::new(name.to_owned())).collect() }
    }

    /// Counts a call that ended.
    pub(crate) fn ended(&mut self, call: &Ended) {
        let Some(service) = self.services.get_mut(call.service) else { return };
        service.total.count(call);
        match call.outcome {
            Ok(Outcome::Failed(Reason::BreakerOpen)) => service.refused.record(call.took),
            Ok(Outcome::Failed(Reason::RequestTimeout)) => service.timed_out.record(call.took),
            _ => {}
        }
        if let Some(tally) = service.tally_of(call.at) {
            tally.count(call);
        }
    }

    /// Counts a call that fell due and could not be sent.
    pub(crate) fn unsent(&mut self, service: usize, at: Duration) {
        let Some(service) = self.services.get_mut(service) else { return };
        service.total.unsent += 1;
        if let Some(tally) = service.tally_of(at) {
            tally.unsent += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Random;

    fn ended(at_ms: u64, outcome: Result<Outcome, NoAnswer>) -> Ended {
        let took = Duration::from_millis(2);
        Ended { service: 0, at: Duration::from_millis(at_ms), took, late: false, outcome, instance: None }
    }

    #[test]
    fn a_call_counts_in_the_second_in_which_it_ends() {
        let mut statistics = Statistics::new(["orders"]);
        statistics.ended(&ended(999, Ok(Outcome::Ok)));
        statistics.ended(&ended(1_000, Ok(Outcome::Failed(Reason::BreakerOpen))));
        statistics.ended(&ended(1_500, Err(NoAnswer)));
        statistics.unsent(0, Duration::from_millis(1_700));
        let orders = &statistics.services[0];
        assert_eq!(orders.second(0).map(Tally::ok), Some(1));
        let second = orders.second(1).unwrap();
        assert_eq!((second.calls, second.ok(), second.all_local(), second.no_answer, second.unsent), (2, 0, 1, 1, 1));
        assert_eq!(orders.total.local_replies().collect::<Vec<_>>(), [(Reason::BreakerOpen, 1)]);
        assert_eq!(orders.before(2, 5).calls, 3);
        assert_eq!(orders.before(1, 1).calls, 1);
        assert!(orders.second(2).is_none());
    }

    #[test]
    fn sixty_seconds_are_kept_in_whatever_order_calls_end() {
        let seed = 11;
        println!("seed {seed}");
        let mut random = Random::seeded(seed);
        let mut statistics = Statistics::new(["orders"]);
        let mut newest = 0;
        for call in 0..20_000u64 {
            let at = (call * 20).saturating_sub(u64::from(random.below(90_000)));
            statistics.ended(&ended(at, Ok(Outcome::Ok)));
            newest = newest.max(at / 1_000);
            let seconds = &statistics.services[0].seconds;
            assert_eq!(seconds.back().map(|(number, _)| *number), Some(newest), "the newest is always kept");
            assert!(seconds.len() <= KEPT);
            assert!(seconds.iter().is_sorted_by(|a, b| a.0 < b.0), "seconds stand in order, each once");
        }
        assert_eq!(statistics.services[0].total.calls, 20_000);
    }

    #[test]
    fn instances_are_told_apart_up_to_a_limit() {
        let mut statistics = Statistics::new(["orders"]);
        for n in 0..2 * INSTANCES {
            let instance = Some(Arc::from(format!("orders-{n}")));
            statistics.ended(&Ended { instance, ..ended(5, Ok(Outcome::Ok)) });
        }
        assert_eq!(statistics.services[0].total.instances.len(), INSTANCES);
        assert_eq!(statistics.services[0].before(1, 1).instances.len(), INSTANCES);
    }
}
