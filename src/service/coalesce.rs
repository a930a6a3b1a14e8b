//! Calls that are the same at the same moment share one: who leads, and who waits for what comes of it.
//!
//! The first call to ask for something leads: it goes its way as any call does. Others that ask for the same before
//! its answer is whole follow, over all workers: they wait, without a place in the bulkhead. When the answer is whole
//! they get it, too; when it turns out to be one that is not for sharing they go out on their own; when the leader's
//! app goes away the first of them leads.
//!
//! A leader reads its answer no faster than its own app does. So whoever follows may lose its patience once the answer
//! has begun, and overtake: what it does then is to ask anew, and whoever comes later follows the new leader.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::watch;

use super::{Kept, Key, lock};
use crate::model::{Outcome, Reason};

/// How many may follow one leader.
const FOLLOWERS: usize = 1000;

/// What is under way for a service, by what was asked for.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<Key, Flight>>);

/// A call that others may follow.
#[derive(Debug)]
struct Flight {
    news: watch::Receiver<News>,
    party: Arc<()>,
}

/// What followers hear.
#[derive(Debug, Clone)]
pub enum News {
    /// Nothing yet.
    Pending,
    /// The head of the answer is there.
    Begun,
    /// The answer, and what it amounts to.
    Answer(Arc<Kept>, Outcome),
    /// The endpoint's own error, instead of which the leader's app got a fallback.
    Fallen(Outcome),
    /// There is no answer, for this reason.
    Failure {
        /// Why.
        reason: Reason,
        /// The same in words.
        detail: Arc<str>,
        /// When it may be worth another try.
        retry_after: Option<Duration>,
    },
    /// The answer is not for sharing.
    NotForSharing,
    /// The leader is gone.
    Abandoned,
}

/// How a call takes part.
#[derive(Debug)]
pub enum Role {
    /// It goes its way, and tells the others.
    Lead(Leader),
    /// It waits for news.
    Follow(Follower),
    /// It goes its way, alone.
    Alone,
}

/// The call that the others wait for. One that is dropped before it has told of an end has been given up.
#[derive(Debug)]
pub struct Leader {
    flights: Arc<Flights>,
    key: Key,
    news: watch::Sender<News>,
    party: Arc<()>,
    has_told: bool,
}

/// A call that waits for a leader's.
#[derive(Debug)]
pub struct Follower {
    flights: Arc<Flights>,
    key: Key,
    news: watch::Receiver<News>,
    /// Counts it as one who follows.
    party: Arc<()>,
}

impl Flights {
    /// Takes part in what is asked for by `key`.
    pub fn join(self: &Arc<Self>, key: Key) -> Role {
        let mut flights = lock(&self.0);
        if let Some(Flight { news, party }) = flights.get(&key) {
            // The flight and its leader hold one each.
            if Arc::strong_count(party) >= FOLLOWERS + 2 {
                return Role::Alone;
            }
            return Role::Follow(Follower { flights: self.clone(), key, news: news.clone(), party: party.clone() });
        }
        let (sender, news) = watch::channel(News::Pending);
        let party = Arc::new(());
        flights.insert(key, Flight { news, party: party.clone() });
        Role::Lead(Leader { flights: self.clone(), key, news: sender, party, has_told: false })
    }

    /// How many wait for another's answer.
    pub fn waiting(&self) -> usize {
        lock(&self.0).values().map(|flight| Arc::strong_count(&flight.party).saturating_sub(2)).sum()
    }

    /// Whoever comes from now on follows that party no more; another one that bears its key stays.
    fn close(&self, key: &Key, party: &Arc<()>) {
        let mut flights = lock(&self.0);
        if flights.get(key).is_some_and(|flight| Arc::ptr_eq(&flight.party, party)) {
            flights.remove(key);
        }
    }
}

impl Leader {
    /// The head of the answer is there, and does not say that the answer is not for sharing.
    pub fn begun(&self) {
        if !self.has_told {
            self.news.send_replace(News::Begun);
        }
    }

