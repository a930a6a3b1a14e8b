//! What one pick chooses from: the endpoints of one priority, some of which are usable.
//!
//! Drawing one by weight is what most ways of balancing need. It costs a random number where all weights
//! are alike, and a binary search over the sums of the weights where they are not. An unusable one that
//! comes up is drawn again, a few times; then each endpoint is looked at once. Both give each usable
//! endpoint the same chance, its weight's share.

use std::ops::Range;

use super::Load;
use crate::model::Random;

/// How often an unusable endpoint may come up before each is looked at. With half of them usable, one pick
/// in 256 goes that far.
const DRAWS: u32 = 8;

/// What is the same for every pick from one set of endpoints.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    /// For each endpoint the weights up to and including its own.
    sums: Vec<u64>,
    /// The groups by rising priority number.
    groups: Vec<Span>,
}

#[derive(Debug, Clone)]
struct Span {
    places: Range<usize>,
    /// Whether all weights in it are alike.
    even: bool,
}

impl Layout {
    /// Lays out a set that is sorted by priority.
    pub(super) fn of<L: Load>(loads: &[L]) -> Self {
        let mut layout = Self { sums: Vec::with_capacity(loads.len()), groups: Vec::new() };
        let mut sum = 0;
        for group in loads.chunk_by(|a, b| a.priority() == b.priority()) {
            let start = layout.sums.len();
            for load in group {
                sum += u64::from(load.weight().max(1));
                layout.sums.push(sum);
            }
            let even = group.iter().all(|load| load.weight().max(1) == group[0].weight().max(1));
            layout.groups.push(Span { places: start..layout.sums.len(), even });
        }
        layout
    }

    /// How many endpoints it was made for.
    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }

    /// How many priorities there are.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The weight of the endpoint at `place`, at least 1.
    pub(super) fn weight(&self, place: usize) -> u64 {
        self.sums[place] - self.before(place)
    }

    /// The sum of the weights before `place`.
    fn before(&self, place: usize) -> u64 {
        if place == 0 { 0 } else { self.sums[place - 1] }
    }
}

/// The endpoints of one priority, at one pick. Never empty.
pub(super) struct Group<'a, L, U> {
    layout: &'a Layout,
    span: &'a Span,
    loads: &'a [L],
    usable: &'a U,
}

impl<'a, L: Load, U: Fn(usize) -> bool> Group<'a, L, U> {
    /// The group number `n` of the set that `layout` was made for.
    pub(super) fn new(layout: &'a Layout, n: usize, loads: &'a [L], usable: &'a U) -> Self {
        Self { layout, span: &layout.groups[n], loads, usable }
    }

    /// How many there are, usable or not.
    pub(super) fn len(&self) -> usize {
        self.span.places.len()
    }

    /// Whether all weights are alike.
    pub(super) fn is_even(&self) -> bool {
        self.span.even
    }

    /// The places of the usable ones.
    pub(super) fn usable(&self) -> impl Iterator<Item = usize> + '_ {
        self.span.places.clone().filter(|&place| (self.usable)(place))
    }

    pub(super) fn load(&self, place: usize) -> &L {
        &self.loads[place]
    }

    pub(super) fn weight(&self, place: usize) -> u64 {
        self.layout.weight(place)
    }

    /// A random usable one other than `but`, each with its weight's chance.
    pub(super) fn draw(&self, but: Option<usize>, random: &mut Random) -> Option<usize> {
        let fits = |place: usize| Some(place) != but && (self.usable)(place);
        if self.len() > 2 {
            for _ in 0..DRAWS {
                let place = self.draw_any(random);
                if fits(place) {
                    return Some(place);
                }
            }
        }
        let mut fitting = Lottery::default();
        self.span.places.clone().filter(|&place| fits(place)).for_each(|place| {
            fitting.enter(place, self.weight(place), random);
        });
        fitting.winner()
    }

    /// A random one, usable or not, each with its weight's chance.
    pub(super) fn draw_any(&self, random: &mut Random) -> usize {
        let Range { start, end } = self.span.places;
        if self.span.even {
            return start + random.below((end - start) as u32) as usize;
        }
        let before = self.layout.before(start);
        let mark = before + below(self.layout.sums[end - 1] - before, random);
        start + self.layout.sums[start..end].partition_point(|&sum| sum <= mark)
    }
}

