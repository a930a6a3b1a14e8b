//! The thread that writes, and the queue before it.
//!
//! The queue is limited twice: in lines, and in bytes, because an app chooses how long its paths are. The
//! writer takes what has gathered while it wrote, and writes it at once: the slower the destination, the
//! larger the batches. What a failing destination did not take is counted as lost too.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use prometheus::IntCounter;

/// Lines that may wait.
const QUEUE_LINES: usize = 8192;
/// Bytes that may wait.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes after which a batch is written, whatever else waits.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the last handle waits for the writer to finish.
const FINISH: Duration = Duration::from_secs(2);

/// Where lines go.
pub(super) enum Destination {
    /// Standard output.
    Stdout(io::Stdout),
    /// A file, and the path at which to open it again.
    File(PathBuf, File),
}

impl Destination {
    /// Opens a file for appending; makes it, readable by its owner and group alone as it holds what apps ask for.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path)?;
        Ok(Self::File(path, file))
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.write_all(batch).and_then(|()| stdout.flush()),
            Self::File(_, file) => file.write_all(batch),
        }
    }

    fn reopen(&mut self) {
        let Self::File(path, _) = self else { return };
        match Self::open(path.clone()) {
            Ok(opened) => *self = opened,
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "cannot reopen the access log, the old file stays in use");
            }
        }
    }
}

/// One end of the queue, for those who log. Cheap to clone.
#[derive(Clone)]
pub(super) struct Handle(Arc<Shared>);

struct Shared {
    /// `None` only while dropping.
    queue: Option<mpsc::SyncSender<Message>>,
    gauge: Arc<Gauge>,
    lost: IntCounter,
    /// Never sent to: it disconnects when the writer has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// What both ends look at.
#[derive(Default)]
struct Gauge {
    /// Bytes of the lines between [`Handle::offer`] and the destination.
    waiting: AtomicUsize,
    /// Whether the file is to be opened anew.
    reopen: AtomicBool,
}

enum Message {
    Line(Vec<u8>),
    /// Look at the gauge.
    Wake,
}

impl Handle {
    /// Starts the writer.
    pub(super) fn start(destination: Destination, lost: IntCounter) -> io::Result<Self> {
        let (queue, lines) = mpsc::sync_channel(QUEUE_LINES);
        let (alive, ended) = mpsc::channel();
        let gauge = Arc::new(Gauge::default());
        let writer = Writer { destination, lines, gauge: gauge.clone(), lost: lost.clone(), torn: false };
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            let _alive: mpsc::Sender<()> = alive;
            writer.run();
        })?;
        Ok(Self(Arc::new(Shared { queue: Some(queue), gauge, lost, ended: Mutex::new(ended) })))
    }

    /// Queues a line, or counts it as lost.
    pub(super) fn offer(&self, line: Vec<u8>) {
        let shared = &*self.0;
        let size = line.len();
        let waiting = shared.gauge.waiting.fetch_add(size, Ordering::Relaxed) + size;
        if waiting > QUEUE_BYTES || !shared.send(Message::Line(line)) {
            shared.gauge.waiting.fetch_sub(size, Ordering::Relaxed);
            shared.lost.inc();
        }
    }

    /// Has the writer open its file anew.
    pub(super) fn reopen(&self) {
        self.0.gauge.reopen.store(true, Ordering::Release);
        // A queue without room needs no waking: its writer is at work and looks before its next batch.
        self.0.send(Message::Wake);
    }
}

impl Shared {
    fn send(&self, message: Message) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.try_send(message).is_ok())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue = None;
        if let Ok(ended) = self.ended.get_mut() {
            // Either it has ended, or its destination stands still and it is left to the process's end.
            let _ = ended.recv_timeout(FINISH);
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("waiting", &self.0.gauge.waiting).finish_non_exhaustive()
    }
}

struct Writer {
    destination: Destination,
    lines: mpsc::Receiver<Message>,
    gauge: Arc<Gauge>,
    lost: IntCounter,
    /// The last write failed, perhaps in the middle of a line.
    torn: bool,
}

