//! Least request: the endpoint with the fewest outstanding calls for its weight.
//!
//! For calls whose length differs widely and whose endpoints are alike. Up to 64 endpoints all are looked
//! at; of more, eight random ones, because a look at each would cost more than the better choice is worth
//! (Mitzenmacher again: most of the gain comes with the second choice). Those that are level draw lots by
//! weight, so that idle endpoints share by weight instead of the first or the heaviest taking all.

use super::{
    Load,
    group::{Group, Lottery},
};
use crate::model::Random;

/// Groups up to this size are looked at whole.
const WHOLE: usize = 64;

/// Of larger groups, so many random ones are.
const CHOICES: usize = 8;

/// The one with the fewest outstanding calls for its weight.
pub(super) fn pick<L: Load, U: Fn(usize) -> bool>(group: &Group<'_, L, U>, random: &mut Random) -> Option<usize> {
    if group.len() <= WHOLE {
        return least(group, group.usable(), random);
    }
    // Drawn by weight already, so that level ones stay as they came.
    let first = group.draw(None, random)?;
    Some((1..CHOICES).fold(first, |best, _| match group.draw(Some(best), random) {
        Some(other) if less(group, other, best) => other,
        _ => best,
    }))
}

fn least<L: Load, U: Fn(usize) -> bool>(
    group: &Group<'_, L, U>,
    places: impl Iterator<Item = usize>,
    random: &mut Random,
) -> Option<usize> {
    let mut level = Lottery::default();
    for place in places {
        match level.winner() {
            Some(best) if less(group, best, place) => {}
            Some(best) if less(group, place, best) => level.restart(place, group.weight(place)),
            _ => level.enter(place, group.weight(place), random),
        }
    }
    level.winner()
}

/// Whether `this` has fewer outstanding calls than `that`, each for its weight. Exact: 32 × 33 bits.
fn less<L: Load, U: Fn(usize) -> bool>(group: &Group<'_, L, U>, this: usize, that: usize) -> bool {
    let outstanding = |place| u64::from(group.load(place).outstanding());
    outstanding(this) * group.weight(that) < outstanding(that) * group.weight(this)
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, testing::*};

    #[test]
    fn the_least_loaded_of_all_takes_the_next() {
        let mut loads = endpoints(&[1; 20]);
        loads.iter_mut().for_each(|load| load.outstanding = 2);
        loads[13].outstanding = 1;
        assert_eq!(Picker::new(&Settings::LeastRequest).count(50, &loads, |_| true)[13], 50);
    }

    #[test]
    fn level_ones_draw_lots() {
        let mut loads = endpoints(&[1; 5]);
        loads[0].outstanding = 1;
        let picked = Picker::new(&Settings::LeastRequest).count(4_000, &loads, |_| true);
        assert_eq!(picked[0], 0);
        assert!(picked[1..].iter().all(|n| (900..1_100).contains(n)), "{picked:?}");
    }

    #[test]
    fn a_heavier_one_holds_more_calls() {
        let mut loads = endpoints(&[1, 4]);
        let mut picker = Picker::new(&Settings::LeastRequest);
        for _ in 0..500 {
            let i = picker.pick(&loads, |_| true).unwrap();
            loads[i].outstanding += 1;
        }
        assert!((99..=101).contains(&loads[0].outstanding), "{}", loads[0].outstanding);
    }

    #[test]
    fn of_many_it_still_keeps_away_from_the_loaded() {
        let mut loads = endpoints(&[1; 1_000]);
        loads[..500].iter_mut().for_each(|load| load.outstanding = 5);
        let picked = Picker::new(&Settings::LeastRequest).count(10_000, &loads, |_| true);
        let loaded: u32 = picked[..500].iter().sum();
        // All eight choices loaded: one in 256.
        assert!((10..100).contains(&loaded), "{loaded}");
    }
}
