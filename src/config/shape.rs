//! Shapes: what may stand under a key, and the check of a tree against them.
//!
//! The check finds everything that is wrong with a value by itself: unknown keys, wrong kinds, wrong
//! units, out of range. What is wrong between values (`ttl.min` over `ttl.max`) is
//! for `cross`.

use super::{
    keys,
    problem::{Report, did_you_mean, join, quoted, shown},
    raw::{Entry, Node, Place, Value},
    scalar::{Complaint, Scalar},
};

/// One key of the file: the row of a table in `keys`.
#[derive(Debug)]
pub(super) struct Key {
    /// Its path from the section on, `timeout.request`; `explain` shows policy keys by it.
    pub(super) path: &'static str,
    pub(super) shape: Shape,
    /// What holds when it is not written, as config text; empty when nothing does.
    pub(super) default: &'static str,
    /// What it means, in a sentence or two, for editors.
    pub(super) about: &'static str,
}

/// Tables of keys that may stand together in one map.
pub(super) type Tables = &'static [&'static [Key]];

/// What may stand under a key: scalars, a list, a map, or several of these.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) scalars: &'static [Scalar],
    pub(super) list: Option<List>,
    pub(super) map: Map,
}

/// A list that may stand under a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pub(super) item: &'static Shape,
    /// Whether it may be empty.
    pub(super) empty: bool,
}

/// A map that may stand under a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Map {
    /// None may.
    None,
    /// Any of these keys.
    Keys(Tables),
    /// Names, each with a map of these keys.
    Names(Tables),
    /// Any JSON value.
    Json,
}

impl Key {
    pub(super) const fn new(path: &'static str, shape: Shape, default: &'static str, about: &'static str) -> Self {
        Self { path, shape, default, about }
    }

    /// The key as it is written.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}

impl Shape {
    pub(super) const fn one(scalars: &'static [Scalar]) -> Self {
        Self { scalars, list: None, map: Map::None }
    }

    pub(super) const fn map(tables: Tables) -> Self {
        Self { scalars: &[], list: None, map: Map::Keys(tables) }
    }

    /// A list of these scalars with at least one item; one that stands alone is a list of itself.
    pub(super) const fn some(item: &'static Self) -> Self {
        Self { scalars: item.scalars, list: Some(List { item, empty: false }), map: Map::None }
    }

    /// This shape, or a map.
    pub(super) const fn or_map(self, tables: Tables) -> Self {
        Self { map: Map::Keys(tables), ..self }
    }

    fn takes_only_a_map(&self) -> bool {
        self.scalars.is_empty() && self.list.is_none()
    }

    /// What may stand here, to complete "expected ...".
    fn expected(&self) -> String {
        let mut all: Vec<String> = self.scalars.iter().flat_map(|scalar| scalar.expected()).collect();
        // A list of what may also stand alone need not be named.
        all.extend(self.list.filter(|_| self.scalars.is_empty()).map(|_| "a list".to_owned()));
        all.extend((!matches!(self.map, Map::None)).then(|| "a map".to_owned()));
        let last = all.pop().unwrap_or_default();
        if all.is_empty() { last } else { format!("{} or {last}", all.join(", ")) }
    }
}

/// Holds a node against the shape of its key.
pub(super) fn check(node: &Node, shape: &Shape, path: &str, report: &mut Report<'_>) {
    match (&node.value, shape.map, shape.list) {
        (_, Map::Json, _) | (Value::Unfilled, ..) => {}
        (Value::Null, _, _) if shape.takes_only_a_map() => {}
        (Value::Text { written, text }, ..) if !shape.scalars.is_empty() => {
            if let Err((message, hint)) = check_scalar(text, shape) {
                // What a variable held is not shown: the file says all that may be said.
                let message =
                    if written == text { message } else { format!("the value of {} does not fit", quoted(written)) };
                let hint = if written == text { hint } else { Some(format!("expected {}", shape.expected())) };
                report.error(node.place, path, message, hint);
            }
        }
        (Value::List(items), _, Some(list)) => {
            if items.is_empty() && !list.empty {
                report.error(
                    node.place,
                    path,
                    "the list is empty",
                    Some(format!("list at least one: {}", list.item.expected())),
                );
            }
            for (index, item) in items.iter().enumerate() {
                check(item, list.item, &format!("{path}[{index}]"), report);
            }
        }
        (Value::Map(entries), Map::Keys(tables), _) => check_keys(entries, tables, path, report),
        (Value::Map(entries), Map::Names(tables), _) => {
            for Entry { key, place, node } in entries {
                check_value(node, *place, &Shape::map(tables), &join(path, key), report);
            }
        }
        _ => {
            let message = format!("expected {}, found {}", shape.expected(), shown(node));
            report.error(node.place, path, message, None);
        }
    }
}

/// A scalar fits when it is of one of the kinds. Where none fits, the complaint of the kind that came
/// nearest is the one to make: one that can say what to write instead, else the last.
fn check_scalar(text: &str, shape: &Shape) -> Result<(), Complaint> {
    let mut complaints: Vec<Complaint> = Vec::new();
    for scalar in shape.scalars {
        match scalar.check(text) {
            Ok(()) => return Ok(()),
            Err(complaint) => complaints.push(complaint),
        }
    }
    let best = complaints.iter().position(|(_, hint)| hint.is_some()).unwrap_or(complaints.len() - 1);
    let (message, hint) = complaints.swap_remove(best);
    let kind = Some(format!("expected {}", shape.expected()));
    if complaints.is_empty() {
        let has_other_forms = !matches!(shape.map, Map::None);
        return Err((message, hint.or(kind.filter(|_| has_other_forms))));
    }
    Err(if hint.is_some() { (message, hint) } else { (format!("{} does not fit", quoted(text)), kind) })
}

fn check_keys(entries: &[Entry], tables: Tables, path: &str, report: &mut Report<'_>) {
    for Entry { key: name, place, node } in entries {
        let path = join(path, name);
        let Some(key) = tables.iter().copied().flatten().find(|key| key.name() == name) else {
            report.error(*place, &path, format!("unknown key {}", quoted(name)), Some(unknown(name, tables)));
            continue;
        };
        check_value(node, *place, &key.shape, &path, report);
    }
}

fn check_value(node: &Node, key: Place, shape: &Shape, path: &str, report: &mut Report<'_>) {
    if matches!(node.value, Value::Null) && !shape.takes_only_a_map() && !matches!(shape.map, Map::Json) {
        report.error(key, path, "the key has no value", Some(format!("expected {}", shape.expected())));
    } else {
        check(node, shape, path, report);
    }
}

/// What to write instead of a key that is not known here: one of these, or the place where it belongs.
fn unknown(name: &str, tables: Tables) -> String {
    let here = || tables.iter().copied().flatten().map(Key::name);
    let elsewhere = || keys::homes(name).map(|homes| format!("`{name}` belongs {homes}"));
    let list = || format!("known here: {}", here().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "));
    did_you_mean(name, here()).or_else(elsewhere).unwrap_or_else(list)
}
