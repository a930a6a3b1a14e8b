//! The adaptive limit: how many outstanding calls is a service good for right now?
//!
//! A service that is asked for more than it can do answers later, not more. So its latency tells: as long as it takes
//! no longer than it did over the long run, the limit may grow; when it takes longer, somebody waits in there, and
//! the limit falls by as much. The rules are those of Netflix's `Gradient2` limit (concurrency-limits), with a window
//! that is counted in samples and time, so that one slow answer moves nothing:
//!
//! - `gradient` = long-term latency × 1.5 / latency of the last window, between a half and one;
//! - the limit goes a fifth of the way to `limit × gradient + √limit`, where the root is the room for a short queue;
//! - it grows only while it is used: with fewer than half of it in flight nothing is learnt of what it could bear;
//! - the long-term latency follows slowly (a thousandth a window, some minutes under load), and catches up at once when the service has become
//!   much faster.
//!
//! A call that timed out counts with the time that it took. One that failed fast says nothing about room.

use std::time::{Duration, Instant};

/// How the limit of a bulkhead follows the service's latency. Its ceiling is the bulkhead's `max`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The limit never falls below. Default 5.
    pub floor: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { floor: 5 }
    }
}

/// How much longer than in the long run an answer may take before the limit falls.
const TOLERANCE: f64 = 1.5;
/// How far the limit goes in one window towards where it should be.
const SMOOTHING: f64 = 0.2;
/// What a window needs before it is looked at.
const SAMPLES: u32 = 10;
const WINDOW: Duration = Duration::from_millis(100);
/// How much of a window the long-term latency takes over.
const MEMORY: f64 = 0.001;

/// One service's limit.
#[derive(Debug, Clone)]
pub struct Adaptive {
    floor: f64,
    ceiling: f64,
    limit: f64,
    /// Seconds; `None` before the first window.
    long: Option<f64>,
    short: f64,
    gradient: f64,
    begun: Option<Instant>,
    samples: u32,
    sum: f64,
    most_in_flight: u32,
}

/// A limit, for people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// The limit now.
    pub limit: u32,
    /// It never falls below.
    pub floor: u32,
    /// It never rises above.
    pub ceiling: u32,
    /// The mean latency of the last window; zero before there was one.
    pub short: Duration,
    /// The long-term latency.
    pub long: Duration,
    /// What the two make of the limit: 1 lets it grow, ½ halves what it aims at.
    pub gradient: f64,
}

impl Adaptive {
    /// A limit that starts at its ceiling: it falls when there is a reason.
    pub fn new(settings: &Settings, ceiling: u32) -> Self {
        let ceiling = f64::from(ceiling.max(1));
        Self {
            floor: f64::from(settings.floor).min(ceiling),
            ceiling,
            limit: ceiling,
            long: None,
            short: 0.0,
            gradient: 1.0,
            begun: None,
            samples: 0,
            sum: 0.0,
            most_in_flight: 0,
        }
    }

    /// Takes other bounds and keeps what it has learnt.
    pub fn reconfigure(&mut self, settings: &Settings, ceiling: u32) {
        self.ceiling = f64::from(ceiling.max(1));
        self.floor = f64::from(settings.floor).min(self.ceiling);
        self.limit = self.limit.clamp(self.floor, self.ceiling);
    }

    /// An answer took so long, with so many calls in flight, itself included. The limit, if that has changed.
    pub fn record(&mut self, now: Instant, took: Duration, in_flight: u32) -> Option<u32> {
        self.samples += 1;
        self.sum += took.as_secs_f64();
        self.most_in_flight = self.most_in_flight.max(in_flight);
        let begun = *self.begun.get_or_insert(now);
        if self.samples < SAMPLES || now.saturating_duration_since(begun) < WINDOW {
            return None;
        }
        let before = self.limit();
        self.judge(self.sum / f64::from(self.samples));
        (self.begun, self.samples, self.sum, self.most_in_flight) = (None, 0, 0.0, 0);
        Some(self.limit()).filter(|limit| *limit != before)
    }

    /// The limit now.
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// How it stands, for people.
    pub fn view(&self) -> View {
        View {
            limit: self.limit(),
            floor: self.floor as u32,
            ceiling: self.ceiling as u32,
            short: Duration::from_secs_f64(self.short),
            long: Duration::from_secs_f64(self.long.unwrap_or(0.0)),
            gradient: self.gradient,
        }
    }

