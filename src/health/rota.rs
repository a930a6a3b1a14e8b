//! Whose turn it is: whoever has waited longest is asked first.
//!
//! The check of a dead endpoint takes its place for as long as a check may last. Were places given out in the table's
//! order, some hundreds of dead endpoints would come round again before anybody behind them was asked once.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    time::Instant,
};

/// When each is to be asked; nobody stands in it twice.
#[derive(Debug)]
pub(super) struct Rota<K> {
    turns: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
}

impl<K> Default for Rota<K> {
    fn default() -> Self {
        Self { turns: BTreeSet::new(), due: HashMap::new() }
    }
}

impl<K: Clone + Ord + Hash> Rota<K> {
    /// To be asked then, and no more when it was to be asked before.
    pub(super) fn set(&mut self, who: K, due: Instant) {
        self.strike(&who);
        self.due.insert(who.clone(), due);
        self.turns.insert((due, who));
    }

    /// Not to be asked.
    pub(super) fn strike(&mut self, who: &K) {
        if let Some(due) = self.due.remove(who) {
            self.turns.remove(&(due, who.clone()));
        }
    }

    /// Who is due and has waited longest; its turn is over with that.
    pub(super) fn next(&mut self, now: Instant) -> Option<K> {
        if self.first()? > now {
            return None;
        }
        let (_, who) = self.turns.pop_first()?;
        self.due.remove(&who);
        Some(who)
    }

    /// When the first of them is due.
    pub(super) fn first(&self) -> Option<Instant> {
        self.turns.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a timeline needs some instant to count from")]
    fn nobody_is_asked_before_its_time_or_twice() {
        let start = Instant::now();
        let mut rota = Rota::default();
        for (who, due) in [("a", 5), ("b", 3), ("c", 9), ("b", 7), ("d", 1)] {
            rota.set(who, start + due * MS);
        }
        rota.strike(&"d");
        rota.strike(&"e");
        assert_eq!((rota.first(), rota.next(start + 4 * MS)), (Some(start + 5 * MS), None));
        assert_eq!((rota.next(start + 8 * MS), rota.next(start + 8 * MS)), (Some("a"), Some("b")));
        assert_eq!((rota.next(start + 8 * MS), rota.next(start + 9 * MS)), (None, Some("c")));
        assert_eq!((rota.first(), rota.next(start + 99 * MS)), (None, None));
    }

    /// Three places, and a check that lasts ten times as long as the pause: all wait about alike, but for ties.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a timeline needs some instant to count from")]
    fn all_have_their_turn_where_there_are_too_few_places() {
        let mut now = Instant::now();
        let (mut rota, mut asked) = (Rota::default(), [0; 20]);
        (0..20).for_each(|who| rota.set(who, now));
        for _ in 0..200 {
            let places: Vec<_> = (0..3).map_while(|_| rota.next(now)).collect();
            now += 10 * MS;
            for who in places {
                asked[who] += 1;
                rota.set(who, now + MS);
            }
        }
        assert!(asked.iter().all(|times| (25..=35).contains(times)), "{asked:?}");
    }
}
