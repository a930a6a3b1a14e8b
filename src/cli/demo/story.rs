//! The summary: what happened, and what outrigger did about it, in words.
//!
//! Every figure is one that was counted or measured in this run; where nothing happened (the run was
//! too short for the schedule) nothing is claimed.

use std::{fmt::Write, time::Duration};

use super::{
    cast::{CAST, Role},
    character::Mood,
    figures::{counted, grouped, time},
    statistics::{ServiceStatistics, Statistics},
    watch::{BreakerState, Watch},
};
use crate::model::Reason;

/// Trouble that has only just begun when the run ends is no story yet.
const WORTH_TELLING: Duration = Duration::from_millis(500);

/// Tells a run of the demo; a paragraph a service.
pub(crate) fn story(elapsed: Duration, rate: u32, statistics: &Statistics, breakers: &[Watch]) -> String {
    let mut text = totals(elapsed, statistics);
    for (index, (role, service)) in CAST.iter().zip(&statistics.services).enumerate() {
        let watch = breakers.get(index).cloned().unwrap_or_default();
        let unwell = role.character.unwell_for(elapsed);
        let told = match role.character.trouble() {
            Some((from, _, Mood::Failing)) if unwell >= WORTH_TELLING => failing(role, service, &watch, from, unwell),
            Some((_, _, Mood::Slower)) if unwell >= WORTH_TELLING => slower(role, service, rate, unwell),
            Some(_) => format!("{} had no trouble yet: run the demo for 20 s or longer to see some.", role.name),
            None => untouched(role, service),
        };
        text.push('\n');
        text.push_str(&told);
        text.push('\n');
    }
    text
}

/// What holds for any run of the caller: calls in all, and how they ended.
pub(crate) fn totals(elapsed: Duration, statistics: &Statistics) -> String {
    let sum = |of: &dyn Fn(&ServiceStatistics) -> u64| statistics.services.iter().map(of).sum::<u64>();
    let mut text = format!(
        "{}, {}: {} succeeded, {} got the upstream's own error, {} got a local reply.\n",
        time(elapsed),
        counted(sum(&|service| service.total.calls), "call"),
        grouped(sum(&|service| service.total.ok())),
        grouped(sum(&|service| service.total.upstream_errors())),
        grouped(sum(&|service| service.total.all_local())),
    );
    let no_answer = sum(&|service| service.total.no_answer);
    if no_answer > 0 {
        let _ = writeln!(text, "{} got no answer at all.", counted(no_answer, "call"));
    }
    let (late, unsent) = (sum(&|service| service.total.late), sum(&|service| service.total.unsent));
    if late + unsent > 0 {
        let _ = writeln!(
            text,
            "The caller sent {} over 10 ms late, and {} not at all: too many were outstanding, or this machine was busy.",
            counted(late, "call"),
            grouped(unsent)
        );
    }
    text
}

fn failing(role: &Role, service: &ServiceStatistics, watch: &Watch, from: Duration, unwell: Duration) -> String {
    let name = role.name;
    let mut text = format!("{name} failed for {}.", time(unwell));
    let timed_out = service.total.local(Reason::RequestTimeout);
    if let Some(typical) = service.timed_out.quantile(0.5) {
        let _ =
            write!(text, " {} hung and waited {} each, until the time-out.", counted(timed_out, "call"), time(typical));
    }
    if service.total.upstream_errors() > 0 {
        let _ = write!(text, " {} got its own error.", counted(service.total.upstream_errors(), "call"));
    }
    let refused = service.total.local(Reason::BreakerOpen);
    let Some(took) = service.refused.quantile(0.5) else {
        text.push_str(" The breaker refused none of its calls.");
        return text;
    };
    match watch.first(BreakerState::Open, from) {
        Some(opened) => {
            let _ = write!(text, "\n  About {} into the failure the breaker opened. ", about(opened - from));
        }
        None => text.push_str("\n  The breaker opened. "),
    }
    let _ = write!(
        text,
        "{} refused in {} (median)\n  instead of waiting up to {}",
        if refused == 1 { "1 call was".to_owned() } else { format!("{} calls were", grouped(refused)) },
        time(took),
        time(role.timeout)
    );
    let per_call = role.timeout.saturating_sub(took);
    let spared = per_call.checked_mul(u32::try_from(refused).unwrap_or(u32::MAX)).unwrap_or(Duration::MAX);
    let _ = write!(text, ": up to {} of waiting in all, and its endpoints were left in peace.", time(spared));
    let well_again = from + unwell;
    if let Some(closed) = watch.first(BreakerState::Closed, well_again) {
        // Only the first failure of a run is told by the clock; later ones look alike.
        let after = closed.saturating_sub(role.character.trouble().map_or(closed, |(_, to, _)| to));
        if after < Duration::from_secs(10) {
            let _ = write!(
                text,
                "\n  About {} after {name} was well again, a probe had found out and calls flowed.",
                about(after)
            );
        }
    }
    text
}

