//! The configuration against files: whatever is under `config/` and `tests/config/`, and what the docs show.
//!
//! A case is a file. `tests/config/valid/*.yaml` must parse without a word; `tests/config/invalid/*.yaml`
//! must give the `.txt` beside it, to the letter. `OUTRIGGER_BLESS=1` writes the `.txt` files anew.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use outrigger::{
    config::{Config, Problems, Severity, describe, schema},
    model::Random,
};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The YAML files of a folder, sorted; a folder without any is a mistake of the test.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "{folder} holds no YAML file");
    files
}

fn good() -> Vec<PathBuf> {
    [files("config"), files("tests/config/valid")].concat()
}

fn env(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("orders".to_owned()),
        "PORT" => Some("8080".to_owned()),
        "STRUCTURE" => Some("a:80\n  b: { dns: b:80 }".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<outrigger::config::Loaded, Problems> {
    Config::parse("test.yaml", text, &env)
}

#[test]
fn good_files_parse_without_a_warning() {
    for path in good() {
        let loaded = parse(&fs::read_to_string(&path).unwrap());
        let loaded = loaded.unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
        let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert!(warnings.is_empty(), "{}:\n{}", path.display(), warnings.join("\n"));
        let inbound = loaded.config.inbound.iter().map(|inbound| &inbound.service);
        for service in loaded.config.services.values().chain(inbound) {
            let described = describe(service);
            assert!(described.len() > 7, "{}: {described:?}", service.name);
            assert_eq!(described.len(), service.provenance.count(), "every value in force is described");
        }
    }
}

#[test]
fn bad_files_say_what_the_text_beside_them_says() {
    let bless = std::env::var_os("OUTRIGGER_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in files("tests/config/invalid") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let got = match Config::parse(&name, &fs::read_to_string(&path).unwrap(), &env) {
            Err(problems) => format!("{problems}\n"),
            Ok(loaded) => {
                // A file with warnings alone can be used; what it is warned of is golden too.
                assert!(name.starts_with("warn-"), "{name} was accepted");
                let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
                format!("{}\n", warnings.join("\n\n"))
            }
        };
        let beside = path.with_extension("txt");
        if bless {
            fs::write(&beside, &got).unwrap();
        }
        let want = fs::read_to_string(&beside).unwrap_or_default();
        if got != want {
            wrong.push(format!("--- {name}, wanted:\n{want}--- got:\n{got}"));
        }
        assert!(got.starts_with("error: ") || got.starts_with("warning: "), "{name}: {got}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every line of a good file that begins a key gets a sibling that nobody knows.
#[test]
fn an_unknown_key_is_refused_wherever_it_stands() {
    let mut mutations = 0;
    for path in good() {
        let text = fs::read_to_string(&path).unwrap();
        for mutant in block_mutants(&text).into_iter().chain(flow_mutants(&text)) {
            let problems = match parse(&mutant) {
                Err(problems) => problems,
                Ok(_) => panic!("{} was accepted:\n{mutant}", path.display()),
            };
            assert!(problems.to_string().contains("zzz"), "{}:\n{problems}\nin\n{mutant}", path.display());
            mutations += 1;
        }
    }
    assert!(mutations > 100, "only {mutations} mutations");
}

/// Before each line with a key of a block map, a line with another key at the same depth.
fn block_mutants(text: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().collect();
    let is_key = |line: &str| {
        let word: String =
            line.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || "_-*.".contains(*c)).collect();
        !word.is_empty() && line.trim_start()[word.len()..].starts_with(':')
    };
    let at = |index: usize| {
        let indent = lines[index].len() - lines[index].trim_start().len();
        // A key of `services` itself is a name: an unknown one is refused for what is in it.
        let mutant = format!("{}zzz: {{ zzz: 1 }}", " ".repeat(indent));
        [&lines[..index], &[mutant.as_str()], &lines[index..]].concat().join("\n")
    };
    (0..lines.len()).filter(|index| is_key(lines[*index])).map(at).collect()
}

/// After each brace that opens a flow map, another key.
fn flow_mutants(text: &str) -> Vec<String> {
    // What stands under these may be any map at all.
    let is_free = |at: usize| ["json: ", "headers: "].iter().any(|key| text[..at].ends_with(key));
    let opens = text.match_indices("{ ").map(|(at, _)| at).filter(|at| !in_comment(text, *at) && !is_free(*at));
    opens.map(|at| format!("{}{{ zzz: {{ zzz: 1 }}, {}", &text[..at], &text[at + 2..])).collect()
}

fn in_comment(text: &str, at: usize) -> bool {
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    text[line..at].contains('#')
}

#[test]
fn what_the_docs_show_parses() {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for page in pages.chain([root().join("README.md")]).filter(|path| path.exists()) {
        let blocks = blocks(&fs::read_to_string(&page).unwrap());
        assert!(!page.ends_with("configuration.md") || blocks.len() >= 5, "{} shows too little", page.display());
        for (line, block) in blocks {
            if let Err(problems) = parse(&block) {
                panic!("{}, the block in line {line}:\n{problems}", page.display());
            }
        }
    }
    assert!(root().join("docs/configuration.md").exists());
}

/// The blocks marked `yaml`, each with its first line's number.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut open): (Vec<(usize, String)>, bool) = (Vec::new(), false);
    for (index, line) in page.lines().enumerate() {
        match (open, line.trim_end()) {
            (false, "```yaml") => {
                open = true;
                blocks.push((index + 2, String::new()));
            }
            (true, "```") => open = false,
            (true, line) => blocks.last_mut().unwrap().1.extend([line, "\n"]),
            _ => {}
        }
    }
    blocks
}

#[test]
fn a_file_of_any_bytes_is_read_without_a_panic() {
    let seed = std::env::var("OUTRIGGER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos().into()
    });
    println!("OUTRIGGER_SEED={seed}");
    let mut random = Random::seeded(seed);
    // Mostly good files, so that what is accepted gets its share; never the ones that only exhaust a budget.
    let costly = |path: &PathBuf| path.ends_with("alias-bomb.yaml") || path.ends_with("too-deep.yaml");
    let mut seeds: Vec<_> = files("tests/config/invalid").into_iter().filter(|path| !costly(path)).collect();
    seeds.extend((0..6).flat_map(|_| good()));
    let texts: Vec<_> = seeds.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let pieces = [
        "${", "}", "{", "[", "&a ", "*a", "<<: ", "- ", ": ", "\t", "\n", "'", "\"", "|\n", "!!int ", "%", "\u{0}",
        "é", "---\n", "? ", "~",
    ];
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..3000 {
        let mut text: Vec<char> = texts[random.below(texts.len() as u32) as usize].chars().collect();
        for _ in 0..=random.below(4) {
            let at = random.below(text.len() as u32) as usize;
            match random.below(4) {
                0 => drop(text.remove(at)),
                1 => text[at] = char::from_u32(random.below(0x250)).unwrap_or('x'),
                2 => drop(text.drain(at..(at + random.below(30) as usize).min(text.len()))),
                _ => {
                    let piece = pieces[random.below(pieces.len() as u32) as usize];
                    text.splice(at..at, piece.chars());
                }
            }
            text.push('\n');
        }
        let text: String = text.into_iter().collect();
        match parse(&text) {
            Ok(_) => accepted += 1,
            Err(problems) => {
                refused += 1;
                assert!(problems.errors() > 0);
                for problem in problems.as_slice() {
                    assert!(
                        problem.line as usize <= text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count(),
                        "{problem}"
                    );
                    assert!(!problem.to_string().is_empty());
                }
            }
        }
    }
    assert!(
        refused > 300 && accepted > 300,
        "{refused} refused, {accepted} accepted: the mutations are too wild or too tame"
    );
}

#[test]
fn the_examples_have_only_keys_of_the_schema() {
    let schema = schema();
    for path in good() {
        let text = fs::read_to_string(&path).unwrap();
        let tree: Value = serde_saphyr::from_str(&text).unwrap();
        known(&tree, &schema, &path.display().to_string());
    }
}

/// Every key of the tree is in the schema, at its place.
fn known(tree: &Value, schema: &Value, path: &str) {
    if [".json", ".headers"].iter().any(|free| path.ends_with(free)) && schema.get("type").is_none() {
        return;
    }
    let forms = schema.get("anyOf").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![schema.clone()]);
    match tree {
        Value::Object(map) => {
            let form = forms
                .iter()
                .find(|form| form.get("properties").is_some() || form.get("additionalProperties").is_some());
            let form = form.unwrap_or_else(|| panic!("{path}: the schema has no map here"));
            for (key, value) in map {
                let below = form.get("properties").and_then(|properties| properties.get(key));
                let below = below.or_else(|| form.get("additionalProperties").filter(|other| other.is_object()));
                let below = below.unwrap_or_else(|| panic!("{path}.{key} is not in the schema"));
                known(value, below, &format!("{path}.{key}"));
            }
        }
        Value::Array(items) => {
            let form = forms.iter().find(|form| form["type"] == "array");
            let form = form.unwrap_or_else(|| panic!("{path}: the schema has no list here"));
            items.iter().for_each(|item| known(item, &form["items"], path));
        }
        _ => {}
    }
}