    /// One window has shown this mean latency.
    fn judge(&mut self, short: f64) {
        // Below a microsecond there is nothing to be told apart.
        let short = short.max(1e-6);
        self.short = short;
        let long = self.long.map_or(short, |long| long + MEMORY * (short - long));
        // Much faster than ever: what was learnt in bad times is worth nothing.
        let long = if long > 2.0 * short { long.min(2.0 * short) } else { long };
        self.long = Some(long);
        self.gradient = (TOLERANCE * long / short).clamp(0.5, 1.0);
        let is_used = 2.0 * f64::from(self.most_in_flight) >= self.limit;
        if self.gradient >= 1.0 && !is_used {
            return;
        }
        let aim = self.limit * self.gradient + self.limit.sqrt();
        self.limit = (self.limit + SMOOTHING * (aim - self.limit)).clamp(self.floor, self.ceiling);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
mod tests {
    use super::*;
    use crate::model::Random;

    /// A service that does so many calls at once, each in so long; more wait for their turn.
    struct Server {
        at_once: f64,
        each: f64,
    }

    impl Server {
        fn latency(&self, in_flight: f64) -> f64 {
            self.each * (in_flight / self.at_once).max(1.0)
        }
    }

    /// Drives it for so many seconds with as many callers as it lets in, of at most `demand`; checks the bounds.
    fn drive(limit: &mut Adaptive, server: &Server, seconds: u32, demand: u32, random: &mut Random, now: &mut Instant) {
        let end = *now + Duration::from_secs(u64::from(seconds));
        while *now < end {
            let in_flight = demand.min(limit.limit());
            let latency = server.latency(f64::from(in_flight)) * (0.7 + 0.6 * random.share());
            *now += Duration::from_secs_f64((latency / f64::from(in_flight)).min(1.0));
            limit.record(*now, Duration::from_secs_f64(latency), in_flight);
            let view = limit.view();
            assert!(view.floor <= view.limit && view.limit <= view.ceiling, "{view:?}");
        }
    }

    #[test]
    fn it_stays_at_its_ceiling_while_latency_does_not_rise() {
        for seed in 0..5 {
            let (mut random, mut now) = (Random::seeded(seed), Instant::now());
            let mut limit = Adaptive::new(&Settings::default(), 100);
            drive(&mut limit, &Server { at_once: 1000.0, each: 0.02 }, 300, 100, &mut random, &mut now);
            assert!(limit.limit() >= 95, "seed {seed}: {:?}", limit.view());
        }
    }

    #[test]
    fn it_falls_when_a_service_slows_down_and_rises_when_it_recovers() {
        for seed in 0..5 {
            let (mut random, mut now) = (Random::seeded(seed), Instant::now());
            let mut limit = Adaptive::new(&Settings::default(), 200);
            drive(&mut limit, &Server { at_once: 200.0, each: 0.02 }, 30, 200, &mut random, &mut now);
            assert!(limit.limit() >= 180, "seed {seed}: healthy {:?}", limit.view());
            drive(&mut limit, &Server { at_once: 10.0, each: 0.02 }, 20, 200, &mut random, &mut now);
            assert!(limit.limit() <= 60, "seed {seed}: overloaded {:?}", limit.view());
            drive(&mut limit, &Server { at_once: 200.0, each: 0.02 }, 30, 200, &mut random, &mut now);
            assert!(limit.limit() >= 160, "seed {seed}: recovered {:?}", limit.view());
        }
    }

    #[test]
    fn a_service_that_is_slower_for_good_gets_its_limit_back() {
        let (mut random, mut now) = (Random::seeded(1), Instant::now());
        let mut limit = Adaptive::new(&Settings::default(), 100);
        drive(&mut limit, &Server { at_once: 1000.0, each: 0.01 }, 30, 100, &mut random, &mut now);
        drive(&mut limit, &Server { at_once: 1000.0, each: 0.05 }, 3, 100, &mut random, &mut now);
        assert!(limit.limit() < 100, "{:?}", limit.view());
        drive(&mut limit, &Server { at_once: 1000.0, each: 0.05 }, 300, 100, &mut random, &mut now);
        assert!(limit.limit() >= 90, "{:?}", limit.view());
    }

    #[test]
    fn it_does_not_grow_while_it_is_not_used() {
        let (mut random, mut now) = (Random::seeded(1), Instant::now());
        let mut limit = Adaptive::new(&Settings { floor: 2 }, 100);
        drive(&mut limit, &Server { at_once: 1000.0, each: 0.01 }, 10, 100, &mut random, &mut now);
        drive(&mut limit, &Server { at_once: 5.0, each: 0.01 }, 10, 100, &mut random, &mut now);
        let low = limit.limit();
        drive(&mut limit, &Server { at_once: 1000.0, each: 0.01 }, 10, low / 4, &mut random, &mut now);
        assert!(limit.limit() <= low + 1, "{:?}", limit.view());
    }

    #[test]
    fn bounds_can_change_under_way() {
        let mut limit = Adaptive::new(&Settings { floor: 5 }, 100);
        limit.reconfigure(&Settings { floor: 5 }, 30);
        assert_eq!(limit.limit(), 30);
        limit.reconfigure(&Settings { floor: 50 }, 10);
        assert_eq!((limit.limit(), limit.view().floor), (10, 10));
    }
}
