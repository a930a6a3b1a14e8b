//! The `file` source: a list of endpoints that somebody else keeps up to date.
//!
//! Looked at once a second; [`Stamp`] says why not by inotify.
//!
//! The best way to change the file is to rename a new one over it. A file that is written in place is
//! caught half-written sooner or later, and half a list is often a valid list: so after a change to the
//! same inode the file must be at rest for a moment before it is read.

use std::{
    fs,
    io::Read,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::Semaphore;

use super::{Again, Look, Report, Sight, Source, list};
use crate::{
    model::{Origin, SourceKind},
    net::stamp::Stamp,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A file written in place must have been at rest for this long.
const AT_REST: Duration = Duration::from_millis(100);
/// More than the coarsest tick by which Linux stamps files (`CONFIG_HZ=100`).
const TICK: Duration = Duration::from_millis(20);
/// How often a file may be found in motion before it is read anyway.
const PATIENCE: u32 = 20;
/// The greatest file that is read: ten thousand endpoints at eight hundred bytes each.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// A watched file.
pub(super) struct File {
    path: Arc<Path>,
    origin: Origin,
    threads: Arc<Semaphore>,
    last: Option<Seen>,
}

/// What was read last.
struct Seen {
    stamp: Stamp,
    sight: Sight,
    /// It was read within one tick of the file system's clock after it was written: another write in the same
    /// tick would have left the same stamp, so it is read once more.
    hasty: bool,
}

/// Whether the file was written less than `age` ago; a time in the future counts as that.
fn is_younger_than(stamp: &Stamp, age: Duration) -> bool {
    let (seconds, nanos) = stamp.changed;
    let then = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
    let since = UNIX_EPOCH.checked_add(then).and_then(|then| SystemTime::now().duration_since(then).ok());
    since.is_none_or(|since| since < age)
}

impl File {
    pub(super) fn new(path: &Path, threads: Arc<Semaphore>) -> Self {
        let detail = path.to_string_lossy().into();
        Self { path: path.into(), origin: Origin { kind: SourceKind::File, detail }, threads, last: None }
    }

    async fn see(&mut self) -> Result<Sight, String> {
        let path = Arc::clone(&self.path);
        let mut stamp = self.on_thread(move || stamp_of(&path)).await?;
        if let Some(last) = &self.last {
            if last.stamp == stamp && !last.hasty {
                return Ok(last.sight.clone());
            }
            if last.stamp != stamp && last.stamp.identity == stamp.identity {
                stamp = self.at_rest(stamp).await?;
            }
        }
        let (path, origin) = (Arc::clone(&self.path), self.origin.clone());
        let (sight, hasty) = self
            .on_thread(move || {
                let hasty = is_younger_than(&stamp, TICK);
                let text = text(&path)?;
                if stamp_of(&path)? != stamp {
                    return Err("it was written to while it was read".into());
                }
                let sight = match list::read(&text, &origin) {
                    Ok(list) if list.is_empty() => Sight::Gone("the list is empty".into()),
                    Ok(list) => Sight::Endpoints(list, None),
                    Err(why) => Sight::Failed(why.into()),
                };
                Ok((sight, hasty))
            })
            .await?;
        self.last = Some(Seen { stamp, sight: sight.clone(), hasty });
        Ok(sight)
    }

    /// Waits until the file has not changed for a moment.
    async fn at_rest(&self, mut stamp: Stamp) -> Result<Stamp, String> {
        for _ in 0..PATIENCE {
            tokio::time::sleep(AT_REST).await;
            let path = Arc::clone(&self.path);
            let now = self.on_thread(move || stamp_of(&path)).await?;
            if now == stamp {
                break;
            }
            stamp = now;
        }
        Ok(stamp)
    }

    /// File systems may hang, and the control thread must not: what touches them runs elsewhere.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let permit = Arc::clone(&self.threads).acquire_owned().await.map_err(|e| e.to_string())?;
        let work = move || {
            let done = work();
            drop(permit); // by the thread itself: an abandoned look frees its place when it really ends
            done
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.to_string()))
    }
}

fn stamp_of(path: &Path) -> Result<Stamp, String> {
    Stamp::of(path).map_err(|e| e.to_string())
}

/// The file's text, if it is not too long.
fn text(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("the file is larger than {} MiB", MAX_BYTES / (1024 * 1024)));
    }
    String::from_utf8(bytes).map_err(|e| e.to_string())
}

impl Source for File {
    fn look(&mut self) -> Look<'_> {
        Box::pin(async {
            let sight = self.see().await.unwrap_or_else(|why| Sight::Failed(why.into()));
            Report { sight, again: Again::In(EVERY) }
        })
    }
}
