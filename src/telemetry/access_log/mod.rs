//! The access log: one JSON line a call.
//!
//! A worker must never wait for a log's reader, or a full disk would stop every call. So a line is
//! formatted where the call ended and offered to one writer thread through a queue of limited length and
//! size; when there is no room, the line is dropped and counted (`outrigger_access_log_lost_total`).
//!
//! `line` is the form (pure), `writer` the thread. There is no second form and no template: whoever wants
//! another reads JSON.

mod line;
mod writer;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use http::Method;
use prometheus::IntCounter;

use crate::{config, model::Outcome};

/// One call that ended, as the proxy knows it. Texts of the app are taken as they came: whatever bytes
/// they hold, the line is JSON; each is cut at a limit (path 1024 bytes, the others 256).
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// When the call's first byte arrived.
    pub at: SystemTime,
    /// The service's name; absent when none bears the name that was asked for.
    pub service: Option<&'a str>,
    /// The request's method.
    pub method: &'a Method,
    /// The request's path and query.
    pub path: &'a str,
    /// The request's `Host` or authority.
    pub host: &'a [u8],
    /// The status that the app saw; absent when it went away before there was one.
    pub status: Option<u16>,
    /// How the call ended.
    pub outcome: Outcome,
    /// What a local reply's `detail` said, or what cut the answer short.
    pub details: Option<&'a str>,
    /// From the call's first byte to the last of its answer.
    pub duration: Duration,
    /// Attempts made; 0 when the call was refused before any.
    pub attempts: u32,
    /// The endpoint of the last attempt.
    pub endpoint: Option<SocketAddr>,
    /// Bytes of the request's body that were read from the app.
    pub bytes_in: u64,
    /// Bytes of the answer's body that were given to the app.
    pub bytes_out: u64,
    /// The app's address.
    pub peer: Option<SocketAddr>,
    /// The request's `x-request-id`, if it bore one.
    pub request_id: Option<&'a [u8]>,
}

/// A handle to the log; the line goes nowhere when the log is off. Cheap to clone, one for each worker.
///
/// Dropping the last handle lets the writer finish what is queued, and waits for it, two seconds at most: a
/// reader that stands still must not keep the process from stopping.
#[derive(Debug, Clone)]
pub struct AccessLog(writer::Handle);

impl AccessLog {
    /// Opens the destination and starts the writer; `lost` counts the lines that are dropped.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or the thread not be started.
    pub fn open(settings: &config::AccessLog, lost: IntCounter) -> io::Result<Self> {
        let destination = match settings {
            config::AccessLog::Stdout => writer::Destination::Stdout(io::stdout()),
            config::AccessLog::File(path) => writer::Destination::open(path.clone())?,
        };
        writer::Handle::start(destination, lost).map(Self)
    }

    /// Logs a call. Never waits.
    pub fn record(&self, record: &Record<'_>) {
        let mut text = Vec::with_capacity(512);
        line::write(&mut text, record);
        self.0.offer(text);
    }

    /// Has the file opened anew at its path before the next line, so that it can be rotated. Never waits; when
    /// that fails, the file that is open stays in use and the process log says so.
    pub fn reopen(&self) {
        self.0.reopen();
    }
}
