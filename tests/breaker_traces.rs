//! The breaker beside a real one: traces that resilience4j printed, call by call.
//!
//! `tests/data/resilience4j-breaker.json` comes from resilience4j 2.2.0's own circuit breaker with a
//! time-based window of ten one-second buckets, under a clock that the trace drives. Each trace holds its
//! settings (shares in per cent, times in ms) and its calls, one after the other:
//! `[start, permitted 0|1, took, ok 0|1, the state after the call ended or was refused]`.
//!
//! `OUTRIGGER_BREAKER_TRACES=PATH` runs another file of that format as well.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use outrigger::{
    model::Judgement,
    policy::{
        Share,
        breaker::{Breaker, Mode, Settings, Verdict},
    },
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Trace {
    error_rate: f64,
    min_calls: u32,
    window_ms: u64,
    open_for_ms: u64,
    probes: u32,
    /// Absent where the trace left resilience4j's defaults alone: slow is over 60 s, and 100 % of it trips.
    #[serde(default = "sixty_seconds")]
    slow_call_ms: u64,
    #[serde(default = "all")]
    slow_rate: f64,
    calls: Vec<(u64, u8, u64, u8, String)>,
}

fn sixty_seconds() -> u64 {
    60_000
}

fn all() -> f64 {
    100.0
}

impl Trace {
    fn settings(&self) -> Settings {
        Settings {
            error_rate: Share::percent(self.error_rate).expect("a share is 0 to 100"),
            min_calls: self.min_calls,
            window: Duration::from_millis(self.window_ms),
            open_for: Duration::from_millis(self.open_for_ms),
            // resilience4j decides about half-open after min(minimumNumberOfCalls, permitted) results. We have
            // no such rule: `probes` is how many it takes. One call after the other, that is the same thing.
            probes: self.probes.min(self.min_calls),
            slow_call: Some(Duration::from_millis(self.slow_call_ms)),
            slow_rate: Share::percent(self.slow_rate).expect("a share is 0 to 100"),
            mode: Mode::On,
        }
    }

    /// Runs the calls through a breaker of ours; the first difference, if there is one.
    #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn replay(&self) -> Result<(), String> {
        let start = Instant::now();
        let mut breaker = Breaker::new(self.settings(), start);
        for (n, (at, permitted, took, ok, state)) in self.calls.iter().enumerate() {
            let asked = start + Duration::from_millis(*at);
            let admitted = match breaker.admit(asked).verdict {
                Verdict::Admit(ticket) => {
                    let judgement = if *ok == 1 { Judgement::Success } else { Judgement::Failure };
                    let took = Duration::from_millis(*took);
                    let _ = breaker.record(asked + took, ticket, took, judgement);
                    true
                }
                Verdict::Refuse { .. } => false,
            };
            if admitted != (*permitted == 1) || breaker.state().as_str() != state {
                let ours = breaker.state();
                return Err(format!(
                    "call {n} at {at} ms: admitted {admitted}, then {ours}; theirs: {permitted}, then {state}"
                ));
            }
        }
        Ok(())
    }
}

/// Replays every trace of a file; how many traces and calls that were.
fn replay_file(path: &Path) -> (usize, usize) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let traces: Vec<Trace> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!traces.is_empty(), "{} holds no trace", path.display());
    for (n, trace) in traces.iter().enumerate() {
        trace.replay().unwrap_or_else(|difference| panic!("{}: trace {n}, {difference}", path.display()));
    }
    let calls = traces.iter().map(|trace| trace.calls.len()).sum();
    assert_ne!(calls, 0, "{} holds traces without a call", path.display());
    (traces.len(), calls)
}

#[test]
fn it_reproduces_the_traces_of_resilience4j() {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/resilience4j-breaker.json");
    let (traces, calls) = replay_file(&ours);
    assert_eq!((traces, calls), (120, 19_200), "the file that is checked in is whole");
    if let Some(other) = std::env::var_os("OUTRIGGER_BREAKER_TRACES") {
        let (traces, calls) = replay_file(&PathBuf::from(other));
        println!("{traces} more traces, {calls} calls");
    }
}

/// A replay that accepts everything would pass the test above too.
#[test]
fn a_trace_of_resilience4j_that_is_tampered_with_is_noticed() {
    let trace = |state: &str| Trace {
        error_rate: 50.0,
        min_calls: 1,
        window_ms: 10_000,
        open_for_ms: 1_000,
        probes: 1,
        slow_call_ms: 60_000,
        slow_rate: 100.0,
        calls: vec![(0, 1, 5, 0, "open".into()), (1_005, 0, 0, 1, "open".into()), (1_006, 1, 5, 1, state.into())],
    };
    assert_eq!(trace("closed").replay(), Ok(()));
    assert!(trace("half_open").replay().is_err());
}
