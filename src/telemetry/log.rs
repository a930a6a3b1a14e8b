//! The process log: what outrigger did, one sentence a line, on stderr.
//!
//! JSON lines, because a sidecar's stderr is read by a collector; when stderr is a terminal, a form for
//! people. What varies stands in fields, never in the sentence, so that lines can be counted by message.
//! The level says who must act (`config::Level`). Calls do not belong here: the access log has them.
//!
//! Other crates speak only from `warn` upwards, unless the level is `trace`; those that speak of peers from `error`. The environment variable
//! `OUTRIGGER_LOG`, in the syntax of tracing's `EnvFilter` (`debug`, `outrigger::discovery=trace`), wins over the
//! config, for the time in which somebody searches.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    time::SystemTime,
};

use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{format::Writer, time::FormatTime},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::{config::Level, telemetry::timestamp};

/// The variable that wins over the configured level.
const OVERRIDE: &str = "OUTRIGGER_LOG";

/// Changes the level of a log that is installed. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    filter: Option<reload::Handle<EnvFilter, Registry>>,
}

/// Makes this process's log, for good: a second call (as in a test with two sidecars) changes nothing and
/// gives a [`Control`] without effect.
pub fn install(level: Level) -> Control {
    let chosen = std::env::var(OVERRIDE).ok().filter(|text| !text.is_empty()).map(EnvFilter::try_new);
    let (overridden, refused) = match chosen {
        Some(Ok(filter)) => (Some(filter), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let fixed = overridden.is_some();
    let (filter, handle) = reload::Layer::new(overridden.unwrap_or_else(|| filter_of(level)));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_timer(Milliseconds);
    let installed = if io::stderr().is_terminal() {
        registry.with(lines.with_target(false).with_ansi(false).with_writer(|| Harmless(io::stderr()))).try_init()
    } else {
        let json = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
        registry.with(json.with_writer(io::stderr)).try_init()
    };
    if let Some(error) = refused {
        tracing::warn!(%error, variable = OVERRIDE, "the log filter in the environment is not valid, the config's level holds");
    }
    Control { filter: (installed.is_ok() && !fixed).then_some(handle) }
}

impl Control {
    /// Sets the level, unless the environment has.
    pub fn set(&self, level: Level) {
        if let Some(filter) = &self.filter {
            // The other end lives as long as the process: it is the global subscriber's.
            let _ = filter.reload(filter_of(level));
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("fixed", &self.filter.is_none()).finish()
    }
}

fn filter_of(level: Level) -> EnvFilter {
    // These speak of peers, and as often as peers please: no operator can act on that, and a log must not be flooded.
    const PEERS: &str = "h2=error,hyper=error,rustls=error";
    EnvFilter::new(match level {
        Level::Error => "error".to_owned(),
        Level::Warn => format!("warn,{PEERS}"),
        Level::Info => format!("warn,{PEERS},outrigger=info"),
        Level::Debug => format!("warn,{PEERS},outrigger=debug"),
        Level::Trace => "trace".to_owned(),
    })
}

/// The access log's form of a moment, so that lines of both logs can be merged by sorting.
struct Milliseconds;

impl FormatTime for Milliseconds {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let stamp = timestamp::rfc3339(SystemTime::now());
        stamp.iter().try_for_each(|&byte| w.write_char(char::from(byte)))
    }
}

/// Keeps control characters from a terminal: an error's text may come from another host. JSON escapes them
/// by itself.
struct Harmless<W>(W);

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_harmless = |byte: u8| byte == b'\n' || byte == b'\t' || !byte.is_ascii_control();
        let bytes: Vec<u8> = bytes.iter().map(|&byte| if is_harmless(byte) { byte } else { b'?' }).collect();
        self.0.write(&bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_escape_sequence_reaches_a_terminal() {
        let mut out = Vec::new();
        Harmless(&mut out).write_all("é \u{1b}[2J\u{7}\tx\n".as_bytes()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "é ?[2J?\tx\n");
    }

    #[test]
    fn each_level_is_a_filter_that_holds_back_other_crates() {
        let directives = |level| filter_of(level).to_string();
        assert_eq!(directives(Level::Error), "error");
        assert!(directives(Level::Warn).contains("h2=error"), "{}", directives(Level::Warn));
        assert!(directives(Level::Info).contains("outrigger=info"), "{}", directives(Level::Info));
        assert!(directives(Level::Debug).contains("warn"));
        assert_eq!(directives(Level::Trace), "trace");
    }
}