    /// Tells the followers how it ended, once.
    pub fn tell(&mut self, news: News) {
        if !std::mem::replace(&mut self.has_told, true) {
            // In this order: who comes from now on leads anew.
            self.flights.close(&self.key, &self.party);
            self.news.send_replace(news);
        }
    }

    /// Whether they have been told.
    pub fn has_told(&self) -> bool {
        self.has_told
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.tell(News::Abandoned);
    }
}

impl Follower {
    /// The first news there are: the beginning of the answer, or the end of the matter.
    pub async fn first(&mut self) -> News {
        let news = self.news.wait_for(|news| !matches!(news, News::Pending)).await;
        news.map_or(News::Abandoned, |news| news.clone())
    }

    /// How it ended.
    pub async fn end(&mut self) -> News {
        let news = self.news.wait_for(|news| !matches!(news, News::Pending | News::Begun)).await;
        news.map_or(News::Abandoned, |news| news.clone())
    }

    /// Waits no longer: whoever asks next, most likely this one, leads anew.
    pub fn overtake(self) {
        self.flights.close(&self.key, &self.party);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::KeyBuilder;

    fn key(path: &str) -> Key {
        KeyBuilder::new().with(path.as_bytes()).build()
    }

    fn lead(flights: &Arc<Flights>) -> Leader {
        match flights.join(key("/x")) {
            Role::Lead(leader) => leader,
            other => panic!("not a leader: {other:?}"),
        }
    }

    fn follow(flights: &Arc<Flights>) -> Follower {
        match flights.join(key("/x")) {
            Role::Follow(follower) => follower,
            other => panic!("not a follower: {other:?}"),
        }
    }

    fn keys(flights: &Flights) -> usize {
        lock(&flights.0).len()
    }

    #[tokio::test]
    async fn the_first_leads_and_the_others_hear_of_it() {
        let flights = Arc::<Flights>::default();
        let mut leader = lead(&flights);
        let (mut one, mut two) = (follow(&flights), follow(&flights));
        assert!(matches!(flights.join(key("/y")), Role::Lead(_)), "another thing is another matter");
        leader.begun();
        assert!(matches!(one.first().await, News::Begun));
        leader.tell(News::NotForSharing);
        leader.tell(News::Abandoned);
        assert!(matches!((one.end().await, two.first().await), (News::NotForSharing, News::NotForSharing)));
        assert_eq!(keys(&flights), 0);
    }

    #[tokio::test]
    async fn of_those_who_are_left_behind_one_leads() {
        let flights = Arc::<Flights>::default();
        let leader = lead(&flights);
        let mut left: Vec<_> = (0..5).map(|_| follow(&flights)).collect();
        drop(leader);
        for follower in &mut left {
            assert!(matches!(follower.first().await, News::Abandoned));
        }
        let _next = lead(&flights);
        let _others: Vec<_> = (0..4).map(|_| follow(&flights)).collect();
    }

    #[tokio::test]
    async fn a_leader_that_was_overtaken_leaves_the_next_one_alone() {
        let flights = Arc::<Flights>::default();
        let mut slow = lead(&flights);
        slow.begun();
        let (impatient, late, mut patient) = (follow(&flights), follow(&flights), follow(&flights));
        impatient.overtake();
        let _next = lead(&flights);
        late.overtake();
        slow.tell(News::NotForSharing);
        assert!(matches!(patient.end().await, News::NotForSharing), "who still waits is still told");
        assert_eq!(keys(&flights), 1, "and the next one still leads");
        follow(&flights);
    }

    #[test]
    fn a_crowd_is_bounded_and_makes_room_again() {
        let flights = Arc::<Flights>::default();
        let leader = lead(&flights);
        let mut crowd: Vec<_> = (0..FOLLOWERS).map(|_| follow(&flights)).collect();
        assert!(matches!(flights.join(key("/x")), Role::Alone));
        assert_eq!(flights.waiting(), FOLLOWERS);
        crowd.pop();
        follow(&flights);
        drop((leader, crowd));
        assert_eq!((keys(&flights), flights.waiting()), (0, 0));
    }
}
