//! Hash: always the same endpoint for the same key, as long as it is usable.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998): each endpoint has a score for the key, and the
//! highest takes it. When one goes away only its own keys move, each to its second best, and they come back
//! with it; there is no ring to build and nothing to keep. It looks at each endpoint, which at a thousand
//! costs microseconds. Weights are honoured by `weight / -ln(score)` (Schindelhauer and Schomaker, 2005).
//!
//! All of it is spelt out here, down to the bits, so that a key leads to the same endpoint from every
//! sidecar, of any version, on any machine. It is not made to withstand somebody who chooses keys on purpose.

use super::{Load, group::Group};

/// A key's number: FNV-1a of its bytes, mixed. The same for good.
pub fn hash_key(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(fnv)
}

/// The usable endpoint with the highest score for the key.
pub(super) fn pick<L: Load, U: Fn(usize) -> bool>(group: &Group<'_, L, U>, key: u64) -> Option<usize> {
    let score = |place: usize| mix(key ^ mix(group.load(place).hash_id()));
    if group.is_even() {
        // The logarithm keeps the order, so that it can be left away.
        return group.usable().max_by_key(|&place| score(place));
    }
    let weighted = |place: usize| group.weight(place) as f64 / -open_unit(score(place)).ln();
    group.usable().map(|place| (place, weighted(place))).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place)
}

/// A score as a number strictly between 0 and 1.
fn open_unit(score: u64) -> f64 {
    ((score >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Spreads each bit over all others: SplitMix64's last step.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{HashKey, Settings, testing::*},
        *,
    };

    const KEYS: u64 = 20_000;

    fn owners(loads: &[Endpoint], usable: impl Fn(usize) -> bool + Copy) -> Vec<usize> {
        let mut picker = Picker::new(&Settings::Hash(HashKey::Path));
        (0..KEYS).map(|key| picker.pick_key(loads, usable, hash_key(&key.to_be_bytes())).unwrap()).collect()
    }

    #[test]
    fn numbers_are_for_good() {
        assert_eq!(hash_key(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash_key(b"user-1"), 0xc499_b5f8_a721_df58);
        assert_eq!(hash_key(b"10.0.0.1:8080"), 0xe6be_330c_3d44_a2e2);
    }

    #[test]
    fn choices_are_for_good() {
        let even = endpoints(&[1; 7]);
        let uneven = endpoints(&[1, 2, 3, 4, 5, 6, 7]);
        let first = |loads: &[Endpoint]| owners(loads, |_| true)[..12].to_vec();
        assert_eq!(first(&even), [0, 4, 5, 6, 0, 5, 5, 6, 6, 3, 0, 2]);
        assert_eq!(first(&uneven), [2, 4, 5, 6, 4, 5, 5, 6, 6, 3, 4, 2]);
    }

    #[test]
    fn keys_spread_by_weight() {
        let mut counts = [0u32; 4];
        owners(&endpoints(&[1, 2, 3, 4]), |_| true).into_iter().for_each(|i| counts[i] += 1);
        for (n, due) in counts.iter().zip([2_000, 4_000, 6_000, 8_000]) {
            assert!(n.abs_diff(due) < due / 10, "{counts:?}");
        }
    }

    #[test]
    fn when_one_goes_only_its_keys_move_and_they_spread() {
        for weights in [vec![1; 10], (1..=10).collect::<Vec<_>>()] {
            let loads = endpoints(&weights);
            let before = owners(&loads, |_| true);
            let unusable = owners(&loads, |i| i != 4);
            let mut left = loads.clone();
            left.remove(4);
            // As the places are without the one that went.
            let removed: Vec<_> = owners(&left, |_| true).into_iter().map(|i| i + usize::from(i >= 4)).collect();
            assert_eq!(unusable, removed, "it is the same whether it is gone or only unusable");
            let mut heirs = std::collections::BTreeSet::new();
            for (was, is) in before.iter().zip(&unusable) {
                if *was == 4 {
                    heirs.insert(*is);
                } else {
                    assert_eq!(was, is, "a key moved that was not its own");
                }
            }
            assert_eq!(heirs.len(), 9, "all others inherit");
        }
    }

    #[test]
    fn a_greater_weight_only_draws_keys_to_it() {
        let before = owners(&endpoints(&[2, 2, 2, 1]), |_| true);
        let after = owners(&endpoints(&[2, 2, 2, 5]), |_| true);
        assert!(before.iter().zip(&after).all(|(was, is)| was == is || *is == 3));
        assert_ne!(before, after);
    }

    #[test]
    fn without_a_key_it_is_p2c() {
        let mut loads = endpoints(&[1, 1]);
        loads[0].outstanding = 9;
        let mut picker = Picker::new(&Settings::Hash(HashKey::Path));
        picker.keyless = true;
        assert_eq!(picker.count(100, &loads, |_| true), [0, 100]);
    }
}
