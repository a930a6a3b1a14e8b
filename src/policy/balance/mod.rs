//! Balancing: which of the endpoints takes this attempt?
//!
//! The lowest priority number with a usable endpoint takes all (RFC 2782); within that group one of five
//! ways decides, each in a file of its own:
//!
//! | way | picks | cost a pick |
//! |---|---|---|
//! | [`p2c`](Settings::P2c) | the better of two random ones, by outstanding calls and latency | constant |
//! | [`round_robin`](Settings::RoundRobin) | each in turn, evenly spread | a look at each |
//! | [`random`](Settings::Random) | any | constant |
//! | [`least_request`](Settings::LeastRequest) | the fewest outstanding calls | a look at each, 64 at most |
//! | [`hash`](Settings::Hash) | the same one for the same key | a look at each |
//!
//! In all of them a weight is a share of the traffic while there is nothing else to choose by, and a share
//! of the outstanding calls when there is. "Usable" is the caller's to say (not drained, not full, not tried
//! before); the constant-cost ways draw a few times and look at each only when they keep drawing unusable
//! ones, so they stay right when only few of many can be used.
//!
//! A [`Balancer`] belongs to one worker and one service. What changes only with the set of endpoints (the
//! groups, the sums of their weights, the turns) is laid out when the set's revision changes, so that a
//! pick allocates nothing. All randomness comes from the caller's generator: a seed fixes the picks.
//!
//! Left out: zones, subsets, slow start. Health is for ejection and active checks.

mod group;
mod hash;
mod latency;
mod least_request;
mod p2c;
mod random;
mod round_robin;
#[cfg(test)]
mod testing;

use std::{sync::Arc, time::Instant};

use http::HeaderName;

use crate::model::Random;

use group::{Group, Layout};
pub use hash::hash_key;
pub use latency::PeakEwma;
use round_robin::Turns;

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Settings {
    /// The better of two random ones, by outstanding calls and latency. The default.
    #[default]
    P2c,
    /// Each in turn, by weight, spread evenly.
    RoundRobin,
    /// Any, by weight.
    Random,
    /// The one with the fewest outstanding calls for its weight.
    LeastRequest,
    /// Always the same one for the same key, as long as it exists.
    Hash(HashKey),
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The value of this header.
    Header(HeaderName),
    /// The value of this cookie.
    Cookie(Arc<str>),
    /// The path, without the query.
    Path,
}

/// What a balancer knows of an endpoint.
pub trait Load {
    /// Its share of the traffic relative to its peers; 0 is taken for 1. Fixed for a revision of the set.
    fn weight(&self) -> u32;
    /// Its group; fixed for a revision of the set.
    fn priority(&self) -> u16;
    /// Attempts outstanding at it.
    fn outstanding(&self) -> u32;
    /// Its latency in microseconds as [`PeakEwma::read`] gives it; 0 when nothing is known.
    fn latency_us(&self, now: Instant) -> f64;
    /// A number of its own, the same in each process and for good; such as [`hash_key`] of its address.
    fn hash_id(&self) -> u64;
}

/// One worker's way of choosing among one service's endpoints.
#[derive(Debug, Clone)]
pub struct Balancer {
    way: Way,
    /// The set that `layout` was made for.
    revision: Option<u64>,
    layout: Layout,
}

/// [`Settings`], with what each has to remember.
#[derive(Debug, Clone)]
enum Way {
    P2c,
    RoundRobin(Turns),
    Random,
    LeastRequest,
    Hash,
}

impl Balancer {
    /// A balancer that has seen no endpoints yet.
    pub fn new(settings: &Settings) -> Self {
        let way = match settings {
            Settings::P2c => Way::P2c,
            Settings::RoundRobin => Way::RoundRobin(Turns::default()),
            Settings::Random => Way::Random,
            Settings::LeastRequest => Way::LeastRequest,
            Settings::Hash(_) => Way::Hash,
        };
        Self { way, revision: None, layout: Layout::default() }
    }

