//! `outrigger top`: the services, live.
//!
//! On a terminal a table that is redrawn each second, the services in trouble first; to a pipe a line a service
//! and second. Rates are differences of the counters that the sidecar keeps, so that nothing is missed between two looks.

mod sample;

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    time::Duration,
};

use tokio::time::{self, Instant, MissedTickBehavior};

use self::sample::Sample;
use super::{
    Failure,
    client::Door,
    find,
    layout::{Table, duration, printable},
    print,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Services that a terminal shows; its height is not known without asking the system in unsafe ways.
const ROWS: usize = 18;

/// What to show, and for how long.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End after this time, as 5s, 500ms or 2m; otherwise at Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = time_span)]
    limit: Option<Duration>,
    #[command(flatten)]
    place: find::Place,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let door = args.place.for_questions()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| Failure::Internal(format!("cannot start a clock: {error}")))?;
    runtime.block_on(watch(&door, args.limit))
}

/// Looks and shows, each second. The look itself blocks: there is nothing else on this runtime.
async fn watch(door: &Door, limit: Option<Duration>) -> Result<(), Failure> {
    let terminal = io::stdout().is_terminal();
    let start = Instant::now();
    let mut ticks = time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Sample> = None;
    loop {
        let tick = ticks.tick();
        match limit {
            Some(limit) if last.is_some() => match time::timeout_at(start + limit, tick).await {
                Ok(_) if start.elapsed() < limit => {}
                Ok(_) | Err(_) => return Ok(()),
            },
            _ => {
                tick.await;
            }
        }
        match look(door, last.as_ref()) {
            Ok(sample) => {
                print(&if terminal { screen(door, &sample) } else { lines(&sample) })?;
                last = Some(sample);
            }
            // A sidecar that restarts is worth waiting for; one that was never there is not.
            Err(Failure::No(why)) if last.is_some() => {
                print(&if terminal { format!("\x1b[H{why}\x1b[K\n") } else { format!("{why}\n") })?;
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn look(door: &Door, last: Option<&Sample>) -> Result<Sample, Failure> {
    let services: sample::Services = door.get("/api/services")?.accepted()?.json()?;
    Ok(Sample::new(services, Instant::now().into_std(), last))
}

/// The screen from its top: each line is cleared to its end, then what is below. The screen is never cleared as a
/// whole, which would flicker, nor switched, so that Ctrl-C leaves nothing to restore.
fn screen(door: &Door, sample: &Sample) -> String {
    let mut table = Table::new(["SERVICE", "ENDPOINTS", "BREAKER", "IN FLIGHT", "CALLS/S", "FAILED/S", "LATENCY"]);
    let rows = sample.worst_first();
    for row in rows.iter().take(ROWS) {
        table.row([
            row.name.clone(),
            format!("{}/{}", row.ready, row.endpoints),
            row.breaker.clone(),
            row.bulkhead.map_or_else(|| "-".into(), |(in_flight, limit)| format!("{in_flight}/{limit}")),
            row.rates.map_or_else(|| "-".into(), |rates| format!("{:.1}", rates.calls)),
            row.rates.map_or_else(|| "-".into(), |rates| format!("{:.1}", rates.failed)),
            duration(row.latency_ms),
        ]);
    }
    let mut text = format!("\x1b[Houtrigger at {door}\x1b[K\n\x1b[K\n");
    for line in table.lines() {
        text.extend([&line, "\x1b[K\n"]);
    }
    if rows.len() > ROWS {
        let more = rows.len() - ROWS;
        writeln!(text, "and {more} more, less troubled; `outrigger top | cat` lists all\x1b[K")
            .expect("writing to memory cannot fail");
    }
    text + "\x1b[J"
}

/// A line a service, in `key=value` pairs.
fn lines(sample: &Sample) -> String {
    let mut text = String::new();
    for row in sample.rows() {
        let rate = |pick: fn(sample::Rates) -> f64| {
            row.rates.map_or_else(|| "-".into(), |rates| format!("{:.1}", pick(rates)))
        };
        let (in_flight, limit) =
            row.bulkhead.map_or(("-".into(), "-".into()), |(n, limit)| (n.to_string(), limit.to_string()));
        writeln!(
            text,
            "service={} ready={} endpoints={} breaker={} in_flight={in_flight} limit={limit} calls_per_s={} failed_per_s={} latency_ms={:.1}",
            printable(&row.name),
            row.ready,
            row.endpoints,
            printable(&row.breaker),
            rate(|rates| rates.calls),
            rate(|rates| rates.failed),
            row.latency_ms,
        )
        .expect("writing to memory cannot fail");
    }
    if text.is_empty() { "no services\n".into() } else { text }
}

/// `5s`, `500ms`, `2m`.
fn time_span(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err("a time is a number and a unit: 500ms, 5s, 2m".into()),
    };
    let millis = number.parse::<u32>().map_err(|error| error.to_string())?;
    Ok(Duration::from_millis(u64::from(millis) * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(time_span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time_span("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(time_span("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "5h", "-5s", "5 s", "99999999999s", "1.5s"] {
            assert!(time_span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_screen_and_its_lines() {
        let sample = sample::tests::two_looks();
        let text = screen(&Door::Observe(([127, 0, 0, 1], 8471).into()), &sample);
        let plain = text.replace("\x1b[H", "").replace("\x1b[K", "").replace("\x1b[J", "");
        assert_eq!(
            plain,
            "\
outrigger at 127.0.0.1:8471

SERVICE   ENDPOINTS  BREAKER  IN FLIGHT  CALLS/S  FAILED/S  LATENCY
payments  1/2        open     3/100      20.0     15.0      80 ms
orders    2/2        off      -          50.0     0.0       2.0 ms
"
        );
        assert_eq!(
            lines(&sample),
            "\
service=orders ready=2 endpoints=2 breaker=off in_flight=- limit=- calls_per_s=50.0 failed_per_s=0.0 latency_ms=2.0
service=payments ready=1 endpoints=2 breaker=open in_flight=3 limit=100 calls_per_s=20.0 failed_per_s=15.0 latency_ms=80.0
"
        );
    }
}