/// The documents of the files for Kubernetes.
fn manifests() -> Vec<(PathBuf, Value)> {
    let of = |path: PathBuf| {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&path).unwrap()).unwrap();
        documents.into_iter().map(move |document| (path.clone(), document))
    };
    files("deploy/kubernetes").into_iter().flat_map(of).collect()
}

#[test]
fn what_kubernetes_is_given_is_a_valid_configuration() {
    let configs: Vec<_> = manifests()
        .into_iter()
        .filter_map(|(path, document)| Some((path, document["data"]["outrigger.yaml"].as_str()?.to_owned())))
        .collect();
    assert!(configs.len() >= 2, "{configs:?}");
    for (path, text) in configs {
        let loaded = parse(&text).unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", path.display(), loaded.warnings);
    }
}

#[test]
fn the_files_for_kubernetes_hold_together() {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut pods = 0;
    for (path, document) in manifests() {
        let what = format!("{}: {}", path.display(), document["metadata"]["name"]);
        for key in ["apiVersion", "kind"] {
            assert!(document[key].is_string(), "{what} has no {key}");
        }
        let pod = &document["spec"]["template"]["spec"];
        if pod.is_null() {
            continue;
        }
        pods += 1;
        let volumes: Vec<_> = items(&pod["volumes"]).iter().map(|volume| volume["name"].clone()).collect();
        let containers = [items(&pod["initContainers"]), items(&pod["containers"])].concat();
        assert!(containers.iter().any(|container| container["name"] == "outrigger"), "{what}");
        for container in &containers {
            for mount in items(&container["volumeMounts"]) {
                assert!(volumes.contains(&mount["name"]), "{what}: no volume {}", mount["name"]);
            }
        }
        // A sidecar that runs beside a job and does not end with it would keep it from ever being done.
        let native = items(&pod["initContainers"]).iter().all(|container| container["restartPolicy"] == "Always");
        assert!(native, "{what}");
        if document["kind"] == "Job" && pod["initContainers"].is_null() {
            assert!(containers.iter().any(|container| container.to_string().contains("outrigger shutdown")), "{what}");
        }
    }
    assert_eq!(pods, 3);
}

#[test]
fn severities_have_words() {
    assert_eq!((Severity::Error.as_str(), Severity::Warning.as_str()), ("error", "warning"));
}
