//! JSON merge patch, RFC 7386.

use serde_json::{Map, Value};

/// `current` with `patch` laid over it; null removes.
pub(crate) fn merged(current: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut result = current.as_object().cloned().unwrap_or_else(Map::new);
    // Together: one after the other would take the square of the time.
    result.retain(|name, _| !patch.get(name).is_some_and(Value::is_null));
    for (name, change) in patch.iter().filter(|(_, change)| !change.is_null()) {
        let merged = merged(result.get(name).unwrap_or(&Value::Null), change);
        result.insert(name.clone(), merged);
    }
    Value::Object(result)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::merged;

    #[test]
    fn objects_merge_lists_are_replaced_and_nulls_remove() {
        let current = json!({"a": {"b": 1, "c": 2}, "l": [1, 2], "x": 1});
        let patch = json!({"a": {"b": null, "d": 3}, "l": [9], "new": {"n": {"gone": null}}});
        assert_eq!(merged(&current, &patch), json!({"a": {"c": 2, "d": 3}, "l": [9], "x": 1, "new": {"n": {}}}));
    }
}
