//! The shell of ejection: each endpoint's record behind its lock, and what picking has to know of it without one.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Live, Service, Slot, endpoint::epoch, lock};
use crate::{
    model::{Judgement, Random},
    policy::ejection::{Change, Member, Reason, Settings, State},
};

/// One endpoint's record. What picking looks at is a mirror of it in atomics: a call that sees it a moment late goes
/// to an endpoint that it would have gone to a moment before.
#[derive(Debug, Default)]
pub(super) struct Record {
    member: Mutex<Member>,
    /// It is out of rotation.
    out: AtomicBool,
    /// When its slow start began, in microseconds since the epoch; 0 when it has never been out.
    back: AtomicU64,
}

/// One service's ejections.
#[derive(Debug)]
pub(super) struct Ejections {
    /// Somebody is out, or was a while ago: picking has to look.
    unsettled: AtomicBool,
    /// Two that fail at once must not both take the last place; and draws how long an ejection lasts.
    deciding: Mutex<Random>,
}

impl Default for Ejections {
    fn default() -> Self {
        // Sidecars that eject at the same moment should not come back together.
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
        Self { unsettled: AtomicBool::new(false), deciding: Mutex::new(Random::seeded(seed)) }
    }
}

/// Which endpoints may be picked at a moment.
#[derive(Clone, Copy)]
pub(super) struct Rotation {
    slow_start: Option<Duration>,
    now: u64,
    draw: f64,
}

impl Record {
    /// Whether it is out of rotation.
    pub(super) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> (State, bool) {
        let member = lock(&self.member);
        (member.state(), member.is_down())
    }

    /// Whether an attempt of now may be its probe; it is, then.
    pub(super) fn probe(&self, now: Instant) -> bool {
        self.is_out() && lock(&self.member).probe(now)
    }

    /// Its probe was not made after all.
    pub(super) fn give_up_probe(&self, now: Instant) {
        lock(&self.member).probed(&Settings::default(), now, Judgement::Nothing, 0.0);
    }

    fn mirror(&self, member: &Member, now: Instant) {
        self.out.store(!matches!(member.state(), State::In { .. }), Ordering::Relaxed);
        if let State::In { back: Some(_) } = member.state() {
            self.back.store(micros(now).max(1), Ordering::Relaxed);
        }
    }
}

impl Rotation {
    /// Whether an endpoint is in rotation, and its turn has come if it is on its slow start: its share of the calls
    /// grows from a tenth to all of it.
    pub(super) fn has(&self, live: &Live) -> bool {
        let record = live.record();
        if record.is_out() {
            return false;
        }
        let (back, Some(slow_start)) = (record.back.load(Ordering::Relaxed), self.slow_start) else { return true };
        let since = Duration::from_micros(self.now.saturating_sub(back));
        back == 0 || since >= slow_start || self.draw < (since.as_secs_f64() / slow_start.as_secs_f64()).max(0.1)
    }
}

impl Ejections {
    /// What picking has to know; `None` while everybody is in rotation.
    pub(super) fn rotation(&self, settings: Option<&Settings>, now: Instant, random: &mut Random) -> Option<Rotation> {
        if !self.unsettled.load(Ordering::Relaxed) {
            return None;
        }
        let slow_start = settings.and_then(|settings| settings.slow_start);
        Some(Rotation { slow_start, now: micros(now), draw: random.share() })
    }
}

impl Service {
    pub(super) fn ejections(&self) -> &Ejections {
        &self.ejections
    }

