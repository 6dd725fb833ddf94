//! Reading and writing `metadata` of an object that is plain JSON.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Reads a field that may not be there, of what may be no object. To index would do the same where a value is read, and panic where
/// one is written: `cargo xtask tidy` refuses it everywhere here.
pub(crate) trait At {
    /// The field; null where there is none.
    fn at(&self, field: &str) -> &Value;
}

impl At for Value {
    fn at(&self, field: &str) -> &Value {
        static NULL: Value = Value::Null;
        self.get(field).unwrap_or(&NULL)
    }
}

/// A field of `metadata` as text; `""` where it is missing.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.at("metadata").at(field).as_str().unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata`, created where it is missing or not an object. An object that is not a JSON object is left alone.
pub(crate) fn of(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut()
}

/// Sets a field of an object; anything else is left as it is, for the schema to refuse. To assign through an index would panic
/// where a client sent text in place of an object.
pub(crate) fn put(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

/// Sets a field of `metadata`.
pub(crate) fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(metadata) = of(object) {
        metadata.insert(field.to_owned(), value);
    }
}

pub(crate) fn remove(object: &mut Value, field: &str) {
    if let Some(metadata) = of(object) {
        // `shift_remove` keeps the order in which people read the other fields.
        metadata.shift_remove(field);
    }
}

/// Makes `field` of `to` what it is in `from`, missing included.
pub(crate) fn copy(from: &Value, to: &mut Value, field: &str) {
    match from.at("metadata").get(field) {
        Some(value) => set(to, field, value.clone()),
        None => remove(to, field),
    }
}

/// Whether deletion has begun.
pub(crate) fn is_ending(object: &Value) -> bool {
    object.at("metadata").at("deletionTimestamp").is_string()
}

pub(crate) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object.at("metadata").at("finalizers").as_array().into_iter().flatten().filter_map(Value::as_str)
}

pub(crate) fn owner_references(object: &Value) -> impl Iterator<Item = &Value> {
    object.at("metadata").at("ownerReferences").as_array().into_iter().flatten()
}

/// `2026-01-31T12:00:00Z`: `metav1.Time` has whole seconds.
pub(crate) fn time(at: Timestamp) -> Value {
    Value::String(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// About how long a value is as JSON, in bytes.
pub(crate) fn json_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) => text.len().saturating_add(2),
        Value::Array(items) => items.iter().fold(2, |sum, item| sum.saturating_add(json_size(item)).saturating_add(1)),
        Value::Object(fields) => {
            let of_field =
                |(name, value): (&String, &Value)| name.len().saturating_add(4).saturating_add(json_size(value));
            fields.iter().map(of_field).fold(2, usize::saturating_add)
        }
    }
}

/// Go's typed objects know no null: it is the same as a missing field.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Puts `apiVersion`, `kind` and `metadata` first, as every client prints them.
pub(crate) fn in_reading_order(object: Value) -> Value {
    let Value::Object(mut fields) = object else { return object };
    let mut ordered = Map::with_capacity(fields.len());
    for first in ["apiVersion", "kind", "metadata"] {
        if let Some(value) = fields.shift_remove(first) {
            ordered.insert(first.to_owned(), value);
        }
    }
    ordered.extend(fields);
    Value::Object(ordered)
}
