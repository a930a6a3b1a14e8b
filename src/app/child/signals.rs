//! The signals that are passed on to the app.
//!
//! A terminal sends its own (Ctrl-C, Ctrl-\, a change of its size) to every process of the group in its foreground. The
//! app is in our group, so it has had them when we hear of them, and to send them again would make one Ctrl-C two, which
//! for many programs means "at once". tini and dumb-init give the app a group or session of its own instead and move the
//! terminal's foreground there; then they must be able to take it back, and a shell's job control sees two jobs.
//! The price of our way is that SIGINT, SIGQUIT and SIGWINCH which somebody else sends to us alone are not passed on as
//! long as we are in a terminal's foreground: stop such an app by SIGTERM.

use std::{
    fs::File,
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use rustix::{
    process::{Signal, getpgrp},
    termios::tcgetpgrp,
};
use tokio::signal::unix::{self, SignalKind};

/// What is passed on, with what it is called.
const PASSED: [(Signal, &str); 7] = [
    (Signal::TERM, "SIGTERM"),
    (Signal::INT, "SIGINT"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::HUP, "SIGHUP"),
    (Signal::USR1, "SIGUSR1"),
    (Signal::USR2, "SIGUSR2"),
    (Signal::WINCH, "SIGWINCH"),
];

/// What a signal is called.
pub(super) fn name(signal: Signal) -> &'static str {
    PASSED.iter().find(|(passed, _)| *passed == signal).map_or("SIGKILL", |(_, name)| name)
}

/// The signals, as they come.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Takes them over: they have no other effect from now on.
    pub(super) fn install() -> io::Result<Self> {
        let listen = |(signal, _): (Signal, _)| Ok((signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
        PASSED.into_iter().map(listen).collect::<io::Result<Vec<_>>>().map(Self)
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        let come = |(signal, stream): &mut (Signal, unix::Signal)| {
            matches!(stream.poll_recv(cx), Poll::Ready(Some(()))).then_some(*signal)
        };
        self.0.iter_mut().find_map(come).map_or(Poll::Pending, Poll::Ready)
    }
}

/// Whether a terminal has sent this signal to the app itself.
pub(super) fn has_reached_our_group(signal: Signal) -> bool {
    matches!(signal, Signal::INT | Signal::QUIT | Signal::WINCH) && are_in_foreground()
}

/// Whether our group is the one that a terminal speaks to.
fn are_in_foreground() -> bool {
    // Whatever stdin is: the terminal is the session's.
    File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}
