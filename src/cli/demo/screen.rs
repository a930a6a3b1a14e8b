//! The terminal: a second screen that is drawn anew and given back, or a line at a time.
//!
//! A terminal lends programs a second screen (DEC private mode 1049), so that the picture never mixes
//! with what stood there before. [`Screen`] gives it back when it drops: on Ctrl-C, on an error, on a
//! panic. Writing may fail at any time, when the other end of a pipe goes; that ends the demo quietly.

use std::io::{self, IsTerminal, Write};

use super::picture::Paint;

/// Second screen, cursor hidden, no wrapping of long lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Where the picture goes.
#[derive(Debug)]
pub(crate) enum Screen {
    /// A terminal, drawn anew each time.
    Drawn(Second, Paint),
    /// Anything else: lines one after the other.
    Lines,
}

/// The terminal's second screen, until it drops.
#[derive(Debug)]
pub(crate) struct Second(());

impl Screen {
    /// Takes the second screen where there is a terminal that can do it, and nobody asked for lines.
    pub(crate) fn take(lines: bool) -> io::Result<Self> {
        let term = std::env::var("TERM").unwrap_or_default();
        if lines || !io::stdout().is_terminal() || matches!(term.as_str(), "" | "dumb") {
            return Ok(Self::Lines);
        }
        // https://no-color.org: any value that is not empty switches colours off.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let second = Second(());
        say(ENTER)?;
        Ok(Self::Drawn(second, if plain { Paint::Plain } else { Paint::Colour }))
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // There is nobody left to tell when the terminal is gone.
        let _ = say(LEAVE);
    }
}

/// What draws `picture` over the one before, without the flicker of clearing first.
pub(crate) fn over(picture: &str) -> String {
    let mut text = String::with_capacity(picture.len() + 512);
    text.push_str("\x1b[H");
    for line in picture.lines() {
        text.push_str(line);
        text.push_str("\x1b[K\r\n");
    }
    text.push_str("\x1b[J");
    text
}

/// Writes to standard output, at once.
pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_clears_what_stood_there() {
        assert_eq!(over("a\n\nb\n"), "\x1b[Ha\x1b[K\r\n\x1b[K\r\nb\x1b[K\r\n\x1b[J");
    }
}
