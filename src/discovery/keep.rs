//! What is believed of a source: the last good set, and when to let go of it.
//!
//! Two mistakes have made this rule. Proxies that emptied a pool on one bad DNS answer turned a resolver's
//! hiccup into an outage; proxies that then never emptied it again sent calls to addresses that had long
//! been somebody else's. So a failure changes nothing, however long it lasts, since it says nothing; a
//! definite "there are none" is believed once it has been true for the `hold` time.
//!
//! Pure: the caller brings the time.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Sight;
use crate::{
    model::{Endpoint, EndpointSet},
    telemetry::metrics::LookResult,
};

/// The belief about one source.
#[derive(Debug)]
pub(super) struct Keeper {
    hold: Duration,
    set: EndpointSet,
    state: State,
    last_answer: Option<Instant>,
    problem: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The source has not said anything definite yet. The set is empty.
    Unknown,
    /// The set is what the source said last.
    Live,
    /// The source says that there are none; the set is kept until this time.
    Held { until: Instant },
    /// As `Held`, but the source has failed since: the set is not dropped while nobody knows.
    Doubted { until: Instant },
    /// The source says that there are none, and none there are.
    Empty,
}

impl Keeper {
    /// Nothing is known yet. `hold` is how long a set is kept that the source says is gone.
    pub(super) fn new(hold: Duration) -> Self {
        let set = EndpointSet::empty();
        Self { hold, set, state: State::Unknown, last_answer: None, problem: None }
    }

    pub(super) fn set(&self) -> &EndpointSet {
        &self.set
    }

    pub(super) fn last_answer(&self) -> Option<Instant> {
        self.last_answer
    }

    pub(super) fn problem(&self) -> Option<&Arc<str>> {
        self.problem.as_ref()
    }

    /// When the set is dropped, unless the source says otherwise by then.
    pub(super) fn drop_at(&self) -> Option<Instant> {
        match self.state {
            State::Held { until } => Some(until),
            _ => None,
        }
    }

    /// Takes in what a look saw.
    pub(super) fn hear(&mut self, sight: Sight, now: Instant) -> LookResult {
        match sight {
            Sight::Endpoints(endpoints, problem) if !endpoints.is_empty() => self.live(endpoints, problem, now),
            Sight::Endpoints(..) => self.gone("the answer holds no endpoints".into(), now),
            Sight::Gone(why) => self.gone(why, now),
            Sight::Failed(why) => self.failed(why),
        }
    }

