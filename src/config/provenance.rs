//! Where a service's policy values came from.
//!
//! Some sixty values are in force for a service, and few of them are written anywhere: which ones are in force is the
//! same for most services, and kept once for all of them; only what somebody wrote is a service's own.

use std::{collections::HashSet, sync::Arc};

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// Built in.
    Default,
    /// The file's `defaults:` section, at this line (from 1).
    Defaults(u32),
    /// The service's own entry, at this line (from 1).
    Service(u32),
}

/// The keys of the values in force for a service, and who wrote which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenances {
    /// Sorted.
    in_force: Arc<[&'static str]>,
    /// Those that are not built in, sorted by key.
    written: Box<[(&'static str, Provenance)]>,
}

impl Provenances {
    /// From the values in force, sorted by key.
    pub(super) fn new(in_force: &[(&'static str, Provenance)]) -> Self {
        let written = in_force.iter().filter(|(_, by)| *by != Provenance::Default);
        Self { in_force: in_force.iter().map(|(key, _)| *key).collect(), written: written.copied().collect() }
    }

    /// Who said what the value of a key is; `None` when none is in force.
    pub fn get(&self, key: &str) -> Option<Provenance> {
        self.in_force.binary_search(&key).ok()?;
        let place = self.written.binary_search_by(|(written, _)| (*written).cmp(key));
        Some(place.map_or(Provenance::Default, |place| self.written[place].1))
    }

    /// How many values are in force.
    pub fn count(&self) -> usize {
        self.in_force.len()
    }

    /// Has it share its keys with another service that has the same ones.
    pub(super) fn share(&mut self, shared: &mut HashSet<Arc<[&'static str]>>) {
        match shared.get(&self.in_force) {
            Some(same) => self.in_force = same.clone(),
            None => {
                shared.insert(self.in_force.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_in_force_is_told_apart_from_what_is_not() {
        let all = Provenances::new(&[("a", Provenance::Default), ("b", Provenance::Service(3))]);
        assert_eq!(all.get("a"), Some(Provenance::Default));
        assert_eq!(all.get("b"), Some(Provenance::Service(3)));
        assert_eq!((all.get("c"), all.count()), (None, 2));
    }

    #[test]
    fn services_with_the_same_policies_share_their_keys() {
        let text = "services: { a: { dns: a:1 }, b: { dns: b:1, timeout: 1s }, c: { dns: c:1, breaker: off } }";
        let config = Config::parse("t.yaml", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).config;
        let keys = |name: &str| config.services[name].provenance.in_force.clone();
        assert!(Arc::ptr_eq(&keys("a"), &keys("b")));
        assert!(keys("c").len() < keys("a").len());
        assert_eq!(config.services["a"].provenance.get("timeout.request"), Some(Provenance::Default));
        assert_eq!(config.services["b"].provenance.get("timeout.request"), Some(Provenance::Service(1)));
    }
}
