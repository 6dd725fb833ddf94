//! Server-side apply: what a manager wants, laid over what is there.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::fields::{Element, FieldSet, element_of};
use crate::schema::{ListType, Schema, list_key};

/// `current` with everything that `applied` says. Maps merge, lists known by keys merge item by item, other lists are
/// replaced.
pub(super) fn merged(current: &Value, applied: &Value, schema: Option<&Schema>) -> Value {
    match applied {
        Value::Object(_) if schema.is_some_and(|schema| schema.atomic_map) => applied.clone(),
        Value::Object(fields) => {
            let mut result = current.as_object().cloned().unwrap_or_else(Map::new);
            for (name, value) in fields {
                let old = result.get(name).unwrap_or(&Value::Null);
                let new = merged(old, value, schema.and_then(|schema| schema.field(name)));
                result.insert(name.clone(), new);
            }
            Value::Object(result)
        }
        Value::Array(items) => {
            let item_schema = schema.and_then(|schema| schema.items.as_deref());
            let old = current.as_array().map_or(&[] as &[Value], Vec::as_slice);
            match schema.map_or(&ListType::Atomic, |schema| &schema.list_type) {
                ListType::Atomic => applied.clone(),
                ListType::Set => {
                    let known: HashSet<_> = old.iter().collect();
                    Value::Array(old.iter().chain(items.iter().filter(|item| !known.contains(item))).cloned().collect())
                }
                ListType::Map(keys) => {
                    let mut all = old.to_vec();
                    let known = old.iter().enumerate().rev();
                    let mut places: HashMap<_, _> = known.map(|(at, item)| (list_key(item, keys), at)).collect();
                    for item in items {
                        let place = places.entry(list_key(item, keys)).or_insert(all.len());
                        match all.get_mut(*place) {
                            Some(old) => *old = merged(old, item, item_schema),
                            None => all.push(item.clone()),
                        }
                    }
                    Value::Array(all)
                }
            }
        }
        other => other.clone(),
    }
}

/// Takes out of `value` what is in `gone` and not in `kept`.
pub(super) fn remove(value: &mut Value, gone: &FieldSet, kept: &FieldSet, schema: Option<&Schema>) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            let element = Element::Field(name.clone());
            stays(value, &element, gone, kept, schema.and_then(|schema| schema.field(name)))
        }),
        Value::Array(items) => {
            // Where the same item is there twice, the first one is meant.
            let mut seen = HashSet::new();
            items.retain_mut(|item| {
                let Some((element, child)) = element_of(item, schema) else { return true };
                !seen.insert(element.clone()) || stays(item, &element, gone, kept, child)
            });
        }
        _ => {}
    }
}

/// Whether a part is still there, once what is in `gone` has been taken out of it.
fn stays(value: &mut Value, element: &Element, gone: &FieldSet, kept: &FieldSet, schema: Option<&Schema>) -> bool {
    let Some(gone) = gone.child(element) else { return true };
    let kept = kept.child(element);
    if gone.owns_itself() && kept.is_none() {
        return false;
    }
    remove(value, gone, kept.unwrap_or(&FieldSet::default()), schema);
    // A map or a list that was only there for what has left it.
    let is_empty = value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    kept.is_some() || !is_empty
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_merged_by_type_and_other_lists_replaced() {
        let schema = Schema::parse(
            &json!({"type": "object", "properties": {
                "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                    "items": {"type": "object"}},
                "args": {"type": "array"}}}),
            "",
        )
        .unwrap();
        let current = json!({"conditions": [{"type": "A", "status": "False"}, {"type": "B"}], "args": [1, 2], "x": 1});
        let applied = json!({"conditions": [{"type": "A", "status": "True"}], "args": [3]});
        assert_eq!(
            merged(&current, &applied, Some(&schema)),
            json!({"conditions": [{"type": "A", "status": "True"}, {"type": "B"}], "args": [3], "x": 1})
        );
    }
}
