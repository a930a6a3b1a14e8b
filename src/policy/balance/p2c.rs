//! Power of two choices: the better of two random endpoints.
//!
//! The best of *all* endpoints, as many callers see it at one moment, is where they all go at once. The
//! better of two random ones is nearly as good and spreads them (Mitzenmacher, 2001). Better means the
//! lower cost, which is latency × the calls that would share it: `latency × (1 + outstanding / weight)`,
//! as Finagle's peak EWMA has it, with the weights put in relation to each other.
//!
//! The first of the two is drawn by weight, and stays unless the other is *clearly* better. That is what
//! makes weights hold: between endpoints that are alike, costs differ by noise, and a comparison by cost
//! alone would either ignore the weights or, divided by them, starve the lighter one while both are idle.
//!
//! Latencies are compared after a millisecond is added to both, so that what differs by our own scheduling
//! does not count as better. A new endpoint has no latency yet; beside it only outstanding calls count, so
//! it gets its share, and no flood.

use std::time::Instant;

use super::{Load, group::Group};
use crate::model::Random;

/// The other is clearly better if it costs less than this part of the first.
const CLEARLY: f64 = 0.8;

/// Added to each latency, in microseconds.
const NOISE_US: f64 = 1_000.0;

/// The better of two.
pub(super) fn pick<L: Load, U: Fn(usize) -> bool>(
    group: &Group<'_, L, U>,
    now: Instant,
    random: &mut Random,
) -> Option<usize> {
    let first = group.draw(None, random)?;
    if group.len() == 1 {
        return Some(first);
    }
    let Some(other) = group.draw(Some(first), random) else { return Some(first) };
    Some(if is_clearly_better(group, other, first, now) { other } else { first })
}

fn is_clearly_better<L: Load, U: Fn(usize) -> bool>(
    group: &Group<'_, L, U>,
    this: usize,
    that: usize,
    now: Instant,
) -> bool {
    let (a, b) = (group.load(this), group.load(that));
    let mut latencies = [a.latency_us(now), b.latency_us(now)];
    if latencies.iter().any(|&us| us <= 0.0) {
        latencies = [0.0; 2];
    }
    let [a_weight, b_weight] = [group.weight(this) as f64, group.weight(that) as f64];
    let even = (a_weight + b_weight) / 2.0;
    let cost =
        |us: f64, outstanding: u32, weight: f64| (us + NOISE_US) * (1.0 + f64::from(outstanding) * even / weight);
    cost(latencies[0], a.outstanding(), a_weight) < CLEARLY * cost(latencies[1], b.outstanding(), b_weight)
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, testing::*};

    #[test]
    fn the_one_with_fewer_outstanding_calls_takes_the_next() {
        let mut loads = endpoints(&[1, 1]);
        loads[0].outstanding = 3;
        assert_eq!(Picker::new(&Settings::P2c).count(200, &loads, |_| true), [0, 200]);
    }

    #[test]
    fn a_much_slower_one_gets_next_to_nothing() {
        let mut loads = endpoints(&[1, 1, 1]);
        for (load, us) in loads.iter_mut().zip([5_000.0, 5_500.0, 80_000.0]) {
            load.latency_us = us;
        }
        let picked = Picker::new(&Settings::P2c).count(3_000, &loads, |_| true);
        assert_eq!(picked[2], 0);
        assert!(picked[0] > 1_300 && picked[1] > 1_300, "a tenth is no difference: {picked:?}");
    }

    #[test]
    fn what_differs_by_our_own_noise_is_alike() {
        let mut loads = endpoints(&[1, 3]);
        (loads[0].latency_us, loads[1].latency_us) = (150.0, 300.0);
        let picked = Picker::new(&Settings::P2c).count(4_000, &loads, |_| true);
        assert!((900..1_100).contains(&picked[0]), "{picked:?}");
    }

    #[test]
    fn outstanding_calls_settle_in_proportion_to_the_weights() {
        let mut loads = endpoints(&[1, 3]);
        let mut picker = Picker::new(&Settings::P2c);
        for _ in 0..400 {
            let i = picker.pick(&loads, |_| true).unwrap();
            loads[i].outstanding += 1;
        }
        assert!((80..120).contains(&loads[0].outstanding), "{} of 400", loads[0].outstanding);
    }

    #[test]
    fn a_new_endpoint_is_neither_flooded_nor_starved() {
        for known in [300.0, 50_000.0, 2_000_000.0] {
            let mut loads = endpoints(&[1; 10]);
            loads[..9].iter_mut().for_each(|load| load.latency_us = known);
            let picked = Picker::new(&Settings::P2c).count(10_000, &loads, |_| true);
            assert!((800..1_200).contains(&picked[9]), "beside {known} µs: {picked:?}");
            // Until its first answers come, its outstanding calls hold it back.
            loads[9].outstanding = 1;
            let picked = Picker::new(&Settings::P2c).count(10_000, &loads, |_| true);
            assert_eq!(picked[9], 0, "beside {known} µs: {picked:?}");
        }
    }

    #[test]
    fn few_usable_ones_of_many_share_evenly() {
        let loads = endpoints(&[1; 500]);
        let picked = Picker::new(&Settings::P2c).count(3_000, &loads, |i| [3, 250, 499].contains(&i));
        for i in [3, 250, 499] {
            assert!((850..1_150).contains(&picked[i]), "{i}: {}", picked[i]);
        }
    }
}
