//! The shell round one source: looks, hears, publishes, waits, over and over.
//!
//! It owns the clock, the log and the channel; what is believed and when to look again is decided in
//! `keep` and `rhythm`.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{Again, Nudge, Report, Sight, Snapshot, Source, Status, Subscription, keep::Keeper, rhythm::Rhythm};
use crate::{
    model::{EndpointSet, Random, ServiceName},
    telemetry::metrics::LookResult,
};

/// A timer that is never meant to end: tokio's own limit is some years more.
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// Everything that a watch needs.
pub(super) struct Watch {
    pub(super) service: ServiceName,
    pub(super) source: Box<dyn Source>,
    pub(super) keeper: Keeper,
    pub(super) rhythm: Rhythm,
    pub(super) random: Random,
    /// Whether the service is one that somebody merely asks for: names at random must not fill the log.
    pub(super) undeclared: bool,
    pub(super) count: Box<dyn Fn(LookResult) + Send>,
}

/// The running watch; ends when dropped.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a watch on the current runtime.
pub(super) fn start(watch: Watch) -> Subscription {
    let empty = Snapshot { set: EndpointSet::empty(), status: Status::default() };
    let (publisher, snapshots) = watch::channel(empty);
    let nudged = Arc::new(Notify::new());
    let task = tokio::spawn(run(watch, publisher, Arc::clone(&nudged)));
    Subscription { snapshots, nudge: Nudge(nudged), _task: Task(task.abort_handle()) }
}

async fn run(mut watch: Watch, publisher: watch::Sender<Snapshot>, nudged: Arc<Notify>) {
    let mut futile: u32 = 0;
    loop {
        let Report { sight, again } = look(&mut *watch.source).await;
        let looked = Instant::now();
        let result = watch.keeper.hear(sight, looked.into_std());
        (watch.count)(result);
        futile = match result {
            LookResult::Changed | LookResult::Unchanged => 0,
            LookResult::Empty | LookResult::Failed => futile.saturating_add(1),
        };
        let pause = watch.rhythm.pause(again, futile, watch.random.share());
        let mut next = pause.map(|pause| looked + pause.min(FAR));
        watch.publish(&publisher, next);
        loop {
            let drop_at = watch.keeper.drop_at().map(Instant::from_std);
            tokio::select! {
                biased;
                () = until(drop_at) => {
                    if watch.keeper.expire(Instant::now().into_std()) {
                        watch.publish(&publisher, next);
                    }
                }
                () = until(next) => break,
                () = nudged.notified(), if next.is_some() => {
                    let early = looked + watch.rhythm.early();
                    if next.is_some_and(|next| early < next) {
                        next = Some(early);
                        watch.publish(&publisher, next);
                    }
                }
            }
        }
        publisher.send_if_modified(|snapshot| {
            snapshot.status.next_look = None;
            false
        });
    }
}

