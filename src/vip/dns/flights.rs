//! Questions that are being passed on right now, and who waits for each: pure.
//!
//! A question is asked once, however many want to know. Everything here is bounded, since clients decide how much there
//! is: of questions, of those who wait for one, and of all who wait.

use std::collections::HashMap;

use crate::net::resolve::Relay;

/// Questions under way at once.
const QUESTIONS: usize = 512;
/// Who may wait for one question.
const FOR_ONE: usize = 1024;
/// Who may wait in all.
const IN_ALL: usize = 4096;

/// Questions under way, each with those that wait for it.
#[derive(Debug)]
pub(super) struct Flights<W> {
    by_question: HashMap<Relay, Vec<W>>,
    waiting: usize,
}

/// What becomes of who wants to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Boarded<W> {
    /// It is the first, and has to ask.
    First,
    /// It waits with others.
    Along,
    /// There are too many already.
    Full(W),
}

impl<W> Default for Flights<W> {
    fn default() -> Self {
        Self { by_question: HashMap::new(), waiting: 0 }
    }
}

impl<W> Flights<W> {
    /// Has somebody wait for a question's answer.
    pub(super) fn board(&mut self, relay: &Relay, who: W) -> Boarded<W> {
        if self.waiting >= IN_ALL {
            return Boarded::Full(who);
        }
        if let Some(waiting) = self.by_question.get_mut(relay) {
            if waiting.len() >= FOR_ONE {
                return Boarded::Full(who);
            }
            waiting.push(who);
            self.waiting += 1;
            return Boarded::Along;
        }
        if self.by_question.len() >= QUESTIONS {
            return Boarded::Full(who);
        }
        self.by_question.insert(relay.clone(), vec![who]);
        self.waiting += 1;
        Boarded::First
    }

    /// Who has waited for a question, which is answered now.
    pub(super) fn land(&mut self, relay: &Relay) -> Vec<W> {
        let waiting = self.by_question.remove(relay).unwrap_or_default();
        self.waiting -= waiting.len();
        waiting
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::{
        op::Query,
        rr::{Name, RecordType},
    };

    use super::*;

    fn relay(i: usize) -> Relay {
        let query = Query::query(Name::from_ascii(format!("n{i}.")).unwrap(), RecordType::A);
        Relay { query, dnssec_ok: false, checking_disabled: false, except: None }
    }

    #[test]
    fn one_asks_and_all_learn() {
        let mut flights = Flights::default();
        assert_eq!(flights.board(&relay(1), "a"), Boarded::First);
        assert_eq!(flights.board(&relay(1), "b"), Boarded::Along);
        assert_eq!(flights.board(&relay(2), "c"), Boarded::First);
        assert_eq!(flights.land(&relay(1)), ["a", "b"]);
        assert_eq!(flights.land(&relay(1)), [""; 0]);
        assert_eq!(flights.board(&relay(1), "d"), Boarded::First);
    }

    #[test]
    fn every_number_has_its_limit_and_comes_back() {
        let mut flights = Flights::default();
        let mut boarded = |questions: usize, each: usize| {
            let all = (0..questions).flat_map(|q| (0..each).map(move |_| q));
            let full = all.filter(|q| flights.board(&relay(*q), ()) == Boarded::Full(())).count();
            (0..questions).for_each(|q| drop(flights.land(&relay(q))));
            (questions * each - full, flights.waiting)
        };
        assert_eq!(boarded(1, 2000), (FOR_ONE, 0));
        assert_eq!(boarded(1000, 1), (QUESTIONS, 0));
        assert_eq!(boarded(QUESTIONS, 100), (IN_ALL, 0));
        assert_eq!(boarded(1, 1), (1, 0));
    }
}
