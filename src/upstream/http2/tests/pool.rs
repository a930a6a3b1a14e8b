//! Which connection a call gets.

use std::cell::Cell;

use tokio::time::{Instant, timeout};

use super::*;
use crate::{net::tcp::DialError, upstream::now};

/// Answers when it is told to, with the number of its connection.
fn held(release: &Rc<Notify>, seen: &Log<usize>) -> Handler {
    let (release, seen) = (release.clone(), seen.clone());
    handler(move |mut asked| {
        let (release, seen) = (release.clone(), seen.clone());
        async move {
            seen.borrow_mut().push(asked.connection);
            release.notified().await;
            asked.respond.send_response(Response::new(()), true).expect("it is open");
        }
    })
}

fn limited(streams: u32) -> h2::server::Builder {
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(streams);
    settings
}

#[test]
fn calls_share_one_connection() {
    run(async {
        let target = endpoint(h2::server::Builder::new(), numbered()).await;
        let upstreams = Upstreams::new();
        for _ in 0..5 {
            assert_eq!(through(&upstreams, &target).await, "0");
        }
        assert_eq!(target.metrics.upstream_connections.get(), 1);
    });
}

#[test]
fn those_who_come_while_one_is_opened_wait_for_it() {
    run(async {
        let target = endpoint(h2::server::Builder::new(), numbered()).await;
        let upstreams = Upstreams::new();
        let calls = (0..20).map(|_| {
            let (upstreams, target) = (upstreams.clone(), target.clone());
            spawn_local(async move { through(&upstreams, &target).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.expect("no panic"), "0");
        }
        assert_eq!(target.metrics.upstream_connections.get(), 1);
    });
}

#[test]
fn a_further_one_is_opened_at_the_limit_of_streams() {
    for limit in 1..=3 {
        run(async move {
            let (release, seen) = (Rc::new(Notify::new()), Log::default());
            let target = endpoint(limited(limit), held(&release, &seen)).await;
            let upstreams = Upstreams::new();
            let calls = (0..6).map(|_| {
                let (upstreams, target) = (upstreams.clone(), target.clone());
                spawn_local(async move { through(&upstreams, &target).await })
            });
            let calls = calls.collect::<Vec<_>>();
            until(|| seen.borrow().len() == 6).await;
            let most = (0..6).map(|n| seen.borrow().iter().filter(|c| **c == n).count()).max();
            assert_eq!(most, Some(limit as usize));
            assert!(target.metrics.upstream_connections.get() >= i64::from(6 / limit));
            release.notify_waiters();
            for call in calls {
                call.await.expect("no refusal");
            }
        });
    }
}

#[test]
fn a_place_that_becomes_free_is_taken_by_who_waits_for_a_dial() {
    run(async {
        // One connection is accepted, with one stream at a time; a second is never answered.
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let target = target(listener.local_addr().expect("it is bound"));
        let (release, seen) = (Rc::new(Notify::new()), Log::default());
        let handler = held(&release, &seen);
        spawn_local(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            spawn_local(serve(stream, limited(1), 0, handler));
            let _silent = listener.accept().await;
            std::future::pending::<()>().await;
        });
        let upstreams = Upstreams::<Upload>::new();
        let calls = (0..2).map(|_| {
            let (upstreams, target) = (upstreams.clone(), target.clone());
            spawn_local(async move { through(&upstreams, &target).await })
        });
        let calls = calls.collect::<Vec<_>>();
        until(|| seen.borrow().len() == 1).await;
        settle().await;
        release.notify_one();
        until(|| seen.borrow().len() == 2).await;
        release.notify_one();
        for call in calls {
            call.await.expect("an answer");
        }
        assert_eq!(*seen.borrow(), [0, 0]);
    });
}

/// A server that says it speaks HTTP/2 when it is told to.
async fn late(accepted: &Rc<Cell<usize>>, speak: &Rc<Notify>) -> Arc<Target> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let target = target(listener.local_addr().expect("it is bound"));
    let (accepted, speak) = (accepted.clone(), speak.clone());
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepted.set(accepted.get() + 1);
            let speak = speak.clone();
            spawn_local(async move {
                speak.notified().await;
                serve(stream, h2::server::Builder::new(), 0, numbered()).await;
            });
        }
    });
    target
}

