//! Strategic merge patch, as far as the built-in kinds served here have lists: `metadata.finalizers` is a set and
//! `metadata.ownerReferences` is known by `uid`. Everything else in them is a map or a value.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::meta::At;
use crate::status::ApiError;

pub(crate) fn merged(current: &Value, patch: &Value) -> Result<Value, ApiError> {
    let Value::Object(fields) = patch else { return Ok(patch.clone()) };
    match fields.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            return Ok(fields
                .iter()
                .filter(|(name, _)| !name.starts_with('$'))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect());
        }
        Some("delete") => return Ok(Value::Null),
        Some(other) if other != "merge" => {
            return Err(ApiError::bad_request(format!("Unknown patch type found: {other}")));
        }
        _ => {}
    }
    let mut result = current.as_object().cloned().unwrap_or_else(Map::new);
    for (name, change) in fields {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = change.as_array().map_or(&[] as &[Value], Vec::as_slice);
            if let Some(items) = result.get_mut(list).and_then(Value::as_array_mut) {
                let gone: HashSet<_> = gone.iter().collect();
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        // Orders and retained keys only matter to lists and unions that no kind here has.
        if name.starts_with('$') {
            continue;
        }
        let old = result.get(name).unwrap_or(&Value::Null);
        let new = match (name.as_str(), change) {
            (_, Value::Null) => Value::Null,
            ("finalizers", Value::Array(added)) => {
                let order = fields.get("$setElementOrder/finalizers").and_then(Value::as_array);
                with_values(old, added, order.map_or(&[], Vec::as_slice))
            }
            ("ownerReferences", Value::Array(added)) => with_items(old, added, "uid")?,
            (_, change) => merged(old, change)?,
        };
        result.insert(name.clone(), new);
    }
    // Together: one after the other would take the square of the time.
    result.retain(|name, value| !(value.is_null() && fields.contains_key(name)));
    Ok(Value::Object(result))
}

fn with_values(old: &Value, added: &[Value], order: &[Value]) -> Value {
    // What is new comes first.
    let old = old.as_array().map_or(&[] as &[Value], Vec::as_slice);
    let known: HashSet<_> = old.iter().collect();
    let mut items: Vec<_> = added.iter().filter(|item| !known.contains(item)).chain(old).cloned().collect();
    if !order.is_empty() {
        let order: HashMap<_, _> = order.iter().enumerate().rev().map(|(at, item)| (item, at)).collect();
        items.sort_by_key(|item| order.get(item).copied());
    }
    Value::Array(items)
}

fn with_items(old: &Value, changes: &[Value], key: &str) -> Result<Value, ApiError> {
    if changes.iter().any(|change| change.at("$patch") == "replace") {
        return Ok(changes.iter().filter(|change| change.at("$patch") != "replace").cloned().collect());
    }
    let old = old.as_array().map_or(&[] as &[Value], Vec::as_slice);
    let mut items: Vec<_> = old.iter().cloned().map(Some).collect();
    let mut places: HashMap<_, _> = old.iter().enumerate().rev().map(|(at, item)| (item.at(key), at)).collect();
    for change in changes {
        let is_deletion = change.at("$patch") == "delete";
        match places.get(change.at(key)).and_then(|&at| items.get_mut(at)) {
            Some(item) if is_deletion => *item = None,
            Some(item) => *item = Some(merged(item.as_ref().unwrap_or(&Value::Null), change)?),
            None if is_deletion => {}
            None => {
                places.insert(change.at(key), items.len());
                items.push(Some(change.clone()));
            }
        }
    }
    Ok(Value::Array(items.into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_merge_sets_grow_and_directives_delete() {
        let current = json!({"data": {"a": "1", "b": "2"},
            "metadata": {"finalizers": ["x"], "ownerReferences": [{"uid": "1", "name": "n"}, {"uid": "2"}]}});
        let patch = json!({"data": {"a": null, "c": "3"}, "metadata": {"$setElementOrder/finalizers": ["x", "y"],
            "finalizers": ["y"], "ownerReferences": [{"uid": "1", "kind": "K"}, {"uid": "2", "$patch": "delete"}]}});
        assert_eq!(
            merged(&current, &patch).unwrap(),
            json!({"data": {"b": "2", "c": "3"},
                "metadata": {"finalizers": ["x", "y"], "ownerReferences": [{"uid": "1", "name": "n", "kind": "K"}]}})
        );
        let without = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}});
        assert_eq!(merged(&current, &without).unwrap()["metadata"]["finalizers"], json!([]));
    }
}
