//! The live picture: a scene in, text out.
//!
//! Nothing here reads a clock, a terminal or a socket, so that a test can hold the very characters.
//! It fits 80 columns and 24 lines, as a terminal's size cannot be asked for without unsafe code.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use super::{
    character::Mood,
    figures::{grouped, millis},
    statistics::{KEPT, ServiceStatistics, Statistics},
    watch::{BreakerState, Watch},
};

/// Seconds whose calls the latencies speak of.
const LATENCY_OVER: u64 = 5;

/// Everything that the picture shows.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    /// Since the start.
    pub elapsed: Duration,
    /// The sidecar's shared port.
    pub http: SocketAddr,
    /// Its observe port.
    pub observe: SocketAddr,
    /// What the caller saw.
    pub statistics: &'a Statistics,
    /// How each service's upstreams are right now, in the same order.
    pub moods: &'a [Mood],
    /// Each service's breaker, in the same order.
    pub breakers: &'a [Watch],
}

/// How text is set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Not at all.
    Plain,
    /// In the terminal's colours (ECMA-48 SGR).
    Colour,
}

#[derive(Debug, Clone, Copy)]
enum Ink {
    Bold = 1,
    Faint = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
}

impl Paint {
    fn ink(self, ink: Ink, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\x1b[{}m{text}\x1b[0m", ink as u8),
        }
    }
}

/// The whole picture, for a screen that is drawn anew.
pub(crate) fn picture(scene: &Scene<'_>, paint: Paint) -> String {
    let mut text = String::with_capacity(4096);
    let head = format!("outrigger demo · {} s", scene.elapsed.as_secs());
    let _ = writeln!(text, "{}  ·  http {}  ·  observe {}\n", paint.ink(Ink::Bold, &head), scene.http, scene.observe);
    let columns = format!(
        "{:<9} {:<9} {:>7} {:>7} {:>7}  {:<9} {:>8} {:>7} {:>8}",
        "SERVICE", "UPSTREAM", "CALLS/S", "P50 MS", "P99 MS", "BREAKER", "OK", "ERRORS", "LOCAL"
    );
    let _ = writeln!(text, "{}", paint.ink(Ink::Faint, &columns));
    for (index, service) in scene.statistics.services.iter().enumerate() {
        let _ = writeln!(text, "{}", row(scene, index, service, paint));
    }
    let _ =
        writeln!(text, "\n{}", paint.ink(Ink::Faint, "LOCAL REPLIES: what outrigger answered in the upstream's stead"));
    for service in &scene.statistics.services {
        let reasons: Vec<_> = service
            .total
            .local_replies()
            .map(|(reason, count)| format!("{} {}", reason.as_str(), grouped(count)))
            .collect();
        let _ =
            writeln!(text, "{:<9} {}", service.name, if reasons.is_empty() { "-".into() } else { reasons.join("  ") });
    }
    let legend = "LAST 60 S, a column a second: the taller, the more calls succeeded";
    let _ = writeln!(text, "\n{}", paint.ink(Ink::Faint, legend));
    for (index, service) in scene.statistics.services.iter().enumerate() {
        let (calls, breaker) = timeline(scene, index, service, paint);
        let _ = writeln!(text, "{:<9} {calls}\n{:<9} {breaker}", service.name, "  breaker");
    }
    let _ = writeln!(text, "{}", paint.ink(Ink::Faint, "          · closed   ½ half-open   # open"));
    let hint = format!("\nTry: curl -iH 'Host: payments' http://{}/   (Ctrl-C ends the demo)", scene.http);
    text.push_str(&paint.ink(Ink::Faint, &hint));
    text.push('\n');
    text
}

fn row(scene: &Scene<'_>, index: usize, service: &ServiceStatistics, paint: Paint) -> String {
    let second = scene.elapsed.as_secs();
    let rate = service.before(second, 1).calls;
    let recent = service.before(second + 1, LATENCY_OVER).latency;
    let mood = scene.moods.get(index).copied().unwrap_or(Mood::Well);
    let state = scene.breakers.get(index).map_or(BreakerState::Unknown, Watch::now);
    // Padded first, as a colour's bytes are no columns.
    let mood = paint.ink(mood_ink(mood), &format!("{:<9}", mood_word(mood)));
    let breaker = paint.ink(state_ink(state), &format!("{:<9}", state_word(state)));
    format!(
        "{:<9} {mood} {:>7} {:>7} {:>7}  {breaker} {:>8} {:>7} {:>8}",
        service.name,
        grouped(rate),
        millis(recent.quantile(0.5)),
        millis(recent.quantile(0.99)),
        grouped(service.total.ok()),
        grouped(service.total.upstream_errors() + service.total.no_answer),
        grouped(service.total.all_local()),
    )
}

/// Two rows of characters, one a second: how many calls succeeded, and what the breaker did.
fn timeline(scene: &Scene<'_>, index: usize, service: &ServiceStatistics, paint: Paint) -> (String, String) {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (mut calls, mut breaker) = (String::new(), String::new());
    // The second that runs is left out: it would always look like a collapse.
    let end = scene.elapsed.as_secs();
    for second in end.saturating_sub(KEPT as u64)..end {
        match service.second(second).filter(|tally| tally.calls > 0) {
            Some(tally) => {
                let share = tally.ok() as f64 / tally.calls as f64;
                let ink = match share {
                    0.99.. => Ink::Green,
                    0.5.. => Ink::Yellow,
                    _ => Ink::Red,
                };
                calls.push_str(&paint.ink(ink, &HEIGHTS[(share * 7.0).round() as usize].to_string()));
            }
            None => calls.push(' '),
        }
        let state = scene.breakers.get(index).map_or(BreakerState::Unknown, |watch| watch.during(second));
        let mark = match state {
            BreakerState::Unknown => " ",
            BreakerState::Closed => "·",
            BreakerState::HalfOpen => "½",
            BreakerState::Open => "#",
        };
        breaker.push_str(&paint.ink(state_ink(state), mark));
    }
    (calls, breaker)
}

/// One line for the second that has just ended, where nothing can be drawn anew.
pub(crate) fn line(scene: &Scene<'_>) -> String {
    let second = scene.elapsed.as_secs();
    let mut text = format!("{second:>4} s");
    for (index, service) in scene.statistics.services.iter().enumerate() {
        let tally = service.before(second, 1);
        let mood = scene.moods.get(index).copied().unwrap_or(Mood::Well);
        let state = scene.breakers.get(index).map_or(BreakerState::Unknown, Watch::now);
        let _ = write!(
            text,
            " | {} ({}) {}/s, p50 {} p99 {} ms, ok {}",
            service.name,
            mood_word(mood),
            grouped(tally.calls),
            millis(tally.latency.quantile(0.5)),
            millis(tally.latency.quantile(0.99)),
            grouped(tally.ok()),
        );
        for (word, count) in [("errors", tally.upstream_errors()), ("no answer", tally.no_answer)] {
            if count > 0 {
                let _ = write!(text, ", {word} {}", grouped(count));
            }
        }
        for (reason, count) in tally.local_replies() {
            let _ = write!(text, ", {} {}", reason.as_str(), grouped(count));
        }
        let _ = write!(text, ", breaker {}", state_word(state));
    }
    text
}

fn mood_word(mood: Mood) -> &'static str {
    match mood {
        Mood::Well => "well",
        Mood::Slower => "SLOW",
        Mood::Failing => "FAILING",
    }
}