impl Writer {
    /// Writes until every handle is gone and nothing waits.
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        while let Ok(first) = self.lines.recv() {
            let mut lines = 0;
            let mut next = Some(first);
            while let Some(message) = next {
                if let Message::Line(line) = message {
                    batch.extend_from_slice(&line);
                    lines += 1;
                }
                next = if batch.len() < BATCH_BYTES { self.lines.try_recv().ok() } else { None };
            }
            if self.gauge.reopen.swap(false, Ordering::Acquire) {
                self.destination.reopen();
            }
            self.write(&batch, lines);
            self.gauge.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
            batch.clear();
        }
    }

    fn write(&mut self, batch: &[u8], lines: u64) {
        if batch.is_empty() {
            return;
        }
        // A line that was cut short must not swallow the one after it.
        let mended = if self.torn { self.destination.write(b"\n") } else { Ok(()) };
        let written = mended.and_then(|()| self.destination.write(batch));
        if let Err(error) = &written {
            self.lost.inc_by(lines);
            if !self.torn {
                tracing::error!(%error, "cannot write the access log, its lines are lost until it can be written again");
            }
        } else if self.torn {
            tracing::info!("the access log is written again");
        }
        self.torn = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read},
        os::fd::AsRawFd,
    };

    use super::*;

    fn counter() -> IntCounter {
        IntCounter::new("lost", "Lost.").unwrap()
    }

    fn line(text: &str) -> Vec<u8> {
        format!("{text}\n").into_bytes()
    }

    #[test]
    fn the_last_handle_waits_until_everything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let lost = counter();
        let first = Handle::start(Destination::open(path.clone()).unwrap(), lost.clone()).unwrap();
        let second = first.clone();
        for n in 0..1000 {
            if n % 2 == 0 { &first } else { &second }.offer(line(&n.to_string()));
        }
        drop(first);
        drop(second);
        let text = std::fs::read_to_string(&path).unwrap();
        let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
        assert_eq!(text, expected);
        assert_eq!(lost.get(), 0);
    }

    #[test]
    fn after_a_rotation_lines_go_to_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let handle = Handle::start(Destination::open(path.clone()).unwrap(), counter()).unwrap();
        std::fs::rename(&path, &rotated).unwrap();
        handle.reopen();
        handle.offer(line("after"));
        drop(handle);
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
    }

    #[test]
    fn a_file_that_cannot_be_reopened_stays_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let handle = Handle::start(Destination::open(path.clone()).unwrap(), counter()).unwrap();
        std::fs::rename(&path, &rotated).unwrap();
        std::fs::create_dir(&path).unwrap();
        handle.reopen();
        handle.offer(line("still here"));
        drop(handle);
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "still here\n");
    }

    /// A pipe that nobody reads stops the writer; whoever logs goes on, and each line is either written in the
    /// end or counted as lost.
    #[test]
    fn a_reader_that_stands_still_costs_lines_and_nothing_else() {
        let (mut reader, writer) = io::pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
        let lost = counter();
        let handle = Handle::start(Destination::open(path).unwrap(), lost.clone()).unwrap();
        drop(writer);
        const OFFERED: u64 = 100_000;
        for n in 0..OFFERED {
            handle.offer(line(&format!("{n:99}")));
            assert!(handle.0.gauge.waiting.load(Ordering::Relaxed) <= QUEUE_BYTES);
        }
        assert!(lost.get() > 0);

        let counted = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text.lines().count() as u64)
        });
        drop(handle);
        let written = counted.join().unwrap().unwrap();
        assert_eq!(written + lost.get(), OFFERED);
    }

    #[test]
    fn long_lines_are_limited_by_their_bytes() {
        let (reader, writer) = io::pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
        let lost = counter();
        let handle = Handle::start(Destination::open(path).unwrap(), lost.clone()).unwrap();
        drop(writer);
        let megabyte = "x".repeat(1024 * 1024);
        for _ in 0..100 {
            handle.offer(line(&megabyte));
        }
        assert!(lost.get() >= 96, "{}", lost.get());
        let counted = std::thread::spawn(move || BufReader::new(reader).lines().count() as u64);
        drop(handle);
        assert_eq!(counted.join().unwrap() + lost.get(), 100);
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_lost() {
        let lost = counter();
        let full = Destination::open(PathBuf::from("/dev/full")).unwrap();
        let handle = Handle::start(full, lost.clone()).unwrap();
        for n in 0..50 {
            handle.offer(line(&n.to_string()));
        }
        drop(handle);
        assert_eq!(lost.get(), 50);
    }
}