    /// The place in `loads` of the endpoint to try; `None` if none is usable.
    ///
    /// `loads` are those of the set with this `revision`, sorted by priority. `key` is what `hash` goes by; a
    /// request that has none is balanced by p2c.
    pub fn pick<L: Load>(
        &mut self,
        revision: u64,
        loads: &[L],
        usable: impl Fn(usize) -> bool,
        key: Option<u64>,
        now: Instant,
        random: &mut Random,
    ) -> Option<usize> {
        if self.revision != Some(revision) || self.layout.len() != loads.len() {
            self.revision = Some(revision);
            self.layout = Layout::of(loads);
            if let Way::RoundRobin(turns) = &mut self.way {
                turns.begin(&self.layout, random);
            }
        }
        let Self { way, layout, .. } = self;
        (0..layout.groups()).find_map(|n| {
            let group = Group::new(layout, n, loads, &usable);
            match way {
                Way::P2c => p2c::pick(&group, now, random),
                Way::RoundRobin(turns) => round_robin::pick(&group, turns),
                Way::Random => random::pick(&group, random),
                Way::LeastRequest => least_request::pick(&group, random),
                Way::Hash => match key {
                    Some(key) => hash::pick(&group, key),
                    None => p2c::pick(&group, now, random),
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    fn all_ways() -> [Settings; 5] {
        let hash = Settings::Hash(HashKey::Path);
        [Settings::P2c, Settings::RoundRobin, Settings::Random, Settings::LeastRequest, hash]
    }

    #[test]
    fn the_lowest_priority_number_with_a_usable_endpoint_takes_all() {
        for settings in all_ways() {
            let mut loads = endpoints(&[1; 6]);
            for (load, priority) in loads.iter_mut().zip([1, 1, 2, 2, 2, 7]) {
                load.priority = priority;
            }
            let mut picker = Picker::new(&settings);
            for (down, takes) in [(0, 0..2), (2, 2..5), (5, 5..6)] {
                let picked = picker.count(300, &loads, |i| i >= down);
                let expected: Vec<_> = (0..6).map(|i| takes.contains(&i)).collect();
                let got: Vec<_> = picked.iter().map(|&n| n > 0).collect();
                assert_eq!(got, expected, "{settings:?}, {down} down: {picked:?}");
            }
        }
    }

    #[test]
    fn an_unusable_endpoint_is_never_picked_and_a_usable_one_always_found() {
        for settings in all_ways() {
            let loads = endpoints(&[1, 5, 1, 1, 3, 1, 1, 1000]);
            let mut picker = Picker::new(&settings);
            for mask in 0u32..256 {
                let usable = |i: usize| mask & (1 << i) != 0;
                for _ in 0..5 {
                    match picker.pick(&loads, usable) {
                        Some(i) => assert!(usable(i), "{settings:?} picked {i} of {mask:08b}"),
                        None => assert_eq!(mask, 0, "{settings:?} found none in {mask:08b}"),
                    }
                }
            }
        }
    }

    #[test]
    fn one_usable_among_a_thousand_is_found() {
        for settings in all_ways() {
            let loads = endpoints(&[1; 1000]);
            let mut picker = Picker::new(&settings);
            for only in [0, 1, 500, 999] {
                assert_eq!(picker.pick(&loads, |i| i == only), Some(only), "{settings:?}");
            }
        }
    }

    #[test]
    fn another_set_is_laid_out_anew() {
        for settings in all_ways() {
            let mut picker = Picker::new(&settings);
            assert_eq!(picker.pick(&endpoints(&[]), |_| true), None);
            picker.revision += 1;
            assert!(picker.pick(&endpoints(&[1, 2, 3]), |_| true).is_some());
            picker.revision += 1;
            assert_eq!(picker.pick(&endpoints(&[9]), |_| true), Some(0), "{settings:?}");
            // A caller that forgets the revision must not make us look past the end.
            assert!(picker.pick(&endpoints(&[1; 40]), |i| i == 39).is_some(), "{settings:?}");
            assert_eq!(picker.pick(&endpoints(&[1]), |_| true), Some(0), "{settings:?}");
        }
    }

    #[test]
    fn a_seed_fixes_the_picks() {
        for settings in all_ways() {
            let loads = endpoints(&[1, 2, 3, 4, 5]);
            let (mut a, mut b) = (Picker::new(&settings), Picker::new(&settings));
            assert!((0..500).all(|_| a.pick(&loads, |_| true) == b.pick(&loads, |_| true)), "{settings:?}");
        }
    }

    #[test]
    fn idle_endpoints_share_by_weight() {
        for settings in all_ways() {
            let weights = [1, 2, 5, 8];
            // p2c draws pairs of distinct endpoints, which pulls the shares together a little.
            let allowed = if matches!(settings, Settings::P2c) { 0.06 } else { 0.02 };
            let picked = Picker::new(&settings).count(32_000, &endpoints(&weights), |_| true);
            for (n, weight) in picked.iter().zip(weights) {
                let (got, due) = (f64::from(*n) / 32_000.0, f64::from(weight) / 16.0);
                assert!((got - due).abs() < allowed, "{settings:?}: {picked:?} for {weights:?}");
            }
        }
    }

    #[test]
    fn extreme_weights_do_no_harm() {
        for settings in all_ways() {
            let loads = endpoints(&[u32::MAX, 0, u32::MAX, 1]);
            let picked = Picker::new(&settings).count(4_000, &loads, |_| true);
            assert!(picked[0] > 1_500 && picked[2] > 1_500, "{settings:?}: {picked:?}");
        }
    }
}
