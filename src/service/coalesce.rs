//! Calls that are the same at the same moment share one: who leads, and who waits for what comes of it.
//!
//! The first call to ask for something leads: it goes its way as any call does. Others that ask for the same before
//! its answer is whole follow, over all workers: they wait, without a place in the bulkhead. When the answer is whole
//! they get it, too; when it turns out to be one that is not for sharing they go out on their own; when the leader's
//! app goes away the first of them leads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use super::{Kept, Key, lock};
use crate::model::{Outcome, Reason};

/// How many may follow one leader.
const FOLLOWERS: usize = 1000;

/// What is under way for a service, by what was asked for.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<Key, (watch::Receiver<News>, Arc<()>)>>);

/// What followers hear.
#[derive(Debug, Clone)]
pub enum News {
    /// Nothing yet.
    Pending,
    /// The answer, and what it amounts to.
    Answer(Arc<Kept>, Outcome),
    /// There is none, for this reason.
    Failure(Reason, Arc<str>),
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
    /// It waits for news, and is counted as one who does.
    Follow(watch::Receiver<News>, Arc<()>),
    /// It goes its way, alone.
    Alone,
}

/// The call that the others wait for. One that is dropped before it has told of an end has been given up.
#[derive(Debug)]
pub struct Leader {
    flights: Arc<Flights>,
    key: Key,
    news: watch::Sender<News>,
    has_told: bool,
}

impl Flights {
    /// Takes part in what is asked for by `key`.
    pub fn join(self: &Arc<Self>, key: Key) -> Role {
        let mut flights = lock(&self.0);
        match flights.get(&key) {
            Some((_, following)) if Arc::strong_count(following) > FOLLOWERS => return Role::Alone,
            Some((news, following)) => return Role::Follow(news.clone(), following.clone()),
            None => {}
        }
        let (sender, receiver) = watch::channel(News::Pending);
        flights.insert(key, (receiver, Arc::default()));
        Role::Lead(Leader { flights: self.clone(), key, news: sender, has_told: false })
    }
}

impl Leader {
    /// Tells the followers, once.
    pub fn tell(&mut self, news: News) {
        if !std::mem::replace(&mut self.has_told, true) {
            // In this order: who comes from now on leads anew.
            lock(&self.flights.0).remove(&self.key);
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
