//! The end of an upload that outlasts its answer.

use std::{rc::Rc, time::Duration};

use tokio::time::timeout;

use super::{Progress, Upload};
use crate::{proxy::worker::Worker, upstream::Connection};

/// How long the rest of an upload may pause once its answer has ended, and how many such pauses it may last.
/// No deadline and no bulkhead bounds it any more.
const REST_PAUSE: Duration = Duration::from_secs(1);
const REST_LIMIT: u32 = 60;

/// Lets the rest of an upload go out after its answer has come to its end: an endpoint may answer early and
/// read on all the same, and then both connections are as good as new. One that has stopped to read is not
/// waited for; its connection is cut, which lets go of the app's too. So is one that never asked for the body
/// after `Expect: 100-continue`: the app will not send it, and whether it thinks so is anybody's guess.
pub(in crate::proxy) fn finish(worker: Rc<Worker>, connection: Connection<Upload>, progress: Rc<Progress>) {
    if progress.is_held_back() {
        return connection.cut();
    }
    tokio::task::spawn_local(async move {
        for _ in 0..REST_LIMIT {
            let before = progress.bytes();
            if timeout(REST_PAUSE, progress.ended()).await.is_ok() {
                if progress.has_ended() {
                    worker.upstreams.give_back(connection, worker.now());
                }
                return;
            }
            if progress.bytes() == before {
                break;
            }
        }
        connection.cut();
    });
}
