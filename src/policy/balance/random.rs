//! Random: any endpoint, each with its weight's chance.
//!
//! It remembers nothing and looks at nothing, so that many callers without knowledge of each other spread
//! evenly. What it does not see is load; p2c does.

use super::{Load, group::Group};
use crate::model::Random;

/// Any.
pub(super) fn pick<L: Load, U: Fn(usize) -> bool>(group: &Group<'_, L, U>, random: &mut Random) -> Option<usize> {
    group.draw(None, random)
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, testing::*};

    #[test]
    fn load_does_not_matter() {
        let mut loads = endpoints(&[1, 1]);
        loads[0].outstanding = 1_000;
        loads[0].latency_us = 1e9;
        let picked = Picker::new(&Settings::Random).count(2_000, &loads, |_| true);
        assert!((900..1_100).contains(&picked[0]), "{picked:?}");
    }
}
