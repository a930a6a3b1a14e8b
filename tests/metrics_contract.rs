//! `docs/metrics.md` lists exactly the metrics that the program has, with their types and labels.
//!
//! The names are taken from `families.rs` itself, so that a new metric cannot be forgotten here; types and labels
//! from what is rendered once every handle has been touched.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use outrigger::{
    model::{Outcome, SourceKind},
    telemetry::{Metrics, metrics::LookResult},
};

/// Type and labels, by name.
type Listing = BTreeMap<String, (String, BTreeSet<String>)>;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the page's table: | `name` | type | labels | meaning |
fn documented() -> Listing {
    let mut listing = Listing::new();
    for row in read("docs/metrics.md").lines().filter(|line| line.starts_with("| `outrigger_")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, meaning, _] = cells[..] else { panic!("not four cells: {row}") };
        assert!(!meaning.is_empty(), "{row}");
        let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned()).filter(|l| !l.is_empty());
        let double = listing.insert(name.trim_matches('`').into(), (kind.into(), labels.collect()));
        assert!(double.is_none(), "{name} is listed twice");
    }
    listing
}

/// What a scrape shows once everything has happened to one service.
fn rendered() -> Listing {
    let metrics = Metrics::new();
    metrics.service("orders").call_ended(Outcome::Ok, std::time::Duration::from_millis(1));
    metrics.service("orders").graphql_ended("Buy", Outcome::Ok);
    metrics.discovery_look("orders", SourceKind::Dns, LookResult::Changed);
    metrics.unattributed_calls();
    metrics.downstream_connections();
    metrics.intercepted();
    metrics.certificate_expires("orders", std::time::SystemTime::now());
    let orders = metrics.service("orders");
    orders.retried("status");
    orders.ejected("consecutive");
    orders.fell_back("respond");
    orders.fallback_refused("respond", "full");
    orders.shed("low");
    orders.graphql_ended("Orders", Outcome::Ok);
    metrics.health_checked("orders", true);
    metrics.last_good_bytes();
    metrics.dns();
    let text = String::from_utf8(metrics.render()).unwrap();
    let mut listing = Listing::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            listing.insert(name.into(), (kind.into(), BTreeSet::new()));
        } else if let Some((series, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end)).unwrap_or(series);
            let labels = labels.split("\",").map(|pair| pair.split('=').next().unwrap()).filter(|&label| label != "le");
            listing.get_mut(family).unwrap().1.extend(labels.map(str::to_owned));
        }
    }
    listing
}

#[test]
fn the_page_lists_what_is_rendered() {
    let (documented, rendered) = (documented(), rendered());
    assert!(!documented.is_empty());
    assert_eq!(documented, rendered);
}

#[test]
fn the_page_lists_every_name_in_the_source() {
    let source = read("src/telemetry/metrics/families.rs");
    let program = source.split("#[cfg(test)]").next().unwrap();
    let literals = program.split('"').skip(1).step_by(2).filter(|text| text.starts_with("outrigger_"));
    let names: BTreeSet<String> = literals.map(str::to_owned).collect();
    assert_eq!(names, documented().into_keys().collect());
}

#[test]
fn queries_and_alerts_name_metrics_that_exist() {
    let page = read("docs/metrics.md");
    let known = documented();
    let words = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|w| w.starts_with("outrigger_"));
    for word in words {
        let family = word.strip_suffix("_bucket").unwrap_or(word);
        assert!(known.contains_key(family), "{word}");
    }
}

#[test]
fn every_outcome_is_explained() {
    let page = read("docs/metrics.md");
    for word in Outcome::words() {
        assert!(page.contains(&format!("`{word}`")), "{word}");
    }
}