    /// An attempt has ended so. To be said once an attempt.
    pub fn report(&self, slot: &mut Slot, now: Instant, judgement: Judgement) {
        let is_probe = slot.take_probe();
        let live = slot.live();
        let Some(settings) = &self.config().policy.ejection else {
            if is_probe {
                live.record().give_up_probe(now);
            }
            return;
        };
        let suspicion = {
            let share = if is_probe { lock(&self.ejections().deciding).share() } else { 0.0 };
            let mut member = lock(&live.record().member);
            if is_probe {
                let change = member.probed(settings, now, judgement, share);
                live.record().mirror(&member, now);
                drop(member);
                return self.tell(live, change);
            }
            member.record(settings, now, judgement)
        };
        let Some(suspicion) = suspicion else { return };
        let change = {
            let mut deciding = lock(&self.ejections().deciding);
            let (out, all, others) = self.others(live, now);
            let Some(reason) = suspicion.weigh(others).filter(|_| out < settings.most_out(all)) else { return };
            self.ejections().unsettled.store(true, Ordering::Relaxed);
            let mut member = lock(&live.record().member);
            if !matches!(member.state(), State::In { .. }) {
                return;
            }
            let change = member.eject(settings, reason, now, deciding.share());
            live.record().mirror(&member, now);
            change
        };
        self.tell(live, Some(change));
    }

    /// Active checks have found an endpoint up, or down. One that would be one too many out of rotation stays; to be
    /// said again as long as it is so, then, and no harm where nothing has changed.
    pub fn checked(&self, addr: std::net::SocketAddr, healthy: bool, now: Instant) {
        let set = self.endpoints();
        let Some(live) = set.live().iter().find(|live| live.endpoint().addr == addr) else { return };
        let (state, down) = live.record().state();
        if !healthy && down && matches!(state, State::Out { .. }) {
            return;
        }
        let change = {
            let _deciding = lock(&self.ejections().deciding);
            let settings = self.config().policy.ejection.clone().unwrap_or_default();
            let (out, all, _) = self.others(live, now);
            let mut member = lock(&live.record().member);
            let change = match healthy {
                true => member.found_up(now),
                false if out >= settings.most_out(all) && !live.record().is_out() => None,
                false => member.found_down(now),
            };
            if change.is_some() {
                self.ejections().unsettled.store(true, Ordering::Relaxed);
                live.record().mirror(&member, now);
            }
            change
        };
        self.tell(live, change);
    }

    /// Once in a while: when everybody is back for long enough, picking need not look any more.
    pub(super) fn settle_ejections(&self, now: Instant) {
        let slow_start = self.config().policy.ejection.as_ref().and_then(|settings| settings.slow_start);
        let limit = micros(now).saturating_sub(slow_start.unwrap_or_default().as_micros() as u64);
        let set = self.endpoints();
        let is_settled = |live: &Arc<Live>| {
            let record = live.record();
            !record.is_out() && record.back.load(Ordering::Relaxed) <= limit
        };
        let _deciding = lock(&self.ejections().deciding);
        self.ejections().unsettled.store(!set.live().iter().all(is_settled), Ordering::Relaxed);
    }

    /// How many endpoints are out, how many there are, and failures and attempts of all but one.
    fn others(&self, but: &Arc<Live>, now: Instant) -> (usize, usize, (u64, u64)) {
        let set = self.endpoints();
        let out = set.live().iter().filter(|live| live.record().is_out()).count();
        let others = set.live().iter().filter(|live| live.endpoint().addr != but.endpoint().addr);
        let tallies = others.map(|live| lock(&live.record().member).tally(now));
        let sum = tallies.fold((0, 0), |sum, tally| (sum.0 + u64::from(tally.0), sum.1 + u64::from(tally.1)));
        (out, set.live().len(), sum)
    }

    fn tell(&self, live: &Live, change: Option<Change>) {
        let (service, endpoint) = (self.name(), live.endpoint().addr);
        match change {
            None => {}
            Some(Change::Returned) => tracing::info!(%service, %endpoint, "endpoint back in rotation"),
            Some(Change::Ejected(why, time)) => {
                self.metrics().ejected(why.as_str());
                let (why, for_ms) = (why.as_str(), time.as_millis() as u64);
                match why == Reason::HealthCheck.as_str() {
                    true => tracing::warn!(%service, %endpoint, why, "endpoint ejected"),
                    false => tracing::warn!(%service, %endpoint, why, for_ms, "endpoint ejected"),
                }
            }
        }
    }
}

fn micros(now: Instant) -> u64 {
    now.saturating_duration_since(epoch()).as_micros() as u64
}