/// Draws one of those that enter, by weight, in one pass and without a list of them.
#[derive(Debug, Default)]
pub(super) struct Lottery {
    winner: Option<usize>,
    entered: u64,
}

impl Lottery {
    /// Enters `place`, with its weight's chance to win against all who have entered before.
    pub(super) fn enter(&mut self, place: usize, weight: u64, random: &mut Random) {
        self.entered += weight;
        if self.entered == weight || below(self.entered, random) < weight {
            self.winner = Some(place);
        }
    }

    /// Starts anew, with `place` as the only one.
    pub(super) fn restart(&mut self, place: usize, weight: u64) {
        *self = Self { winner: Some(place), entered: weight };
    }

    /// Who has won; `None` if nobody entered.
    pub(super) fn winner(&self) -> Option<usize> {
        self.winner
    }
}

/// A random number below `n`, or 0 when `n` is 0: `Random::below` for sums of weights.
fn below(n: u64, random: &mut Random) -> u64 {
    ((u128::from(n) * u128::from(random.bits())) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    /// How often each place comes up in 30,000 draws.
    fn drawn(weights: &[u32], usable: impl Fn(usize) -> bool, but: Option<usize>) -> Vec<u32> {
        let loads = endpoints(weights);
        let layout = Layout::of(&loads);
        let group = Group::new(&layout, 0, &loads, &usable);
        let mut random = Random::seeded(17);
        let mut counts = vec![0; loads.len()];
        for _ in 0..30_000 {
            counts[group.draw(but, &mut random).expect("some are usable")] += 1;
        }
        counts
    }

    fn about(n: u32, expected: u32) -> bool {
        n.abs_diff(expected) <= expected / 10
    }

    #[test]
    fn each_has_the_chance_of_its_weight() {
        let counts = drawn(&[1, 2, 3, 4], |_| true, None);
        assert!(counts.iter().zip([3_000, 6_000, 9_000, 12_000]).all(|(&n, e)| about(n, e)), "{counts:?}");
    }

    #[test]
    fn the_chances_are_the_same_by_drawing_and_by_looking() {
        // One usable pair in a hundred: most draws miss, and each endpoint is looked at.
        let mut weights = vec![50; 100];
        (weights[20], weights[70]) = (1, 2);
        let counts = drawn(&weights, |i| i == 20 || i == 70, None);
        assert!(about(counts[20], 10_000) && about(counts[70], 20_000), "{} {}", counts[20], counts[70]);
    }

    #[test]
    fn the_one_that_is_left_out_does_not_come_up() {
        let counts = drawn(&[1, 1, 1, 1], |i| i != 3, Some(0));
        assert_eq!((counts[0], counts[3]), (0, 0));
        assert!(about(counts[1], 15_000), "{counts:?}");
    }

    #[test]
    fn groups_follow_the_priorities() {
        let mut loads = endpoints(&[1, 1, 4, 9]);
        loads[2].priority = 1;
        loads[3].priority = 1;
        let layout = Layout::of(&loads);
        let usable = |_: usize| true;
        assert_eq!(layout.groups(), 2);
        let (first, second) = (Group::new(&layout, 0, &loads, &usable), Group::new(&layout, 1, &loads, &usable));
        assert_eq!((first.len(), first.is_even()), (2, true));
        assert_eq!((second.len(), second.is_even()), (2, false));
        assert_eq!((second.weight(2), second.weight(3)), (4, 9));
        let mut random = Random::seeded(1);
        assert!((0..100).all(|_| second.draw_any(&mut random) >= 2));
    }
}