#[test]
fn a_dial_goes_on_when_the_call_that_began_it_is_cancelled() {
    run(async {
        let (accepted, speak) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let target = late(&accepted, &speak).await;
        let upstreams = Upstreams::<Upload>::new();
        let first = {
            let (upstreams, target) = (upstreams.clone(), target.clone());
            let deadline = Some(now() + Duration::from_secs(5));
            spawn_local(async move { upstreams.connect(&target, Wish::Http2, deadline).await.map(|_| ()) })
        };
        until(|| accepted.get() == 1).await;
        let second = {
            let (upstreams, target) = (upstreams.clone(), target.clone());
            spawn_local(async move { through(&upstreams, &target).await })
        };
        settle().await;
        first.abort();
        settle().await;
        speak.notify_one();
        assert_eq!(second.await.expect("no panic"), "0");
        assert_eq!(accepted.get(), 1, "nobody has dialled anew");
    });
}

#[test]
fn everybody_who_waits_keeps_to_its_own_deadline() {
    run(async {
        let (accepted, speak) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let target = late(&accepted, &speak).await;
        let upstreams = Upstreams::<Upload>::new();
        let patient = {
            let (upstreams, target) = (upstreams.clone(), target.clone());
            spawn_local(async move { through(&upstreams, &target).await })
        };
        until(|| accepted.get() == 1).await;
        let deadline = Some(now() + Duration::from_millis(20));
        let error = upstreams.connect(&target, Wish::Http2, deadline).await.expect_err("it is too late");
        assert!(matches!(error, DialError::Timeout), "{error:?}");
        speak.notify_one();
        assert_eq!(patient.await.expect("no panic"), "0");
        assert_eq!(accepted.get(), 1);
    });
}

#[test]
fn a_dial_that_began_in_a_hurry_lasts_for_who_has_more_time() {
    run(async {
        let (accepted, speak) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let target = late(&accepted, &speak).await;
        let upstreams = Upstreams::<Upload>::new();
        let deadline = Some(now() + Duration::from_millis(30));
        let hurried = upstreams.connect(&target, Wish::Http2, deadline);
        let patient = through(&upstreams, &target);
        let serving = async {
            let error = hurried.await.expect_err("it is too late");
            assert!(matches!(error, DialError::Timeout), "{error:?}");
            settle().await;
            speak.notify_one();
        };
        let ((), answer) = tokio::join!(serving, patient);
        assert_eq!((answer.as_str(), accepted.get()), ("0", 1));
    });
}

