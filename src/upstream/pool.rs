//! The bookkeeping of idle connections, apart from what a connection is: it is tested with integers.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Idle things, the one used last on top.
///
/// Last in, first out keeps few connections busy and lets the others grow old and be closed, so that the
/// pool shrinks to what the traffic needs.
#[derive(Debug)]
pub(super) struct Pool<C> {
    idle: VecDeque<(Instant, C)>,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self { idle: VecDeque::new() }
    }
}

impl<C> Pool<C> {
    /// Takes the newest one that is young enough and usable, dropping what is not.
    pub(super) fn take(&mut self, now: Instant, limit: Duration, usable: impl Fn(&C) -> bool) -> Option<C> {
        while let Some((since, thing)) = self.idle.pop_back() {
            if now.saturating_duration_since(since) >= limit {
                // Everything below is older still.
                self.idle.clear();
                return None;
            }
            if usable(&thing) {
                return Some(thing);
            }
        }
        None
    }

    /// Puts one on top; over `max`, the oldest goes.
    pub(super) fn put(&mut self, thing: C, now: Instant, max: usize) {
        self.idle.push_back((now, thing));
        if self.idle.len() > max {
            self.idle.pop_front();
        }
    }

    /// Drops what has been idle for `limit`.
    pub(super) fn expire(&mut self, now: Instant, limit: Duration) {
        while self.idle.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= limit) {
            self.idle.pop_front();
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.idle.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(4);
    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn the_one_used_last_comes_first() {
        let (mut pool, t) = (Pool::default(), start());
        (1..=3).for_each(|n| pool.put(n, t, 10));
        assert_eq!(pool.take(t, LIMIT, |_| true), Some(3));
        assert_eq!(pool.take(t, LIMIT, |n| *n != 2), Some(1));
        assert_eq!(pool.take(t, LIMIT, |_| true), None);
    }

    #[test]
    fn what_is_too_old_is_not_given_out() {
        let (mut pool, t) = (Pool::default(), start());
        pool.put(1, t, 10);
        pool.put(2, t + SECOND, 10);
        assert_eq!(pool.take(t + LIMIT, LIMIT, |_| true), Some(2));
        assert_eq!(pool.take(t + LIMIT, LIMIT, |_| true), None);
    }

    #[test]
    fn the_oldest_expire_and_make_room() {
        let (mut pool, t) = (Pool::default(), start());
        (1..=4).for_each(|n| pool.put(n, t + SECOND * n, 3));
        assert_eq!(pool.idle.len(), 3, "1 had to go");
        pool.expire(t + SECOND * 2 + LIMIT, LIMIT);
        assert_eq!(pool.idle.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [3, 4]);
    }
}
