//! The file as written: a tree of keys and values, each with its place.
//!
//! Serde stops at the first thing that does not fit, and an operator wants all of them. So YAML is read
//! into a tree that fits anything, and the table of keys (`keys`) is held against the tree afterwards.
//! Scalars stay text: what `on`, `0755` or `1.10` means is decided by the key they stand under, never by
//! YAML's guess at a type. Environment variables are filled in here, scalar by scalar and after YAML has
//! been parsed, so that no value can ever add structure.
//!
//! Anchors, aliases and merge keys (`<<`) work; what comes through them is placed where it is used. A
//! budget bounds depth, size and what aliases may multiply.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use super::{
    env,
    problem::{Report, join, quoted},
};

/// Where something stands in the file. Lines and columns count from 1, columns and width in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) width: u32,
}

/// One value of the file.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing stands after the key.
    Null,
    /// A scalar that cannot be filled in; the report has it already.
    Unfilled,
    /// A scalar: as written, and with environment variables filled in.
    Text { written: String, text: String },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file and without doubles.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries of a map; none when it is something else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; a scalar is a list of itself.
    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Text { .. } => std::slice::from_ref(self),
            _ => &[],
        }
    }

    /// The entry of this key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of this key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }
}

/// Reads YAML into a tree; `None` when it is not YAML, which the report then says.
pub(super) fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>, report: &mut Report<'_>) -> Option<Node> {
    let empty = || Node { place: Place::default(), value: Value::Null };
    // A byte order mark and a file of comments are both a file without keys.
    let is_blank =
        |line: &str| line.trim_start_matches('\u{feff}').trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_blank) {
        return Some(empty());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 24, max_nodes: 1_000_000, max_events: 4_000_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 50_000, max_replay_stack_depth: 16 },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Written>>(text, options) {
        Ok(tree) => Some(Reader { text, env, report }.node(tree, "")),
        Err(error) => {
            syntax_error(text, &error, report);
            None
        }
    }
}

fn syntax_error(text: &str, error: &serde_saphyr::Error, report: &mut Report<'_>) {
    let location = error.location().filter(|location| location.line() > 0);
    let place =
        location.map_or(Place { line: 1, column: 1, width: 1 }, |location| Place { width: 1, ..place(&location) });
    let line = text.lines().nth(place.line as usize - 1).unwrap_or_default();
    let hint = if line.contains("${") && line.contains('{') {
        Some("inside `{ }` and `[ ]`, quote a value that has `${...}`: \"${NAME}\"".to_owned())
    } else if line.trim_start_matches(' ').starts_with('\t') {
        Some("YAML is indented with spaces, not tabs".to_owned())
    } else {
        None
    };
    let message = error.without_snippet().to_string();
    let message = message.lines().next().unwrap_or("it cannot be read");
    // What follows is a place, which the problem has, or advice to who calls the parser.
    let message = [" at line ", "; use "].iter().fold(message, |text, end| text.split(end).next().unwrap_or(text));
    // The parser may quote a scalar of any length.
    let message: String = message.trim_start_matches("error: ").chars().take(200).collect();
    report.error(place, "", format!("not valid YAML: {message}"), hint);
}

fn place(location: &Location) -> Place {
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let width = location.span().len();
    Place { line: narrow(location.line()), column: narrow(location.column()), width: narrow(width) }
}

/// What a node is, before it is known where its text stands.
enum Written {
    Null,
    /// A scalar that YAML takes for a boolean or a number; its text is in the file.
    Plain(String),
    Text(String),
    List(Vec<Spanned<Written>>),
    Map(Vec<(Spanned<String>, Spanned<Written>)>),
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Written;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Written, E> {
        Ok(Written::Null)
    }

    fn visit_none<E>(self) -> Result<Written, E> {
        Ok(Written::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Written, E> {
        Ok(Written::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Written, E> {
        Ok(Written::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Written, E> {
        Ok(Written::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Written, E> {
        Ok(Written::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Written, E> {
        Ok(Written::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Written, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Written::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Written::Map(entries))
    }
}

struct Reader<'r, 'a> {
    text: &'r str,
    env: &'r dyn Fn(&str) -> Option<String>,
    report: &'r mut Report<'a>,
}

impl Reader<'_, '_> {
    fn node(&mut self, written: Spanned<Written>, path: &str) -> Node {
        let place = place(&written.referenced);
        let value = match written.value {
            Written::Null => Value::Null,
            Written::Text(text) => self.scalar(text, place, path),
            Written::Plain(meant) => {
                let text = self.source_of(&written.defined).unwrap_or(meant);
                self.scalar(text, place, path)
            }
            Written::List(items) => {
                let item = |(index, item)| self.node(item, &format!("{path}[{index}]"));
                Value::List(items.into_iter().enumerate().map(item).collect())
            }
            Written::Map(entries) => Value::Map(self.map(entries, path)),
        };
        Node { place, value }
    }

    fn map(&mut self, written: Vec<(Spanned<String>, Spanned<Written>)>, path: &str) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(written.len());
        let mut lines = std::collections::HashMap::with_capacity(written.len());
        for (key, value) in written {
            let key_place = place(&key.referenced);
            let path = join(path, &key.value);
            if let Some(first) = lines.insert(key.value.clone(), key_place.line) {
                let message = format!("the key {} stands here twice", quoted(&key.value));
                self.report.error(key_place, &path, message, Some(format!("the first one is in line {first}")));
                continue;
            }
            let node = self.node(value, &path);
            entries.push(Entry { key: key.value, place: key_place, node });
        }
        entries
    }

    fn scalar(&mut self, written: String, place: Place, path: &str) -> Value {
        match env::fill(&written, self.env) {
            Ok(text) => Value::Text { text: text.into_owned(), written },
            Err(problem) => {
                self.report.error(place, path, problem.to_string(), problem.hint());
                Value::Unfilled
            }
        }
    }

    /// The text of a plain scalar, as it stands in the file: `1.10`, where YAML says 1.1.
    fn source_of(&self, at: &Location) -> Option<String> {
        let (start, len) = (at.span().byte_offset()?, at.span().byte_len()?);
        let (start, len) = (usize::try_from(start).ok()?, usize::try_from(len).ok()?);
        let text = self.text.get(start..start.checked_add(len)?)?.trim();
        (!text.is_empty() && !text.starts_with('!')).then(|| text.to_owned())
    }
}
