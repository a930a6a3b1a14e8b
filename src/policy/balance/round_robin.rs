//! Round robin: each endpoint in turn, by weight, spread evenly.
//!
//! nginx's smooth weighted round robin: at each pick every usable endpoint gains its weight in credit, the
//! one with the most credit is picked, and pays what all have gained together. Weights 5, 1, 1 give
//! `a a b a c a a` instead of `a a a a a b c`. It looks at each endpoint, which is also what keeps it fair
//! when one is unusable: its turn is spread over all others, where skipping to the next in line would give
//! a neighbour twice its share.
//!
//! Each worker has turns of its own. They begin at a random point, because they begin again with each
//! change of the set: workers, and sidecars, that all began at the first endpoint would meet there.

use super::{
    Load,
    group::{Group, Layout},
};
use crate::model::Random;

/// Credit is counted in parts of a weight, so that endpoints of weight 1 can begin at different points too.
const PARTS: i64 = 256;

/// Whose turn it is: each endpoint's credit.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    credits: Vec<i64>,
}

impl Turns {
    /// Begins anew, at a random point.
    pub(super) fn begin(&mut self, layout: &Layout, random: &mut Random) {
        self.credits.clear();
        self.credits.extend((0..layout.len()).map(|place| (random.share() * gain(layout.weight(place)) as f64) as i64));
    }
}

/// What an endpoint gains at each pick.
fn gain(weight: u64) -> i64 {
    // 33 bits of weight and 8 of parts: the sum of four million of the heaviest still fits.
    weight as i64 * PARTS
}

/// The one whose turn it is.
pub(super) fn pick<L: Load, U: Fn(usize) -> bool>(group: &Group<'_, L, U>, turns: &mut Turns) -> Option<usize> {
    let mut gained = 0;
    let mut next: Option<(usize, i64)> = None;
    for place in group.usable() {
        let gain = gain(group.weight(place));
        let credit = &mut turns.credits[place];
        *credit += gain;
        gained += gain;
        if next.is_none_or(|(_, most)| *credit > most) {
            next = Some((place, *credit));
        }
    }
    let (place, _) = next?;
    turns.credits[place] -= gained;
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Settings, testing::*},
        *,
    };

    #[test]
    fn turns_are_spread_as_nginx_spreads_them() {
        let loads = endpoints(&[5, 1, 1]);
        let layout = Layout::of(&loads);
        let usable = |_: usize| true;
        let mut turns = Turns { credits: vec![0; 3] };
        let group = Group::new(&layout, 0, &loads, &usable);
        let picked: Vec<_> = (0..14).map(|_| pick(&group, &mut turns).unwrap()).collect();
        assert_eq!(picked, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn wherever_it_begins_each_round_is_exact() {
        for seed in 0..200 {
            let weights = [5, 1, 1, 3];
            let loads = endpoints(&weights);
            let mut picker = Picker::seeded(&Settings::RoundRobin, seed);
            for _ in 0..20 {
                assert_eq!(picker.count(10, &loads, |_| true), weights, "seed {seed}");
            }
        }
    }

    #[test]
    fn it_begins_anywhere() {
        let loads = endpoints(&[1; 4]);
        let mut first = [0; 4];
        for seed in 0..400 {
            first[Picker::seeded(&Settings::RoundRobin, seed).pick(&loads, |_| true).unwrap()] += 1;
        }
        assert!(first.iter().all(|n| (60..140).contains(n)), "{first:?}");
    }

    #[test]
    fn the_turn_of_an_unusable_one_is_spread_over_the_others() {
        let loads = endpoints(&[1; 5]);
        let picked = Picker::new(&Settings::RoundRobin).count(4_000, &loads, |i| i != 2);
        assert_eq!(picked, [1_000, 1_000, 0, 1_000, 1_000]);
    }

    #[test]
    fn one_that_comes_back_takes_no_arrears() {
        let loads = endpoints(&[1; 4]);
        let mut picker = Picker::new(&Settings::RoundRobin);
        let _ = picker.count(1_000, &loads, |i| i != 0);
        let picked = picker.count(40, &loads, |_| true);
        assert!((9..=11).contains(&picked[0]), "{picked:?}");
    }
}
