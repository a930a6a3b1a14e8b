//! The JSON Schema of the file, for editors: the tables of keys in other words.
//!
//! It says less than `outrigger check`: what is wrong between values needs the program.

use serde_json::{Map as Object, Value, json};

use super::{
    keys,
    shape::{Key, Map, Shape, Tables},
};

/// The JSON Schema (draft 2020-12) of the whole file, with descriptions and defaults.
pub fn schema() -> Value {
    let mut schema = of(&keys::ROOT);
    let head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "outrigger",
        "description": "The configuration of outrigger, a sidecar proxy. Times are `250ms`, `1s`, `5m`; shares `50%`; sizes `64KiB`; `${NAME}` and `${NAME:-default}` are environment variables.",
    });
    if let (Some(schema), Value::Object(head)) = (schema.as_object_mut(), head) {
        schema.extend(head);
    }
    schema
}

fn of(shape: &Shape) -> Value {
    let mut forms: Vec<Value> = shape.scalars.iter().map(|scalar| scalar.schema()).collect();
    forms.extend(
        shape.list.map(|list| json!({ "type": "array", "items": of(list.item), "minItems": usize::from(!list.empty) })),
    );
    let only_a_map = forms.is_empty();
    match shape.map {
        Map::None => {}
        Map::Json => forms.push(json!({})),
        Map::Keys(tables) => forms.push(object(tables, only_a_map)),
        Map::Names(tables) => {
            // A name with nothing under it lacks a source; a section with nothing under it is fine.
            forms.push(json!({ "type": ["object", "null"], "additionalProperties": object(tables, false) }));
        }
    }
    if forms.len() == 1 { forms.swap_remove(0) } else { json!({ "anyOf": forms }) }
}

fn object(tables: Tables, may_be_empty: bool) -> Value {
    let properties: Object<String, Value> =
        tables.iter().copied().flatten().map(|key| (key.name().to_owned(), property(key))).collect();
    let kind = if may_be_empty { json!(["object", "null"]) } else { json!("object") };
    json!({ "type": kind, "properties": properties, "additionalProperties": false })
}

fn property(key: &Key) -> Value {
    let mut value = of(&key.shape);
    if let Some(value) = value.as_object_mut() {
        value.insert("description".to_owned(), json!(key.about));
        if !key.default.is_empty() {
            let default = key.default.parse::<u64>().map_or_else(|_| json!(key.default), |number| json!(number));
            value.insert("default".to_owned(), default);
        }
    }
    value
}
