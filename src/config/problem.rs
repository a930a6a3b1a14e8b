//! What is wrong with a file, and where: the only way in which this layer fails.
//!
//! A [`Problem`] is a value, complete in itself: it carries the line that it is about, so that whoever
//! prints it (the command line, the process log, a reload over the admin socket) needs no file. A
//! [`Report`] gathers problems while a file is read; nothing stops at the first one.

use std::{fmt, sync::Arc};

use super::raw::{Node, Place};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but hardly says what was meant.
    Warning,
}

impl Severity {
    /// The word that begins a printed problem.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as the operator named it.
    pub file: Arc<str>,
    /// The line, from 1; 0 when the problem has no place, as with an unreadable file.
    pub line: u32,
    /// The column, in characters from 1; 0 when the problem has no place.
    pub column: u32,
    /// The key that it is about: `services.orders.breaker`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, in one sentence. Values stand as they were written: a `${NAME}` is never filled in.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line itself.
    pub snippet: Option<Snippet>,
}

/// The line that a problem is about, fit for a terminal: no control characters, at most 100 wide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The line, or the part of it round the place.
    pub text: String,
    /// How many characters of `text` stand before the place.
    pub before: usize,
    /// How many characters the place spans, at least 1.
    pub width: usize,
}

impl Snippet {
    /// The widest line that is shown whole.
    const WIDTH: usize = 100;

    fn of(line: &str, place: Place) -> Self {
        let column = (place.column as usize).saturating_sub(1);
        let length = line.chars().count();
        // A line that is too wide is shown from a little before the place.
        let last = length.saturating_sub(Self::WIDTH);
        let start = if length <= Self::WIDTH || column < Self::WIDTH / 2 { 0 } else { (column - 40).min(last) };
        let shown = line.chars().skip(start).take(Self::WIDTH);
        let text: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = text.trim_end().to_owned();
        let before = column.saturating_sub(start).min(text.chars().count());
        let room = text.chars().count() - before;
        Self { before, width: (place.width as usize).clamp(1, room.max(1)), text }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.as_str(), self.message)?;
        write!(f, "\n --> {}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, " ({})", self.path)?;
        }
        if let Some(Snippet { text, before, width }) = &self.snippet {
            let number = self.line.to_string();
            let (margin, carets) = (" ".repeat(number.len()), "^".repeat(*width));
            write!(f, "\n {number} | {text}\n {margin} | {:before$}{carets}", "")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  = help: {hint}")?;
        }
        Ok(())
    }
}

/// Why a file cannot be used: at least one problem, errors and warnings alike, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// So many are printed, and have a snippet.
    const PRINTED: usize = 200;

    /// All of them, at least one.
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }

    /// How many of them are errors.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(Self::PRINTED).enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{problem}")?;
        }
        match self.0.len().saturating_sub(Self::PRINTED) {
            0 => Ok(()),
            more => write!(f, "\n\n... and {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// The problems found so far in one file.
pub(super) struct Report<'a> {
    file: Arc<str>,
    lines: Vec<&'a str>,
    found: Vec<(Place, Problem)>,
    errors: usize,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &str, text: &'a str) -> Self {
        Self { file: file.into(), lines: text.lines().collect(), found: Vec::new(), errors: 0 }
    }

    pub(super) fn error(&mut self, place: Place, path: &str, message: impl Into<String>, hint: Option<String>) {
        self.add(Severity::Error, place, path, message.into(), hint);
    }

    pub(super) fn warning(&mut self, place: Place, path: &str, message: impl Into<String>, hint: Option<String>) {
        self.add(Severity::Warning, place, path, message.into(), hint);
    }

    /// What was found, by line: warnings alone, or everything once there is an error.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, Problems> {
        self.found.sort_by_key(|(place, problem)| (place.line, place.column, problem.severity));
        // `defaults` is merged into every service, so that what is wrong with it is found once a service.
        self.found.dedup_by(|(at, a), (before, b)| at == before && a.message == b.message);
        // Nobody reads the snippets of thousands, and cutting them out of one huge line takes long.
        for (place, problem) in self.found.iter_mut().take(Problems::PRINTED) {
            let line = self.lines.get((place.line as usize).wrapping_sub(1));
            problem.snippet = line.map(|line| Snippet::of(line, *place));
        }
        let problems = self.found.into_iter().map(|(_, problem)| problem).collect();
        if self.errors > 0 { Err(Problems(problems)) } else { Ok(problems) }
    }

    fn add(&mut self, severity: Severity, place: Place, path: &str, message: String, hint: Option<String>) {
        // A value of any length may be quoted in either.
        let cut =
            |text: String| if text.len() > 1000 { text.chars().take(300).chain("...".chars()).collect() } else { text };
        self.errors += usize::from(severity == Severity::Error);
        let (file, line, column, path) = (self.file.clone(), place.line, place.column, cut(path.to_owned()));
        let (message, hint) = (cut(message), hint.map(cut));
        self.found.push((place, Problem { severity, file, line, column, path, message, hint, snippet: None }));
    }
}

/// `path.key`, or `key` at the top.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// How a node is shown in a message: its text as written, or what it is.
pub(super) fn shown(node: &Node) -> String {
    use super::raw::Value;
    match &node.value {
        Value::Null | Value::Unfilled => "nothing".to_owned(),
        Value::Text { written, .. } => quoted(written),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

/// A text in backquotes, cut to a length that leaves a message readable, without control characters.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let cut = if text.chars().count() > LONGEST { "..." } else { "" };
    let text: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("`{text}{cut}`")
}

/// "did you mean ...?" for a word that is not among `known`: the nearest one, if any is near.
pub(super) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    let word = word.to_ascii_lowercase();
    let near =
        |candidate: &&str| strsim::damerau_levenshtein(&word, candidate) <= 1.max(candidate.len().min(word.len()) / 3);
    let best = known.into_iter().filter(near).min_by_key(|candidate| strsim::damerau_levenshtein(&word, candidate))?;
    Some(format!("did you mean `{best}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_prints_like_a_compilers() {
        let mut report = Report::new("a.yaml", "services:\n  orders: { braker: off }\n");
        let place = Place { line: 2, column: 13, width: 6 };
        report.error(place, "services.orders", "unknown key `braker`", Some("did you mean `breaker`?".into()));
        let want = "error: unknown key `braker`\n --> a.yaml:2:13 (services.orders)\n 2 |   orders: { braker: off }\n   |             \
                    ^^^^^^\n  = help: did you mean `breaker`?";
        assert_eq!(report.finish().unwrap_err().to_string(), want);
    }

    #[test]
    fn a_long_line_is_cut_round_the_place() {
        let line = "x".repeat(5000);
        let snippet = Snippet::of(&line, Place { line: 1, column: 3000, width: 9000 });
        assert_eq!((snippet.text.len(), snippet.before, snippet.width), (100, 40, 60));
        let beyond = Snippet::of("ab", Place { line: 1, column: 40, width: 1 });
        assert_eq!((beyond.before, beyond.width), (2, 1));
    }

    #[test]
    fn only_what_is_near_is_offered() {
        assert_eq!(did_you_mean("timeouts", ["timeout", "bulkhead"]), Some("did you mean `timeout`?".into()));
        assert_eq!(did_you_mean("colour", ["timeout", "bulkhead"]), None);
    }
}