/// Looks once. A look that panics has failed, no more: what a stranger's answer can do to a parser must not
/// freeze a service's endpoints for good.
async fn look(source: &mut dyn Source) -> Report {
    let mut look = source.look();
    poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| look.as_mut().poll(cx))).unwrap_or_else(|_| {
            let sight = Sight::Failed("the look broke off: this is a bug".into());
            Poll::Ready(Report { sight, again: Again::BackOff })
        })
    })
    .await
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Watch {
    /// Publishes what is believed; wakes the subscriber if the set or the problem is another one.
    fn publish(&self, publisher: &watch::Sender<Snapshot>, next: Option<Instant>) {
        let status = Status {
            last_answer: self.keeper.last_answer(),
            problem: self.keeper.problem().cloned(),
            drop_at: self.keeper.drop_at(),
            next_look: next.map(Instant::into_std),
        };
        let set = self.keeper.set();
        publisher.send_if_modified(|snapshot| {
            let changed = snapshot.set.revision() != set.revision();
            let trouble = snapshot.status.problem != status.problem || snapshot.status.drop_at != status.drop_at;
            // The first answer of all is worth waking for, even if it is the same nothing as before.
            let first = snapshot.status.last_answer.is_none() && status.last_answer.is_some();
            self.log(snapshot, set, &status);
            *snapshot = Snapshot { set: set.clone(), status };
            changed || trouble || first
        });
    }

    fn log(&self, before: &Snapshot, set: &EndpointSet, status: &Status) {
        let service = self.service.as_str();
        if before.set.revision() != set.revision() {
            let (endpoints, revision) = (set.endpoints().len(), set.revision());
            match endpoints {
                0 => tracing::warn!(service, revision, "the last endpoints are dropped"),
                _ => tracing::info!(service, endpoints, revision, "the endpoints have changed"),
            }
        }
        match (&before.status.problem, &status.problem) {
            (old, Some(problem)) if old.as_ref() != Some(problem) && self.undeclared && set.revision() == 0 => {
                tracing::debug!(service, %problem, "a name that was asked for has no endpoints");
            }
            (old, Some(problem)) if old.as_ref() != Some(problem) => {
                tracing::warn!(service, %problem, kept = set.endpoints().len(), "the source has a problem");
            }
            (Some(_), None) => tracing::info!(service, "the source is well again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use super::*;
    use crate::{
        discovery::Look,
        model::{Endpoint, Origin, SourceKind},
    };

    const TTL: Duration = Duration::from_secs(5);

    /// Reports what the script says, the last line for good; notes when it was asked.
    struct Scripted {
        script: VecDeque<Sight>,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    impl Source for Scripted {
        fn look(&mut self) -> Look<'_> {
            self.asked.lock().unwrap().push(Instant::now());
            let sight = if self.script.len() > 1 { self.script.pop_front().unwrap() } else { self.script[0].clone() };
            let again = match sight {
                Sight::Endpoints(..) => Again::Ttl(TTL),
                _ => Again::BackOff,
            };
            Box::pin(std::future::ready(Report { sight, again }))
        }
    }

    fn live(host: u8) -> Sight {
        let origin = Origin { kind: SourceKind::Dns, detail: "orders".into() };
        let addr = ([10, 0, 0, host], 80).into();
        Sight::Endpoints(vec![Endpoint { addr, weight: 1, priority: 0, authority: "orders:80".into(), origin }], None)
    }

    fn watch(script: impl Into<VecDeque<Sight>>) -> (Subscription, Arc<Mutex<Vec<Instant>>>) {
        let asked = Arc::default();
        let source = Scripted { script: script.into(), asked: Arc::clone(&asked) };
        (watch_source(Box::new(source)), asked)
    }

    fn watch_source(source: Box<dyn Source>) -> Subscription {
        start(Watch {
            service: ServiceName::parse("orders").unwrap(),
            source,
            keeper: Keeper::new(Duration::from_secs(30)),
            rhythm: Rhythm { ttl_min: Duration::from_secs(1), ttl_max: TTL },
            undeclared: false,
            random: Random::seeded(7),
            count: Box::new(|_| {}),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn nudges_bring_a_look_forward_but_not_below_the_gap() {
        let (mut subscription, asked) = watch([live(1), live(2), live(3)]);
        subscription.snapshots.changed().await.unwrap();
        for _ in 0..1000 {
            subscription.nudge.now();
        }
        subscription.snapshots.changed().await.unwrap();
        for _ in 0..1000 {
            subscription.nudge.now();
        }
        subscription.snapshots.changed().await.unwrap();
        let asked = asked.lock().unwrap();
        let gaps: Vec<_> = asked.windows(2).map(|w| w[1] - w[0]).collect();
        assert_eq!(gaps, [Duration::from_millis(500), Duration::from_millis(500)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_nudge_long_after_the_last_look_is_answered_at_once() {
        let (mut subscription, asked) = watch([live(1), live(2)]);
        subscription.snapshots.changed().await.unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        let before = Instant::now();
        subscription.nudge.now();
        subscription.snapshots.changed().await.unwrap();
        assert_eq!(*asked.lock().unwrap().last().unwrap(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn the_set_is_dropped_on_time_between_two_looks() {
        let (mut subscription, _) = watch([live(1), Sight::Gone("NXDOMAIN".into())]);
        subscription.snapshots.changed().await.unwrap();
        subscription.snapshots.changed().await.unwrap();
        let drop_at = {
            let held = subscription.snapshots.borrow_and_update();
            assert_eq!(held.set.endpoints().len(), 1);
            held.status.drop_at.expect("a set that is gone has a time at which it is dropped")
        };
        subscription.snapshots.changed().await.unwrap();
        let dropped = subscription.snapshots.borrow_and_update().clone();
        assert!(dropped.set.endpoints().is_empty());
        assert_eq!(dropped.set.revision(), 2);
        assert!(Instant::now().into_std() - drop_at < Duration::from_millis(5), "tokio's timers are that coarse");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_answer_wakes_nobody_but_is_noted() {
        let (mut subscription, asked) = watch([live(1)]);
        subscription.snapshots.changed().await.unwrap();
        let first = subscription.snapshots.borrow_and_update().status.last_answer.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(60), subscription.snapshots.changed()).await;
        assert!(waited.is_err());
        assert!(asked.lock().unwrap().len() >= 12);
        assert!(subscription.snapshots.borrow().status.last_answer.unwrap() > first);
    }

    struct Broken(bool);

    impl Source for Broken {
        fn look(&mut self) -> Look<'_> {
            Box::pin(async {
                tokio::task::yield_now().await;
                self.0 = !self.0;
                assert!(self.0, "every second look panics");
                Report { sight: live(1), again: Again::Ttl(TTL) }
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_panics_is_a_look_that_failed() {
        let mut subscription = watch_source(Box::new(Broken(false)));
        for problem in [false, true, false, true] {
            subscription.snapshots.changed().await.unwrap();
            let snapshot = subscription.snapshots.borrow_and_update();
            assert_eq!((snapshot.status.problem.is_some(), snapshot.set.revision()), (problem, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_subscription_ends_the_looks() {
        let (mut subscription, asked) = watch([live(1)]);
        subscription.snapshots.changed().await.unwrap();
        let mut snapshots = subscription.snapshots.clone();
        drop(subscription);
        assert!(snapshots.changed().await.is_err(), "the watch is over");
        let looks = asked.lock().unwrap().len();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(asked.lock().unwrap().len(), looks);
    }
}
