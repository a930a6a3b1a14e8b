//! Answers of forwarders, for as long as they may be kept: pure.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::filter::Known;
use crate::net::resolve::Relay;

/// Questions whose answers are kept at once. Answers are 4 KiB at most: some megabytes, if somebody wants the worst.
const QUESTIONS: usize = 1024;

/// What is known of questions that were asked before.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Relay, Entry>,
}

#[derive(Debug)]
struct Entry {
    known: Arc<Known>,
    since: Instant,
}

impl Entry {
    fn until(&self) -> Instant {
        self.since + self.known.keep
    }
}

impl Cache {
    /// What is known of a question, and for how long already.
    pub(super) fn get(&self, relay: &Relay, now: Instant) -> Option<(Arc<Known>, Duration)> {
        let entry = self.entries.get(relay).filter(|entry| now < entry.until())?;
        Some((entry.known.clone(), now.saturating_duration_since(entry.since)))
    }

    /// Keeps what has become known of a question.
    pub(super) fn put(&mut self, relay: &Relay, known: &Arc<Known>, now: Instant) {
        if known.keep.is_zero() {
            self.entries.remove(relay);
            return;
        }
        if self.entries.len() >= QUESTIONS && !self.entries.contains_key(relay) {
            self.make_room(now);
        }
        self.entries.insert(relay.clone(), Entry { known: known.clone(), since: now });
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Forgets what is over, or else what is over soonest: failures first.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.until());
        if self.entries.len() >= QUESTIONS
            && let Some(soonest) =
                self.entries.iter().min_by_key(|(_, entry)| entry.until()).map(|(key, _)| key.clone())
        {
            self.entries.remove(&soonest);
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::{
        op::{Query, ResponseCode},
        rr::{Name, RecordType},
    };

    use super::*;
    use crate::service::now;

    fn relay(name: &str) -> Relay {
        let query = Query::query(Name::from_ascii(name).unwrap(), RecordType::A);
        Relay { query, dnssec_ok: false, checking_disabled: false, except: None }
    }

    fn known(seconds: u64) -> Arc<Known> {
        Arc::new(Known { keep: Duration::from_secs(seconds), ..Known::failure(ResponseCode::NoError) })
    }

    #[test]
    fn an_answer_is_kept_for_its_time() {
        let (mut cache, start) = (Cache::default(), now());
        let at = |seconds| start + Duration::from_secs(seconds);
        cache.put(&relay("a."), &known(5), start);
        assert_eq!(cache.get(&relay("A."), at(4)).unwrap().1, Duration::from_secs(4));
        assert!(cache.get(&relay("a."), at(5)).is_none());
        assert!(cache.get(&Relay { dnssec_ok: true, ..relay("a.") }, start).is_none());
        cache.put(&relay("a."), &known(0), at(1));
        assert!(cache.get(&relay("a."), at(1)).is_none(), "an answer that may not be kept is news all the same");
    }

    #[test]
    fn what_is_over_soonest_makes_room() {
        let (mut cache, start) = (Cache::default(), now());
        for i in 0..3 * QUESTIONS as u64 {
            cache.put(&relay(&format!("n{i}.")), &known(10 + i), start);
        }
        assert_eq!(cache.entries.len(), QUESTIONS);
        assert!(cache.get(&relay("n0."), start).is_none());
        assert!(cache.get(&relay(&format!("n{}.", 3 * QUESTIONS - 1)), start).is_some());
    }
}