/// A time that was seen by looking now and then: to a tenth of a second, no better.
fn about(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn slower(role: &Role, service: &ServiceStatistics, rate: u32, unwell: Duration) -> String {
    let mut text = format!("{} answered in 700 ms instead of 80 for {}.", role.name, time(unwell));
    let refused = service.total.local(Reason::BulkheadFull);
    let Some(max) = role.bulkhead(rate).filter(|_| refused > 0) else {
        text.push_str(" All of its calls found a place in the bulkhead.");
        return text;
    };
    let _ = write!(
        text,
        "\n  Its bulkhead let {max} calls wait for it at once and refused {} at once: a slow upstream\n  \
         could not tie up the app, and the breaker stayed out of it (a full bulkhead is no failure).",
        grouped(refused)
    );
    text
}

fn untouched(role: &Role, service: &ServiceStatistics) -> String {
    let p99 = service.total.latency.quantile(0.99).map_or_else(|| "-".to_owned(), time);
    let (calls, ok) = (service.total.calls, service.total.ok());
    if calls == ok {
        format!("{} noticed nothing of this: {}, all good, p99 {p99}.", role.name, counted(calls, "call"))
    } else {
        format!("{}: {} of {} succeeded, p99 {p99}.", role.name, grouped(ok), counted(calls, "call"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::demo::statistics::Ended, model::Outcome};

    fn run(calls: &[(usize, u64, Outcome, u32)], breakers: &[Watch]) -> String {
        let mut statistics = Statistics::new(CAST.iter().map(|role| role.name));
        for &(service, took_us, outcome, count) in calls {
            for _ in 0..count {
                let took = Duration::from_micros(took_us);
                let at = Duration::from_secs(1);
                statistics.ended(&Ended { service, at, took, late: false, outcome: Ok(outcome), instance: None });
            }
        }
        story(Duration::from_secs(20), 100, &statistics, breakers)
    }

    #[test]
    fn a_run_is_told_by_its_own_figures() {
        let mut payments = Watch::default();
        for (ms, state) in [
            (100, BreakerState::Closed),
            (5_900, BreakerState::Open),
            (6_900, BreakerState::HalfOpen),
            (7_200, BreakerState::Open),
            (12_500, BreakerState::Closed),
        ] {
            payments.saw(Duration::from_millis(ms), state);
        }
        let told = run(
            &[
                (0, 2_000, Outcome::Ok, 2_000),
                (1, 6_000, Outcome::Ok, 1_300),
                (1, 2_000, Outcome::of_status(http::StatusCode::SERVICE_UNAVAILABLE), 45),
                (1, 250_000, Outcome::Failed(Reason::RequestTimeout), 44),
                (1, 140, Outcome::Failed(Reason::BreakerOpen), 612),
                (2, 80_000, Outcome::Ok, 1_800),
                (2, 120, Outcome::Failed(Reason::BulkheadFull), 171),
            ],
            &[Watch::default(), payments, Watch::default()],
        );
        let expected = "\
20 s, 5,972 calls: 5,100 succeeded, 45 got the upstream's own error, 827 got a local reply.

catalog noticed nothing of this: 2,000 calls, all good, p99 2.0 ms.

payments failed for 7 s. 44 calls hung and waited 250 ms each, until the time-out. 45 calls got its own error.
  About 0.9 s into the failure the breaker opened. 612 calls were refused in 0.14 ms (median)
  instead of waiting up to 250 ms: up to 2.5 min of waiting in all, and its endpoints were left in peace.
  About 0.5 s after payments was well again, a probe had found out and calls flowed.

search answered in 700 ms instead of 80 for 4 s.
  Its bulkhead let 40 calls wait for it at once and refused 171 at once: a slow upstream
  could not tie up the app, and the breaker stayed out of it (a full bulkhead is no failure).
";
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_is_claimed_that_did_not_happen() {
        let told = run(&[(0, 2_000, Outcome::Failed(Reason::NoEndpoints), 3)], &[]);
        assert!(told.contains("catalog: 0 of 3 calls succeeded"), "{told}");
        assert!(told.contains("The breaker refused none of its calls."), "{told}");
        assert!(told.contains("All of its calls found a place"), "{told}");
        let statistics = Statistics::new(CAST.iter().map(|role| role.name));
        let told = story(Duration::from_secs(3), 100, &statistics, &[]);
        assert_eq!(told.matches("had no trouble yet").count(), 2, "{told}");
    }
}
