//! One small seedable generator, so that what is random in traffic is exact in a test.

/// SplitMix64 (Steele, Lea and Flood, 2014): eight bytes of state, equidistributed, not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers, always.
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0 when `n` is 0 (Lemire's multiplication; the bias is below 2⁻³² for any `n` here).
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(n) * (self.bits() >> 32)) >> 32) as u32
    }

    /// A number in `[0, 1)`.
    pub fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut random = Random::seeded(7);
        let mut seen = [0u32; 6];
        for _ in 0..6_000 {
            seen[random.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn a_seed_fixes_the_sequence() {
        let mut a = Random::seeded(1);
        let mut b = Random::seeded(1);
        assert!((0..100).all(|_| a.bits() == b.bits()));
    }
}
