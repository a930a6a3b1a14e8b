//! The breaker's rules, each as a timeline: literal milliseconds from the breaker's start.

use super::{super::Share, *};

/// A breaker with a clock, and short words for what happens to it.
struct Timeline {
    start: Instant,
    breaker: Breaker,
}

const OK: Judgement = Judgement::Success;
const BAD: Judgement = Judgement::Failure;

/// 50 % of at least 4 calls in 10 s; open for 5 s; 2 probes; slow over 200 ms, at 80 %.
fn settings() -> Settings {
    Settings { min_calls: 4, probes: 2, slow_call: Some(ms(200)), slow_rate: Share(80.0), ..Settings::default() }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn timeline(settings: Settings) -> Timeline {
    let start = Instant::now();
    Timeline { start, breaker: Breaker::new(settings, start) }
}

impl Timeline {
    /// Asks at `at`; the ticket, if it was admitted.
    fn ask(&mut self, at: u64) -> Option<Ticket> {
        match self.breaker.admit(self.start + ms(at)).verdict {
            Verdict::Admit(ticket) => Some(ticket),
            Verdict::Refuse { .. } => None,
        }
    }

    /// Asks at `at`, where it must be admitted.
    fn admitted(&mut self, at: u64) -> Ticket {
        self.ask(at).unwrap_or_else(|| panic!("refused at {at} ms"))
    }

    fn report(&mut self, at: u64, ticket: Ticket, took: u64, judgement: Judgement) -> Option<Transition> {
        self.breaker.record(self.start + ms(at), ticket, ms(took), judgement)
    }

    /// One attempt of 10 ms that ends at `at`.
    fn call(&mut self, at: u64, judgement: Judgement) -> Option<Transition> {
        let ticket = self.admitted(at);
        self.report(at, ticket, 10, judgement)
    }

    /// Four failures at `at`, which open it.
    fn outage(&mut self, at: u64) {
        for _ in 0..3 {
            assert_eq!(self.call(at, BAD), None);
        }
        let why = Why::ErrorRate { failures: 4, calls: 4 };
        assert_eq!(self.call(at, BAD), Some(Transition { to: State::Open, why }));
    }

    fn view(&self, at: u64) -> View {
        self.breaker.view(self.start + ms(at))
    }
}

#[test]
fn it_opens_at_the_share_and_not_before_enough_calls() {
    let mut t = timeline(settings());
    assert_eq!(t.call(0, BAD), None, "1 of 1, but too few");
    assert_eq!(t.call(1, BAD), None);
    assert_eq!(t.call(2, OK), None);
    let why = Why::ErrorRate { failures: 2, calls: 4 };
    assert_eq!(t.call(3, OK), Some(Transition { to: State::Open, why }), "a success can be the call that is enough");
}

#[test]
fn just_under_the_share_it_stays_closed() {
    let mut t = timeline(Settings { error_rate: Share(50.1), ..settings() });
    for at in 0..1_000 {
        assert_eq!(t.call(at, if at % 2 == 0 { OK } else { BAD }), None);
    }
}

#[test]
fn failures_leave_the_window_with_their_bucket() {
    let mut t = timeline(settings());
    for at in [999, 999, 999] {
        assert_eq!(t.call(at, BAD), None);
    }
    assert_eq!(t.view(9_999).failures, 3);
    assert_eq!(t.call(10_000, BAD), None, "the first bucket is out: 1 of 1");
    assert_eq!(t.view(10_000).calls, 1);
}

#[test]
fn a_call_counts_when_it_ends() {
    let mut t = timeline(settings());
    let early = t.admitted(0);
    assert_eq!(t.report(9_500, early, 9_500, BAD), None);
    assert_eq!(t.view(18_999).failures, 1);
    assert_eq!(t.view(19_000).failures, 0);
}

#[test]
fn slow_is_strictly_longer() {
    let mut t = timeline(settings());
    for at in 0..8 {
        let ticket = t.admitted(at);
        assert_eq!(t.report(at, ticket, 200, OK), None, "exactly the limit is not slow");
    }
    let mut opened = None;
    for at in 8..40 {
        let ticket = t.admitted(at);
        opened = t.report(at, ticket, 201, OK);
        if opened.is_some() {
            break;
        }
    }
    let why = Why::SlowRate { slow: 32, calls: 40 };
    assert_eq!(opened, Some(Transition { to: State::Open, why }));
}

#[test]
fn without_slow_call_nothing_is_slow() {
    let mut t = timeline(Settings { slow_call: None, slow_rate: Share(0.0), ..settings() });
    for at in 0..100 {
        let ticket = t.admitted(at);
        assert_eq!(t.report(at, ticket, 1_000_000, OK), None);
    }
    assert_eq!(t.view(100).slow, 0);
}

#[test]
fn open_it_refuses_until_strictly_more_than_its_time() {
    let mut t = timeline(settings());
    t.outage(100);
    let refused_at = |t: &mut Timeline, at| t.breaker.admit(t.start + ms(at)).verdict;
    assert_eq!(refused_at(&mut t, 100), Verdict::Refuse { retry_after: Some(ms(5_000)) });
    assert_eq!(refused_at(&mut t, 4_100), Verdict::Refuse { retry_after: Some(ms(1_000)) });
    assert_eq!(refused_at(&mut t, 5_100), Verdict::Refuse { retry_after: Some(ms(0)) });
    assert_eq!(t.view(5_100).state, State::Open);
    let admission = t.breaker.admit(t.start + ms(5_101));
    assert_eq!(admission.transition, Some(Transition { to: State::HalfOpen, why: Why::OpenElapsed }));
    assert!(matches!(admission.verdict, Verdict::Admit(ticket) if ticket.is_probe()));
}

#[test]
fn half_open_admits_its_probes_and_refuses_the_rest() {
    let mut t = timeline(settings());
    t.outage(0);
    let probes = [t.admitted(5_001), t.admitted(5_002)];
    assert_eq!(t.breaker.admit(t.start + ms(5_003)).verdict, Verdict::Refuse { retry_after: None });
    assert_eq!(t.report(5_010, probes[0], 9, OK), None);
    assert!(t.ask(5_011).is_none(), "a place that has reported is not given out again");
    let why = Why::Probed { probes: 2 };
    assert_eq!(t.report(5_020, probes[1], 9, OK), Some(Transition { to: State::Closed, why }));
    assert_eq!(t.view(5_020).calls, 0, "closed with an empty window");
}

#[test]
fn the_probes_are_judged_by_the_same_shares() {
    let mut t = timeline(settings());
    t.outage(0);
    let probes = [t.admitted(5_001), t.admitted(5_001)];
    assert_eq!(t.report(5_010, probes[0], 9, BAD), None, "it waits for all of them");
    let why = Why::ProbeFailed { failures: 1, slow: 0, probes: 2 };
    assert_eq!(t.report(5_020, probes[1], 9, OK), Some(Transition { to: State::Open, why }));
    assert!(t.ask(10_020).is_none(), "its time runs from the last report");
    let probes = [t.admitted(10_021), t.admitted(10_021)];
    assert_eq!(t.report(11_000, probes[0], 201, OK), None);
    let why = Why::ProbeFailed { failures: 0, slow: 2, probes: 2 };
    assert_eq!(t.report(11_000, probes[1], 201, OK), Some(Transition { to: State::Open, why }));
}

#[test]
fn a_probe_without_a_result_gives_its_place_back() {
    let mut t = timeline(Settings { probes: 1, ..settings() });
    t.outage(0);
    for at in 5_001..5_100 {
        let probe = t.admitted(at);
        assert!(t.ask(at).is_none());
        assert_eq!(t.report(at, probe, 0, Judgement::Nothing), None);
    }
    assert!(t.call(5_200, OK).is_some_and(|transition| transition.to == State::Closed));
}

#[test]
fn a_cancelled_call_counts_for_nothing() {
    let mut t = timeline(settings());
    for at in 0..100 {
        assert_eq!(t.call(at, Judgement::Nothing), None);
    }
    assert_eq!(t.view(100).calls, 0);
}

#[test]
fn late_results_count_for_nothing() {
    let mut t = timeline(settings());
    let late: Vec<_> = (0..10).map(|_| t.admitted(0)).collect();
    t.outage(1);
    assert_eq!(t.report(2, late[0], 2, BAD), None);
    let probes = [t.admitted(5_002), t.admitted(5_002)];
    assert_eq!(t.report(5_003, late[1], 5_003, OK), None, "no probe, whatever it brings");
    assert_eq!(t.report(5_003, late[2], 5_003, Judgement::Nothing), None);
    assert!(t.ask(5_004).is_none(), "a late call gives no probe's place back");
    assert_eq!(t.report(5_005, probes[0], 3, OK), None);
    assert!(t.report(5_005, probes[1], 3, OK).is_some());
    for ticket in &late[3..] {
        assert_eq!(t.report(5_006, *ticket, 5_006, BAD), None, "closed again, but it is another time");
    }
    assert_eq!(t.view(5_006).calls, 0);
}

#[test]
fn a_late_probe_counts_for_nothing() {
    let mut t = timeline(settings());
    t.outage(0);
    let probe = t.admitted(5_001);
    assert!(t.breaker.force(Forced::Open, t.start + ms(5_002)).is_some());
    assert_eq!(t.report(5_003, probe, 2, OK), None);
    let _ = t.breaker.force(Forced::Auto, t.start + ms(5_004));
    assert_eq!(t.report(5_005, probe, 4, BAD), None);
    assert_eq!(t.view(5_005).calls, 0);
}

#[test]
fn observing_refuses_nothing_and_goes_the_same_way() {
    let mut on = timeline(settings());
    let mut observing = timeline(Settings { mode: Mode::Observe, ..settings() });
    let mut random = crate::model::Random::seeded(3);
    let (mut refused, mut transitions, mut at) = (0, 0, 0);
    for _ in 0..20_000 {
        at += u64::from(random.below(40));
        let bad = (at / 7_000) % 2 == 1;
        let seen = observing.admitted(at);
        let judgement = if bad { BAD } else { OK };
        let expected = match on.ask(at) {
            Some(ticket) => on.report(at, ticket, 10, judgement),
            None => {
                refused += 1;
                None
            }
        };
        assert_eq!(observing.report(at, seen, 10, judgement), expected);
        assert_eq!(observing.breaker.state(), on.breaker.state());
        transitions += u32::from(expected.is_some());
    }
    assert!(refused > 1_000 && transitions > 20, "{refused} refused, {transitions} transitions");
}

#[test]
fn forced_open_refuses_everything_until_told_otherwise() {
    let mut t = timeline(settings());
    let forced = t.breaker.force(Forced::Open, t.start);
    assert_eq!(forced, Some(Transition { to: State::Open, why: Why::Forced }));
    assert_eq!(t.breaker.admit(t.start + ms(1_000_000)).verdict, Verdict::Refuse { retry_after: None });
    assert_eq!(t.view(1_000_000).probes_in, None);
    let freed = t.breaker.force(Forced::Auto, t.start + ms(1_000_001));
    assert_eq!(freed, Some(Transition { to: State::Closed, why: Why::Forced }));
    assert_eq!(t.call(1_000_002, OK), None);
}

#[test]
fn forced_open_stands_above_observing() {
    let mut t = timeline(Settings { mode: Mode::Observe, ..settings() });
    let _ = t.breaker.force(Forced::Open, t.start);
    assert!(t.ask(1).is_none());
}

#[test]
fn forced_closed_judges_nothing() {
    let mut t = timeline(settings());
    t.outage(0);
    let forced = t.breaker.force(Forced::Closed, t.start + ms(1));
    assert_eq!(forced, Some(Transition { to: State::Closed, why: Why::Forced }));
    for at in 2..100 {
        assert_eq!(t.call(at, BAD), None);
    }
    let view = t.view(100);
    assert_eq!((view.state, view.forced, view.calls), (State::Closed, Forced::Closed, 0));
    assert_eq!(t.breaker.force(Forced::Auto, t.start + ms(101)), None, "closed it was, closed it is");
    t.outage(102);
}

#[test]
fn saying_auto_again_does_not_close_an_open_breaker() {
    let mut t = timeline(settings());
    t.outage(0);
    assert_eq!(t.breaker.force(Forced::Auto, t.start + ms(1)), None);
    assert!(t.ask(2).is_none());
}

#[test]
fn forcing_what_it_is_already_is_no_transition() {
    let mut t = timeline(settings());
    t.outage(0);
    assert_eq!(t.breaker.force(Forced::Open, t.start + ms(1)), None);
    assert!(t.ask(60_000).is_none(), "but it holds now");
}

#[test]
fn the_view_tells_what_opened_it_and_when_it_probes() {
    let mut t = timeline(settings());
    t.outage(1_000);
    let view = t.view(2_500);
    assert_eq!((view.state, view.calls, view.failures), (State::Open, 4, 4));
    assert_eq!(view.probes_in, Some(ms(3_500)));
    assert_eq!(t.view(60_000).probes_in, Some(ms(0)), "any moment: it waits for a call");
}

#[test]
fn a_reload_keeps_an_open_breaker_open() {
    let mut t = timeline(settings());
    t.outage(0);
    t.breaker.reconfigure(Settings { open_for: ms(1_000), ..settings() }, t.start + ms(500));
    assert!(t.ask(1_000).is_none());
    assert!(t.admitted(1_001).is_probe());
}

#[test]
fn a_reload_with_fewer_probes_does_not_leave_it_half_open() {
    let mut t = timeline(Settings { probes: 5, ..settings() });
    t.outage(0);
    let probes: Vec<_> = (0..3).map(|_| t.admitted(5_001)).collect();
    for probe in &probes[..2] {
        assert_eq!(t.report(5_002, *probe, 1, OK), None);
    }
    t.breaker.reconfigure(settings(), t.start + ms(5_003));
    assert_eq!(t.report(5_004, probes[2], 1, OK), None, "a probe of the earlier probing");
    assert_eq!(t.call(5_005, OK), None);
    assert!(t.call(5_006, OK).is_some_and(|transition| transition.to == State::Closed));
}

#[test]
fn a_reload_with_another_window_begins_it_empty() {
    let mut t = timeline(settings());
    for at in 0..3 {
        assert_eq!(t.call(at, BAD), None);
    }
    t.breaker.reconfigure(Settings { slow_rate: Share(90.0), ..settings() }, t.start + ms(4));
    assert_eq!(t.view(4).calls, 3, "the same window goes on");
    t.breaker.reconfigure(Settings { window: ms(2_000), ..settings() }, t.start + ms(5));
    assert_eq!(t.view(5).calls, 0);
}

#[test]
fn zero_probes_are_taken_for_one() {
    let mut t = timeline(Settings { probes: 0, min_calls: 0, ..settings() });
    assert!(t.call(0, BAD).is_some(), "min_calls 0: the first call is enough");
    assert!(t.call(5_001, OK).is_some_and(|transition| transition.to == State::Closed));
}

#[test]
fn a_clock_read_before_the_change_does_no_harm() {
    let mut t = timeline(settings());
    t.outage(9_000);
    assert_eq!(t.breaker.admit(t.start).verdict, Verdict::Refuse { retry_after: Some(ms(5_000)) });
    assert_eq!(t.view(0).probes_in, Some(ms(5_000)));
}
