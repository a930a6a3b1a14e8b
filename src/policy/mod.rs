//! Pure decisions: state, `now` and an event in; a verdict out.
//!
//! No policy here reads a clock, a socket or a random source, takes a lock, or knows a metric. The
//! `service` layer is the shell: it reads the clock once an event, holds the locks, and turns verdicts
//! and transitions into metrics and log lines. That is what lets a policy be tested by literal times
//! and simulated by the million.
//!
//! | policy | asks | file |
//! |---|---|---|
//! | deadline | how long may this still take? | `deadline` |
//! | bulkhead | may one more call be outstanding? | `bulkhead`, with a `queue`; its limit may be `adaptive` |
//! | breaker | is the service worth trying? | `breaker`, over a `window` |
//! | retry | is a failed attempt worth another? | `retry` |
//! | ejection | which endpoints are left out for a while? | `ejection` |
//! | health | what do questions of our own say? | `health` |
//! | balance | which endpoint? | `balance` |
//! | fallback | what is answered instead of a failure? | `fallback` |
//! | failure_if | what of an answer says that it is none? | `failure_if` |
//!
//! Each file has the same order: the question it answers and its rules, `Settings`, the state with its
//! data inside the variants, `admit` and `record`, a `View` for people, and the timelines that test it.

pub mod adaptive;
pub mod balance;
pub mod breaker;
pub mod bulkhead;
pub mod deadline;
pub mod ejection;
pub mod failure_if;
pub mod fallback;
pub mod health;
mod queue;
pub mod retry;
mod window;

/// A share of a whole, in percent: 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// A share of `percent` per cent; `None` outside 0 to 100.
    pub fn percent(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then_some(Self(percent))
    }

    /// The share in per cent.
    pub const fn as_percent(self) -> f64 {
        self.0
    }

    /// Whether `part` of `whole` is at least this share; an empty whole has no share of anything.
    pub fn is_reached(self, part: u32, whole: u32) -> bool {
        // A share such as 0.07 has no exact form; what is written must still be reached by 7 of 10,000.
        const ROUNDING: f64 = 1.0 - 1e-12;
        whole > 0 && f64::from(part) * 100.0 >= self.0 * f64::from(whole) * ROUNDING
    }
}

#[cfg(test)]
mod tests {
    use super::Share;

    #[test]
    fn a_share_is_reached_exactly_where_it_says() {
        for hundredths in 1..=10_000u32 {
            let share = format!("{}.{:02}", hundredths / 100, hundredths % 100).parse().ok().and_then(Share::percent);
            let share = share.expect("it is at most 100");
            for whole in [10_000, 70_000, 4_000_000_000] {
                let part = whole / 10_000 * hundredths;
                assert!(share.is_reached(part, whole), "{part} of {whole} are {hundredths} hundredths of a per cent");
                assert!(!share.is_reached(part - 1, whole));
            }
        }
    }

    #[test]
    fn an_empty_whole_has_no_share_of_anything() {
        assert!(!Share(0.0).is_reached(0, 0));
        assert!(Share(0.0).is_reached(0, 1));
    }

    #[test]
    fn shares_are_zero_to_a_hundred() {
        for wrong in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::percent(wrong), None);
        }
        assert_eq!(Share::percent(100.0).map(Share::as_percent), Some(100.0));
    }
}
