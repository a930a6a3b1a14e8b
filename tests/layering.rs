//! The layers of `lib.rs`, held: reads the `crate::` paths of every source file and refuses those that point up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each folder, with the folders that it may use. A folder may always use itself.
const MAY_USE: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("policy", &["model"]),
    ("config", &["policy", "model"]),
    ("telemetry", &["config", "policy", "model"]),
    ("net", &["config", "policy", "model"]),
    ("discovery", &["config", "telemetry", "net", "policy", "model"]),
    ("upstream", &["net", "telemetry", "model"]),
    ("service", &["upstream", "net", "config", "telemetry", "policy", "model"]),
    ("proxy", &["service", "upstream", "config", "telemetry", "net", "policy", "model"]),
    ("health", &["service", "upstream", "config", "telemetry", "net", "policy", "model"]),
    ("vip", &["service", "config", "telemetry", "net", "policy", "model"]),
    ("admin", &["service", "config", "telemetry", "net", "policy", "model"]),
    ("app", EVERYTHING),
    ("cli", EVERYTHING),
];

const EVERYTHING: &[&str] = &[
    "admin",
    "app",
    "cli",
    "config",
    "discovery",
    "health",
    "model",
    "net",
    "policy",
    "proxy",
    "service",
    "telemetry",
    "upstream",
    "vip",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .collect()
}

/// The first path segments after `crate::`, in plain paths and in braced lists.
fn used(source: &str) -> BTreeSet<String> {
    let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join(" ");
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if !rest.starts_with('{') {
            found.insert(word(rest));
            continue;
        }
        let (mut depth, mut item_begins) = (0, false);
        for (i, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && item_begins && !c.is_whitespace() {
                found.insert(word(&rest[i..]));
            }
            item_begins = depth == 1 && (c == '{' || c == ',' || (item_begins && c.is_whitespace()));
        }
    }
    found.remove("");
    found
}

#[test]
fn arrows_point_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (folder, may_use) in MAY_USE {
        for path in sources(&src.join(folder)) {
            seen += 1;
            let text = fs::read_to_string(&path).unwrap();
            for name in used(&text) {
                if name != folder && EVERYTHING.contains(&name.as_str()) && !may_use.contains(&name.as_str()) {
                    wrong.push(format!("{} uses {name}, and {folder} may not", path.display()));
                }
            }
        }
    }
    assert!(seen > 80, "only {seen} files were read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_folder_has_its_layer() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folders = fs::read_dir(src).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let found: BTreeSet<String> = folders.map(|path| path.file_name().unwrap().to_string_lossy().into()).collect();
    let known: BTreeSet<String> = MAY_USE.iter().map(|(folder, _)| folder.to_string()).collect();
    assert_eq!(found, known);
}

#[test]
fn nothing_waits_by_sleeping_on_a_thread() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let needle = concat!("thread", "::sleep");
    let files: Vec<_> = ["src", "tests"].iter().flat_map(|folder| sources(&root.join(folder))).collect();
    let sleepers: Vec<_> = files.iter().filter(|path| fs::read_to_string(path).unwrap().contains(needle)).collect();
    assert!(files.len() > 80, "only {} files were read", files.len());
    assert!(sleepers.is_empty(), "{sleepers:?}");
}

#[test]
fn paths_are_found_in_every_form() {
    let source = "use crate::model::Name;\nuse crate::{config::{Config, Limits}, policy,\n    net};\n// crate::cli\nlet x = crate::app::run();";
    let expected = ["app", "config", "model", "net", "policy"].map(String::from);
    assert_eq!(used(source), BTreeSet::from(expected));
}
