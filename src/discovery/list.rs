//! The list of endpoints in a file: what may stand there, and what it means.
//!
//! ```yaml
//! - 10.0.0.1:8080                                        # an address
//! - { address: 10.0.0.2:8080, weight: 3, priority: 1 }   # or a map
//! ```
//! The list is the whole file, or the value of its only key, `endpoints`. JSON is read as it is. Strict:
//! a misspelt key is an error, since a weight that silently does not apply is worse than a file that is
//! refused and says why.

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::model::{Endpoint, Origin};

/// Endpoints that one file may hold.
const MAX_ENDPOINTS: usize = 10_000;
/// The greatest weight, as in SRV records, so that a source can be exchanged for another.
const MAX_WEIGHT: u32 = 65_535;

/// Reads a list.
///
/// # Errors
/// What is wrong with the text, for an operator, with its place where the parser knows it.
pub(super) fn read(text: &str, origin: &Origin) -> Result<Vec<Endpoint>, String> {
    let List(entries) = parse(text)?;
    let endpoint = |entry: Entry| Endpoint {
        addr: entry.address.0,
        weight: entry.weight,
        priority: entry.priority,
        authority: Arc::from(entry.address.0.to_string()),
        origin: origin.clone(),
    };
    Ok(entries.into_iter().map(endpoint).collect())
}

fn parse(text: &str) -> Result<List, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err("it is empty; a list without endpoints is written `[]`".into());
    }
    // YAML holds JSON, but not the tabs that some programs indent it with.
    if text.trim_start().starts_with(['[', '{'])
        && let Ok(list) = serde_json::from_str(text)
    {
        return Ok(list);
    }
    serde_saphyr::from_str(text).map_err(|e| e.to_string())
}

struct List(Vec<Entry>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of endpoints, or a map with the key `endpoints`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    if entries.len() == MAX_ENDPOINTS {
                        return Err(A::Error::custom(format_args!("more than {MAX_ENDPOINTS} endpoints")));
                    }
                    entries.push(entry);
                }
                Ok(List(entries))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<List, A::Error> {
                Wrapped::deserialize(MapAccessDeserializer::new(map)).map(|w| List(w.endpoints.0))
            }
        }
        from.deserialize_any(Shape)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    endpoints: Bare,
}

/// A list that is not wrapped once more.
struct Bare(Vec<Entry>);

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let entries = Vec::<Entry>::deserialize(from)?;
        if entries.len() > MAX_ENDPOINTS {
            return Err(D::Error::custom(format_args!("more than {MAX_ENDPOINTS} endpoints")));
        }
        Ok(Self(entries))
    }
}

struct Entry {
    address: Address,
    weight: u32,
    priority: u16,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`IP:PORT`, or a map with `address` and perhaps `weight` and `priority`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry { address: text.parse().map_err(E::custom)?, weight: 1, priority: 0 })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
                if !(1..=MAX_WEIGHT).contains(&fields.weight) {
                    let weight = fields.weight;
                    return Err(A::Error::custom(format_args!("weight {weight} is not within 1 to {MAX_WEIGHT}")));
                }
                Ok(Entry { address: fields.address, weight: fields.weight, priority: fields.priority })
            }
        }
        from.deserialize_any(Shape)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(alias = "addr")]
    address: Address,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    priority: u16,
}

fn one() -> u32 {
    1
}

struct Address(SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<SocketAddr>() {
            Ok(addr) if addr.port() == 0 => Err(format!("{text:?} has port 0, which nobody listens on")),
            Ok(addr) => Ok(Self(addr)),
            Err(_) => Err(format!("{text:?} is not IP:PORT; a host name belongs in a `dns` source")),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SourceKind;

    fn endpoints(text: &str) -> Result<Vec<(String, u32, u16)>, String> {
        let origin = Origin { kind: SourceKind::File, detail: "orders.yaml".into() };
        let list = read(text, &origin)?;
        Ok(list.into_iter().map(|e| (e.addr.to_string(), e.weight, e.priority)).collect())
    }

    #[test]
    fn every_way_to_write_a_list_means_the_same() {
        let expected = vec![("10.0.0.1:80".into(), 1, 0), ("[fd00::1]:80".into(), 3, 2)];
        for text in [
            "- 10.0.0.1:80\n- {address: '[fd00::1]:80', weight: 3, priority: 2}\n",
            "endpoints:\n  - 10.0.0.1:80\n  - addr: \"[fd00::1]:80\"\n    weight: 3\n    priority: 2\n",
            r#"["10.0.0.1:80", {"address": "[fd00::1]:80", "weight": 3, "priority": 2}]"#,
            "{\n\t\"endpoints\": [\n\t\t\"10.0.0.1:80\",\n\t\t{\"addr\": \"[fd00::1]:80\", \"weight\": 3, \"priority\": 2}\n\t]\n}",
            "\u{feff}# who runs where\n- '10.0.0.1:80'\n- address: '[fd00::1]:80'\n  weight: 3\n  priority: 2\n",
        ] {
            assert_eq!(endpoints(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn only_an_explicit_empty_list_is_empty() {
        for text in ["[]", "endpoints: []", r#"{"endpoints": []}"#] {
            assert_eq!(endpoints(text), Ok(vec![]), "{text}");
        }
        for text in ["", " \n", "# nothing\n", "endpoints:\n", "~", "{}", "null"] {
            assert!(endpoints(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_list_of_endpoints_is_refused_with_the_reason() {
        for (text, reason) in [
            ("- orders:80", "is not IP:PORT"),
            ("- 10.0.0.1", "is not IP:PORT"),
            ("- 10.0.0.1:0", "port 0"),
            ("- {address: '10.0.0.1:80', weigth: 2}", "weigth"),
            ("- {address: '10.0.0.1:80', addr: '10.0.0.1:80'}", "duplicate"),
            ("- {address: '10.0.0.1:80', weight: 0}", "weight 0"),
            ("- {address: '10.0.0.1:80', weight: 65536}", "weight 65536"),
            ("- {address: '10.0.0.1:80', priority: -1}", "priority"),
            ("- {weight: 2}", "address"),
            ("endpoint: []", "endpoint"),
            ("endpoints: {endpoints: []}", "sequence"),
            ("- [10.0.0.1:80]", "IP:PORT"),
            ("- 80", "IP:PORT"),
            (r#"["10.0.0.1:80", "10.0.0."#, ""),
            ("- 10.0.0.1:80\n- {address: 10.0", ""),
        ] {
            let error = endpoints(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_has_a_limit() {
        let list = |n: usize| "- 10.0.0.1:80\n".repeat(n);
        assert_eq!(endpoints(&list(MAX_ENDPOINTS)).unwrap().len(), MAX_ENDPOINTS);
        assert!(endpoints(&list(MAX_ENDPOINTS + 1)).unwrap_err().contains("more than"));
    }

    #[test]
    fn aliases_of_aliases_do_not_explode() {
        let mut bomb = String::from("a0: &a0 ['10.0.0.1:80']\n");
        for i in 1..40 {
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(","));
        }
        assert!(endpoints(&bomb).is_err());
    }
}
