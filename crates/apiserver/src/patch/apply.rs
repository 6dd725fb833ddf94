//! Server-side apply: what a manager wants, laid over what is there.

use serde_json::{Map, Value};

use super::fields::{Element, FieldSet, parts};
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
                    let mut all = old.to_vec();
                    all.extend(items.iter().filter(|item| !old.contains(item)).cloned());
                    Value::Array(all)
                }
                ListType::Map(keys) => {
                    let mut all = old.to_vec();
                    for item in items {
                        let key = list_key(item, keys);
                        match all.iter().position(|old| list_key(old, keys) == key) {
                            Some(at) => all[at] = merged(&all[at], item, item_schema),
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
    let none = FieldSet::default();
    let mut leaving = Vec::new();
    for (element, gone) in gone.children() {
        let kept_here = kept.child(element);
        if gone.owns_itself() && kept_here.is_none() {
            leaving.push(element.clone());
        } else if let Some((child, schema)) = part_mut(value, element, schema) {
            remove(child, gone, kept_here.unwrap_or(&none), schema);
            // A map or a list that was only there for what has left it.
            let is_empty = child.as_object().is_some_and(Map::is_empty) || child.as_array().is_some_and(Vec::is_empty);
            if kept_here.is_none() && is_empty {
                leaving.push(element.clone());
            }
        }
    }
    for element in &leaving {
        take_out(value, element, schema);
    }
}

fn part_mut<'a, 'b>(
    value: &'a mut Value,
    element: &Element,
    schema: Option<&'b Schema>,
) -> Option<(&'a mut Value, Option<&'b Schema>)> {
    if let Element::Field(name) = element {
        return Some((value.as_object_mut()?.get_mut(name)?, schema.and_then(|schema| schema.field(name))));
    }
    let at = position(value, element, schema)?;
    Some((value.get_mut(at)?, schema.and_then(|schema| schema.items.as_deref())))
}

fn take_out(value: &mut Value, element: &Element, schema: Option<&Schema>) {
    if let (Value::Object(fields), Element::Field(name)) = (&mut *value, element) {
        fields.shift_remove(name);
    } else if let Some(at) = position(value, element, schema)
        && let Value::Array(items) = value
    {
        items.remove(at);
    }
}

fn position(list: &Value, element: &Element, schema: Option<&Schema>) -> Option<usize> {
    list.as_array()?;
    parts(list, schema)?.iter().position(|(one, ..)| one == element)
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