    /// Drops the set if its time is over; whether that happened.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        match self.state {
            // Held => Empty
            State::Held { until } if until <= now => {
                self.drop_set();
                true
            }
            _ => false,
        }
    }

    // any state => Live
    fn live(&mut self, endpoints: Vec<Endpoint>, problem: Option<Arc<str>>, now: Instant) -> LookResult {
        self.state = State::Live;
        self.last_answer = Some(now);
        self.problem = problem;
        let set = EndpointSet::new(self.set.revision() + 1, endpoints);
        if set.same_endpoints(&self.set) {
            return LookResult::Unchanged;
        }
        self.set = set;
        LookResult::Changed
    }

    fn gone(&mut self, why: Arc<str>, now: Instant) -> LookResult {
        self.last_answer = Some(now);
        self.problem = Some(why);
        match self.state {
            // Unknown => Empty: there is nothing to hold.
            State::Unknown => self.state = State::Empty,
            // Live => Held; an endless hold ends never.
            State::Live => {
                self.state = match now.checked_add(self.hold) {
                    Some(until) => State::Held { until },
                    None => State::Live,
                };
            }
            // Doubted => Held, by the time that was set before the failure.
            State::Doubted { until } => self.state = State::Held { until },
            // Held, Empty => the same
            State::Held { .. } | State::Empty => {}
        }
        self.expire(now);
        LookResult::Empty
    }

    fn failed(&mut self, why: Arc<str>) -> LookResult {
        self.problem = Some(why);
        // Held => Doubted; all others stay.
        if let State::Held { until } = self.state {
            self.state = State::Doubted { until };
        }
        LookResult::Failed
    }

    fn drop_set(&mut self) {
        self.state = State::Empty;
        let dropped = mem::replace(&mut self.set, EndpointSet::empty());
        self.set = EndpointSet::new(dropped.revision() + 1, Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Origin, Random, SourceKind};

    const HOLD: u64 = 30;

    fn endpoints(hosts: &[u8]) -> Vec<Endpoint> {
        let endpoint = |host: &u8| Endpoint {
            addr: ([10, 0, 0, *host], 80).into(),
            weight: 1,
            priority: 0,
            authority: "orders:80".into(),
            origin: Origin { kind: SourceKind::Dns, detail: "orders".into() },
        };
        hosts.iter().map(endpoint).collect()
    }

    fn live(hosts: &[u8]) -> Sight {
        Sight::Endpoints(endpoints(hosts), None)
    }

    fn gone() -> Sight {
        Sight::Gone("NXDOMAIN".into())
    }

    fn failed() -> Sight {
        Sight::Failed("SERVFAIL".into())
    }

    struct Timeline {
        keeper: Keeper,
        start: Instant,
    }

    impl Timeline {
        fn new() -> Self {
            let start = tokio::time::Instant::now().into_std();
            Self { keeper: Keeper::new(Duration::from_secs(HOLD)), start }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        #[track_caller]
        fn hear(&mut self, second: u64, sight: Sight, result: LookResult, len: usize, revision: u64) {
            let now = self.at(second);
            self.keeper.expire(now);
            assert_eq!(self.keeper.hear(sight, now), result, "at {second}");
            assert_eq!((self.len(), self.keeper.set().revision()), (len, revision), "at {second}");
        }

        fn len(&self) -> usize {
            self.keeper.set().endpoints().len()
        }
    }

    #[test]
    fn only_another_set_is_a_change() {
        let mut t = Timeline::new();
        t.hear(0, live(&[1, 2]), LookResult::Changed, 2, 1);
        t.hear(1, live(&[2, 1]), LookResult::Unchanged, 2, 1);
        t.hear(2, live(&[2, 2]), LookResult::Changed, 1, 2);
        assert_eq!(t.keeper.problem(), None);
    }

    #[test]
    fn a_failure_keeps_the_set_for_good_and_says_why() {
        let mut t = Timeline::new();
        t.hear(0, live(&[1]), LookResult::Changed, 1, 1);
        t.hear(5, failed(), LookResult::Failed, 1, 1);
        t.hear(86_400, failed(), LookResult::Failed, 1, 1);
        assert_eq!(t.keeper.problem().map(|p| &**p), Some("SERVFAIL"));
        assert_eq!(t.keeper.last_answer(), Some(t.at(0)));
        t.hear(86_401, live(&[1]), LookResult::Unchanged, 1, 1);
        assert_eq!(t.keeper.problem(), None);
    }

    #[test]
    fn what_is_gone_is_dropped_after_the_hold_and_not_before() {
        let mut t = Timeline::new();
        t.hear(0, live(&[1]), LookResult::Changed, 1, 1);
        t.hear(10, gone(), LookResult::Empty, 1, 1);
        assert_eq!(t.keeper.drop_at(), Some(t.at(40)));
        t.hear(20, gone(), LookResult::Empty, 1, 1);
        assert!(!t.keeper.expire(t.at(40) - Duration::from_nanos(1)));
        assert!(t.keeper.expire(t.at(40)));
        assert_eq!((t.len(), t.keeper.set().revision()), (0, 2));
        assert!(!t.keeper.expire(t.at(41)), "it is dropped once");
        t.hear(50, gone(), LookResult::Empty, 0, 2);
        t.hear(60, live(&[1]), LookResult::Changed, 1, 3);
    }

    #[test]
    fn what_comes_back_in_time_was_never_away() {
        let mut t = Timeline::new();
        t.hear(0, live(&[1]), LookResult::Changed, 1, 1);
        t.hear(10, gone(), LookResult::Empty, 1, 1);
        t.hear(39, live(&[1]), LookResult::Unchanged, 1, 1);
        assert_eq!(t.keeper.drop_at(), None);
        t.hear(60, gone(), LookResult::Empty, 1, 1);
        assert_eq!(t.keeper.drop_at(), Some(t.at(90)), "the hold starts anew");
    }

    #[test]
    fn a_failure_puts_the_drop_off_but_does_not_start_the_hold_anew() {
        let mut t = Timeline::new();
        t.hear(0, live(&[1]), LookResult::Changed, 1, 1);
        t.hear(10, gone(), LookResult::Empty, 1, 1);
        t.hear(30, failed(), LookResult::Failed, 1, 1);
        assert_eq!(t.keeper.drop_at(), None);
        t.hear(50, failed(), LookResult::Failed, 1, 1);
        t.hear(51, gone(), LookResult::Empty, 0, 2);
    }

    #[test]
    fn a_source_that_starts_with_nothing_has_nothing_to_hold() {
        let mut t = Timeline::new();
        t.hear(0, failed(), LookResult::Failed, 0, 0);
        t.hear(1, gone(), LookResult::Empty, 0, 0);
        t.hear(2, Sight::Endpoints(Vec::new(), None), LookResult::Empty, 0, 0);
        t.hear(3, live(&[1]), LookResult::Changed, 1, 1);
    }

    #[test]
    fn no_hold_drops_at_once_and_an_endless_one_never() {
        let now = tokio::time::Instant::now().into_std();
        for (hold, left) in [(Duration::ZERO, 0), (Duration::MAX, 1)] {
            let mut keeper = Keeper::new(hold);
            keeper.hear(live(&[1]), now);
            keeper.hear(gone(), now);
            assert_eq!(keeper.set().endpoints().len(), left);
        }
    }

    /// Seeded; the seed stands in the message of a failure.
    #[test]
    fn over_any_history_the_invariants_hold() {
        for seed in 0..200 {
            let mut random = Random::seeded(seed);
            let mut t = Timeline::new();
            let mut second = 0;
            let mut gone_since = None;
            for _ in 0..300 {
                second += u64::from(random.below(12));
                let (before, revision) = (t.keeper.set().clone(), t.keeper.set().revision());
                let sight = match random.below(3) {
                    0 => live(&[random.below(3) as u8]),
                    1 => gone(),
                    _ => failed(),
                };
                match &sight {
                    Sight::Endpoints(..) => gone_since = None,
                    Sight::Gone(_) => gone_since = gone_since.or(Some(second)),
                    Sight::Failed(_) => {}
                }
                let failed = matches!(sight, Sight::Failed(_));
                t.keeper.hear(sight, t.at(second));
                let changed = !t.keeper.set().same_endpoints(&before);
                assert_eq!(changed, t.keeper.set().revision() != revision, "seed {seed}");
                assert!(!(failed && changed), "seed {seed}: a failure changed the set");
                if t.len() == 0 && before.endpoints().len() == 1 {
                    assert!(gone_since.is_some_and(|g| g + HOLD <= second), "seed {seed}: dropped early");
                }
            }
        }
    }
}
