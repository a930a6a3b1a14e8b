//! The budget: how many retries can a service bear?
//!
//! A count of retries a call bounds nothing: when everything fails, three attempts a call are three times the load,
//! in the worst moment. The budget bounds the whole. Each call pays in a share of a retry, each second a few, so
//! that a service with few calls has some; each retry takes one out. What is not used leaks away within
//! [`WINDOW`], so a quiet hour does not pay for a storm.
//!
//! These are the rules of Finagle's `RetryBudget` (its `ttl` is our window), but for the reserve, which here is spent and
//! earned like the rest. Calls are told in sum when a retry asks, so that a call that needs none costs no more than a count.

use std::time::{Duration, Instant};

use super::Settings;

/// How long what was paid in is worth something.
const WINDOW: Duration = Duration::from_secs(10);

/// One service's budget.
#[derive(Debug, Clone)]
pub struct Budget {
    retries: f64,
    /// Calls that have paid in.
    calls: u64,
    at: Instant,
}

impl Budget {
    /// The budget of a service whose first call begins now: what a quiet window has earned.
    pub fn new(settings: &Settings, now: Instant) -> Self {
        Self { retries: f64::from(settings.min_per_second) * WINDOW.as_secs_f64(), calls: 0, at: now }
    }

    /// Takes a retry out, if there is one; `calls` is how many calls there have been in all.
    pub fn take(&mut self, settings: &Settings, calls: u64, now: Instant) -> bool {
        self.settle(settings, calls, now);
        // Sums of tenths are not quite what they should be.
        let is_there = self.retries >= 1.0 - 1e-9;
        if is_there {
            self.retries -= 1.0;
        }
        is_there
    }

    /// Puts back what was taken for a retry that was not made.
    pub fn put_back(&mut self) {
        self.retries += 1.0;
    }

    /// How many retries it would bear now.
    pub fn left(&self, settings: &Settings, calls: u64, now: Instant) -> u32 {
        let mut then = self.clone();
        then.settle(settings, calls, now);
        then.retries as u32
    }

    /// Accounts for the time, and the calls, since the last look.
    fn settle(&mut self, settings: &Settings, calls: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let window = WINDOW.as_secs_f64();
        // Of a longer time only the window's share counts: that of the calls is taken to be even.
        let of_calls = calls.saturating_sub(self.calls) as f64 * (window / passed.max(window));
        let of_time = f64::from(settings.min_per_second) * passed.min(window);
        let leaked = self.retries * (1.0 - passed / window).max(0.0);
        let most = settings.budget.as_percent() / 100.0 * of_calls;
        self.retries = leaked + most + of_time;
        self.calls = self.calls.max(calls);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
mod tests {
    use super::*;
    use crate::{model::Random, policy::Share};

    const SECOND: Duration = Duration::from_secs(1);

    fn settings(percent: f64, min_per_second: u32) -> Settings {
        Settings { budget: Share::percent(percent).unwrap(), min_per_second, ..Settings::default() }
    }

    fn takes(budget: &mut Budget, settings: &Settings, calls: u64, now: Instant) -> u32 {
        (0..).take_while(|_| budget.take(settings, calls, now)).count() as u32
    }

    #[test]
    fn a_new_service_has_what_a_quiet_window_earns() {
        let (settings, now) = (settings(20.0, 3), Instant::now());
        let mut budget = Budget::new(&settings, now);
        assert_eq!(takes(&mut budget, &settings, 1, now), 30);
        assert_eq!(takes(&mut budget, &settings, 4, now), 0, "thirty and four fifths are thirty");
        assert_eq!(takes(&mut budget, &settings, 5, now), 1);
    }

    #[test]
    fn calls_pay_a_share_and_seconds_a_few() {
        let (settings, start) = (settings(20.0, 3), Instant::now());
        let mut budget = Budget::new(&settings, start);
        assert_eq!(takes(&mut budget, &settings, 0, start), 30);
        assert_eq!(takes(&mut budget, &settings, 100, start + SECOND), 23);
        assert_eq!(takes(&mut budget, &settings, 100, start + 2 * SECOND), 3);
    }

    #[test]
    fn what_is_not_used_leaks_away() {
        let (settings, start) = (settings(20.0, 0), Instant::now());
        let mut budget = Budget::new(&settings, start);
        assert_eq!(budget.left(&settings, 1000, start), 200);
        assert!(budget.take(&settings, 1000, start));
        assert_eq!(budget.left(&settings, 1000, start + 5 * SECOND), 99);
        assert_eq!(budget.left(&settings, 1000, start + 10 * SECOND), 0);
    }

    #[test]
    fn a_quiet_hour_does_not_pay_for_a_storm() {
        let (settings, start) = (settings(20.0, 3), Instant::now());
        let budget = Budget::new(&settings, start);
        assert_eq!(budget.left(&settings, 0, start + 3600 * SECOND), 30);
        assert_eq!(budget.left(&settings, 3600, start + 3600 * SECOND), 32, "ten calls in ten seconds");
    }

    #[test]
    fn nothing_is_nothing() {
        let (settings, start) = (settings(0.0, 0), Instant::now());
        let mut budget = Budget::new(&settings, start);
        assert_eq!(takes(&mut budget, &settings, 1_000_000, start + 60 * SECOND), 0);
    }

    #[test]
    fn what_is_put_back_can_be_taken_again() {
        let (settings, now) = (settings(0.0, 1), Instant::now());
        let mut budget = Budget::new(&settings, now);
        assert_eq!(takes(&mut budget, &settings, 0, now), 10);
        assert!(!budget.take(&settings, 0, now));
        budget.put_back();
        assert!(budget.take(&settings, 0, now));
    }

    /// Whatever calls and retries come when, no stretch of time sees more retries than its calls and seconds pay
    /// for, and one window's worth that was there before.
    #[test]
    fn no_storm_takes_more_than_was_paid() {
        for seed in 0..200 {
            let mut random = Random::seeded(seed);
            let settings = settings(f64::from(random.below(101)), random.below(20));
            let start = Instant::now();
            let mut budget = Budget::new(&settings, start);
            let (mut now, mut calls, mut taken) = (start, 0u64, 0u64);
            let mut most_calls_a_window = 0u64;
            let mut history = vec![(start, 0u64)];
            for _ in 0..2_000 {
                now += Duration::from_micros(u64::from(random.below(50_000)));
                calls += u64::from(random.below(20));
                history.push((now, calls));
                if random.below(3) > 0 && budget.take(&settings, calls, now) {
                    taken += 1;
                }
                let begun = history.partition_point(|(at, _)| now.duration_since(*at) > WINDOW);
                most_calls_a_window = most_calls_a_window.max(calls - history[begun].1);
                let passed = now.duration_since(start).as_secs_f64();
                let share = settings.budget.as_percent() / 100.0;
                let paid = share * calls as f64 + f64::from(settings.min_per_second) * (passed + 10.0);
                assert!(taken as f64 <= paid + 1e-6, "seed {seed}: {taken} retries, {paid} paid for");
                let kept = share * (most_calls_a_window + 20) as f64 + f64::from(settings.min_per_second) * 20.0;
                let left = f64::from(budget.left(&settings, calls, now));
                assert!(left <= kept + 1.0, "seed {seed}: {left} left of at most {kept}");
            }
        }
    }
}
