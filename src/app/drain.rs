//! The first phase of a stop: not ready any more, and everything goes on.
//!
//! Whoever stops a sidecar usually stops its app as well, and in no order that can be relied on. An app that finishes
//! its work needs the others for that, so closed ports at this moment are failures of our making. How long it
//! lasts is for `drain.until` to say, and `drain.for` in any case; then comes `shutdown`.
//!
//! Here it is only found out that the phase is over. Nothing is asked of the path of a call for that: each worker
//! counts its calls anyway, and is asked for the number now and then.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

use super::workers::{LAST_REQUEST, Workers};
use crate::{
    config::{Config, Source, Until},
    proxy::Pulse,
    service::now,
};

/// How often the workers are asked how busy they are.
const PULSE: Duration = Duration::from_millis(50);

/// How often it is tried whether the app still takes connections, and how long each trial may take.
const PROBE: Duration = Duration::from_millis(250);
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Refusals in a row after which an app is gone: one may be a restart of its listener.
const REFUSALS: u32 = 2;

/// Waits until the app needs us no more, by what the config says, its limit included.
pub(super) async fn drained(config: &Config, workers: &Workers) {
    let (until, limit, app) = (config.drain.until, config.drain.limit, app(config));
    let over = async {
        match (until, app) {
            (Until::Time, _) => std::future::pending().await,
            (Until::App, Some(app)) => {
                gone(app).await;
                tracing::info!(%app, "the app is gone");
            }
            (Until::App, None) => {
                tracing::warn!(
                    "drain.until is `app`, and there is none that is known: neither `run -- APP` nor `inbound`; \
                     waiting for calls in flight instead"
                );
                quiet(workers).await;
            }
            (Until::Calls, _) => quiet(workers).await,
        }
    };
    if timeout(limit, over).await.is_err() && until != Until::Time {
        tracing::warn!(?limit, "drain.for is over before what drain.until waits for");
    }
}

/// What ends the phase, as the configuration writes it.
pub(super) fn word(until: Until) -> &'static str {
    match until {
        Until::Calls => "calls",
        Until::Time => "time",
        Until::App => "app",
    }
}

/// Where the app behind the receiving side is.
fn app(config: &Config) -> Option<SocketAddr> {
    match &config.inbound.as_ref()?.service.source {
        Source::Static(addrs) => addrs.first().copied(),
        _ => None,
    }
}

/// Waits until no call has been in flight for as long as an app may take from one to the next.
async fn quiet(workers: &Workers) {
    let mut quiet = Quiet::begin(workers.pulse().await, now());
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        if quiet.is_over(workers.pulse().await, now()) {
            return;
        }
    }
}

/// Since when there has been no call, as far as can be seen from time to time.
#[derive(Debug)]
struct Quiet {
    since: Instant,
    begun: u64,
}

impl Quiet {
    fn begin(pulse: Pulse, now: Instant) -> Self {
        Self { since: now, begun: pulse.begun }
    }

    /// Takes a look; whether it has been quiet for long enough.
    fn is_over(&mut self, pulse: Pulse, now: Instant) -> bool {
        if pulse.in_flight > 0 || pulse.begun != self.begun {
            *self = Self::begin(pulse, now);
        }
        now.saturating_duration_since(self.since) >= LAST_REQUEST
    }
}

/// Waits until nobody accepts connections there any more. A trial that takes too long says nothing: the app may be
/// busy.
async fn gone(app: SocketAddr) {
    let mut probe = interval(PROBE);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refusals = 0;
    while refusals < REFUSALS {
        probe.tick().await;
        match timeout(PROBE_LIMIT, TcpStream::connect(app)).await {
            Ok(Ok(_)) => refusals = 0,
            Ok(Err(_)) => refusals += 1,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(in_flight: u64, begun: u64) -> Pulse {
        Pulse { in_flight, begun }
    }

    #[test]
    fn quiet_is_no_call_for_a_while() {
        let start = now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut quiet = Quiet::begin(pulse(0, 7), start);
        assert!(!quiet.is_over(pulse(0, 7), at(249)));
        assert!(quiet.is_over(pulse(0, 7), at(250)));
    }

    #[test]
    fn a_call_that_nobody_saw_counts_too() {
        let start = now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut quiet = Quiet::begin(pulse(0, 7), start);
        assert!(!quiet.is_over(pulse(0, 8), at(240)), "one has come and gone");
        assert!(!quiet.is_over(pulse(0, 8), at(489)));
        assert!(quiet.is_over(pulse(0, 8), at(490)));
    }

    #[test]
    fn a_call_in_flight_is_not_quiet_however_long_it_takes() {
        let start = now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut quiet = Quiet::begin(pulse(1, 1), start);
        assert!(!quiet.is_over(pulse(1, 1), at(1000)));
        assert!(!quiet.is_over(pulse(0, 1), at(1000)), "it begins with its end");
        assert!(quiet.is_over(pulse(0, 1), at(1001)));
    }

    #[tokio::test]
    async fn an_app_is_gone_when_it_refuses_twice() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut waiting = tokio::spawn(gone(addr));
        for _ in 0..3 {
            listener.accept().await.unwrap();
        }
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err(), "it accepts");
        drop(listener);
        timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
    }
}