#[test]
fn a_dial_that_fails_fails_for_all_who_wait() {
    run(async {
        let gone = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let target = target(gone.local_addr().expect("it is bound"));
        drop(gone);
        let upstreams = Upstreams::<Upload>::new();
        let calls = (0..3).map(|_| {
            let (upstreams, target) = (upstreams.clone(), target.clone());
            spawn_local(async move { upstreams.connect(&target, Wish::Http2, None).await.map(|_| ()) })
        });
        for call in calls.collect::<Vec<_>>() {
            let error = call.await.expect("no panic").expect_err("nobody listens");
            let DialError::Refused(error) = error else { panic!("{error:?}") };
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        assert!(!upstreams.sweep(now(), Duration::ZERO));
        assert!(upstreams.links.borrow().is_empty(), "nothing is left of it");
    });
}

#[test]
fn an_old_connection_takes_no_more_calls_and_ends_with_its_last() {
    run(async {
        let (release, seen) = (Rc::new(Notify::new()), Log::default());
        let target = endpoint(h2::server::Builder::new(), held(&release, &seen)).await;
        let upstreams = Upstreams::<Upload>::new();
        let old = {
            let (upstreams, target) = (upstreams.clone(), target.clone());
            spawn_local(async move { through(&upstreams, &target).await })
        };
        until(|| seen.borrow().len() == 1).await;
        let later = |seconds| now() + Duration::from_secs(seconds);
        assert!(upstreams.idle(&target, Wish::Http2, later(269)).is_some(), "younger than 270 s");
        assert!(upstreams.idle(&target, Wish::Http2, later(331)).is_none(), "older than 330 s");
        assert!(upstreams.idle(&target, Wish::Http2, now()).is_none(), "once too old, always too old");
        assert_eq!(target.metrics.upstream_connections.get(), 1, "a call is under way");
        release.notify_one();
        old.await.expect("it was not disturbed");
        until(|| target.metrics.upstream_connections.get() == 0).await;
    });
}

#[test]
fn ages_differ() {
    run_paused(async {
        let mut limits = Vec::new();
        for _ in 0..16 {
            let trunk = trunk(h2::server::Builder::new(), numbered()).await;
            let start = now();
            let limit = (260..340).find(|n| trunk.lease(start + Duration::from_secs(*n)).is_none());
            limits.push(limit.expect("every one ends"));
        }
        assert!(limits.iter().all(|limit| (270..=330).contains(limit)), "{limits:?}");
        assert!(limits.iter().any(|limit| *limit != limits[0]), "{limits:?}");
    });
}

#[test]
fn an_idle_connection_is_closed_after_a_minute_and_at_a_stop() {
    run(async {
        let target = endpoint(h2::server::Builder::new(), numbered()).await;
        let upstreams = Upstreams::<Upload>::new();
        through(&upstreams, &target).await;
        let start = now();
        upstreams.sweep(start, Duration::ZERO);
        upstreams.sweep(start + Duration::from_secs(59), Duration::ZERO);
        assert_eq!(through(&upstreams, &target).await, "0", "it was used again, and is idle anew");
        upstreams.sweep(start + Duration::from_secs(70), Duration::ZERO);
        upstreams.sweep(start + Duration::from_secs(129), Duration::ZERO);
        settle().await;
        assert_eq!(target.metrics.upstream_connections.get(), 1);
        upstreams.sweep(start + Duration::from_secs(130), Duration::ZERO);
        until(|| target.metrics.upstream_connections.get() == 0).await;
        assert_eq!(through(&upstreams, &target).await, "1");
        upstreams.close_idle();
        until(|| target.metrics.upstream_connections.get() == 0).await;
    });
}

#[test]
fn a_target_that_is_gone_gets_no_more_calls_and_those_under_way_finish() {
    run(async {
        let (release, seen) = (Rc::new(Notify::new()), Log::default());
        let target = endpoint(h2::server::Builder::new(), held(&release, &seen)).await;
        let upstreams = Upstreams::<Upload>::new();
        let call = {
            let (upstreams, target) = (upstreams.clone(), target.clone());
            spawn_local(async move { through(&upstreams, &target).await })
        };
        until(|| seen.borrow().len() == 1).await;
        target.retire(now());
        assert!(upstreams.idle(&target, Wish::Http2, now()).is_none());
        assert!(!upstreams.sweep(now(), Duration::from_secs(30)));
        assert!(upstreams.sweep(now() + Duration::from_secs(30), Duration::from_secs(30)), "time is over");
        assert!(target.is_cut());
        release.notify_one();
        call.await.expect("it was not disturbed");
        until(|| target.metrics.upstream_connections.get() == 0).await;
    });
}

#[test]
fn no_answer_to_a_connection_in_time_is_a_time_out() {
    run(async {
        let (accepted, speak) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let target = late(&accepted, &speak).await;
        let upstreams = Upstreams::<Upload>::new();
        let begun = Instant::now();
        let deadline = Some((begun + Duration::from_millis(10)).into_std());
        let connecting = upstreams.connect(&target, Wish::Http2, deadline);
        let error = timeout(Duration::from_secs(5), connecting).await.expect("in time").expect_err("late");
        assert!(matches!(error, DialError::Timeout), "{error:?}");
        until(|| target.metrics.upstream_connections.get() == 0).await;
    });
}