fn mood_ink(mood: Mood) -> Ink {
    match mood {
        Mood::Well => Ink::Green,
        Mood::Slower => Ink::Yellow,
        Mood::Failing => Ink::Red,
    }
}

fn state_word(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Unknown => "-",
        BreakerState::Closed => "closed",
        BreakerState::HalfOpen => "half-open",
        BreakerState::Open => "OPEN",
    }
}

fn state_ink(state: BreakerState) -> Ink {
    match state {
        BreakerState::Unknown | BreakerState::Closed => Ink::Green,
        BreakerState::HalfOpen => Ink::Yellow,
        BreakerState::Open => Ink::Red,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::demo::{cast::CAST, statistics::Ended},
        model::{Outcome, Reason},
    };

    /// Eight seconds of which payments failed for the last three.
    fn with_scene(check: impl FnOnce(&Scene<'_>)) {
        let mut statistics = Statistics::new(CAST.iter().map(|role| role.name));
        for second in 0..8u64 {
            let bad = if second < 5 { Outcome::Ok } else { Outcome::Failed(Reason::BreakerOpen) };
            for (service, outcome, count, took) in
                [(0, Outcome::Ok, 100, 2_000), (1, bad, 99, 150), (1, Outcome::Ok, 30, 4_000)]
            {
                for _ in 0..count {
                    let at = Duration::from_millis(second * 1000 + 500);
                    let took = Duration::from_micros(took);
                    statistics.ended(&Ended { service, at, took, late: false, outcome: Ok(outcome), instance: None });
                }
            }
        }
        let mut breakers = vec![Watch::default(); 3];
        breakers.iter_mut().take(2).for_each(|watch| watch.saw(Duration::from_millis(100), BreakerState::Closed));
        breakers[1].saw(Duration::from_millis(5_700), BreakerState::Open);
        breakers[1].saw(Duration::from_millis(6_700), BreakerState::HalfOpen);
        check(&Scene {
            elapsed: Duration::from_millis(8_200),
            http: "127.0.0.1:8470".parse().unwrap(),
            observe: "127.0.0.1:8471".parse().unwrap(),
            statistics: &statistics,
            moods: &[Mood::Well, Mood::Failing, Mood::Slower],
            breakers: &breakers,
        });
    }

    #[test]
    fn the_picture_is_drawn_to_the_character() {
        let expected = "\
outrigger demo · 8 s  ·  http 127.0.0.1:8470  ·  observe 127.0.0.1:8471

SERVICE   UPSTREAM  CALLS/S  P50 MS  P99 MS  BREAKER         OK  ERRORS    LOCAL
catalog   well          100     2.0     2.0  closed         800       0        0
payments  FAILING       129    0.15     4.0  half-open      735       0      297
search    SLOW            0       -       -  -                0       0        0

LOCAL REPLIES: what outrigger answered in the upstream's stead
catalog   -
payments  breaker_open 297
search    -

LAST 60 S, a column a second: the taller, the more calls succeeded
catalog   ████████
  breaker ········
payments  █████▃▃▃
  breaker ·····##½
search
  breaker
          · closed   ½ half-open   # open

Try: curl -iH 'Host: payments' http://127.0.0.1:8470/   (Ctrl-C ends the demo)
";
        with_scene(|scene| {
            // An editor may drop blanks at the end of a line; nobody sees them on a screen either.
            let drawn: Vec<_> = picture(scene, Paint::Plain).lines().map(|line| line.trim_end().to_owned()).collect();
            assert_eq!(drawn.join("\n") + "\n", expected);
        });
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        with_scene(|scene| {
            let mut plain = String::new();
            let mut rest = &*picture(scene, Paint::Colour);
            while let Some((before, escape)) = rest.split_once("\x1b[") {
                plain.push_str(before);
                rest = escape.split_once('m').expect("each escape ends in m").1;
            }
            plain.push_str(rest);
            assert_eq!(plain, picture(scene, Paint::Plain));
        });
    }

    #[test]
    fn it_fits_a_small_terminal_however_large_the_figures() {
        with_scene(|scene| {
            let scene = Scene { elapsed: Duration::from_secs(9_000_000), ..*scene };
            let text = picture(&scene, Paint::Plain);
            assert!(text.lines().count() < 24);
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        });
    }

    #[test]
    fn a_line_tells_the_second_that_ended() {
        let expected = "   8 s | catalog (well) 100/s, p50 2.0 p99 2.0 ms, ok 100, breaker closed \
             | payments (FAILING) 129/s, p50 0.15 p99 4.0 ms, ok 30, breaker_open 99, breaker half-open \
             | search (SLOW) 0/s, p50 - p99 - ms, ok 0, breaker -";
        with_scene(|scene| assert_eq!(line(scene), expected));
    }
}
