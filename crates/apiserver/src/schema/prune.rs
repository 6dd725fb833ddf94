//! Dropping fields that the schema does not know.

use serde_json::Value;

use super::Schema;
use crate::place::Place;
use crate::status::MOST;

/// The fields that every object has, whatever its schema says of them.
const TYPE_FIELDS: [&str; 2] = ["apiVersion", "kind"];

pub(super) fn prune_root(schema: &Schema, object: &mut Value, dropped: &mut Vec<String>) {
    prune(schema, object, &Place::Root, true, dropped);
}

fn prune(schema: &Schema, value: &mut Value, at: &Place<'_>, is_object: bool, dropped: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let known_anyway = |field: &str| {
                (TYPE_FIELDS.contains(&field) && (is_object || schema.embedded_resource))
                    || (field == "metadata" && schema.embedded_resource)
            };
            // Removed together: one after the other would take the square of the time.
            fields.retain(|name, value| {
                if known_anyway(name) {
                    return true;
                }
                match schema.field(name) {
                    Some(child) => prune(child, value, &at.field(name), false, dropped),
                    None if schema.preserve_unknown => {}
                    None => {
                        if dropped.len() < MOST {
                            dropped.push(at.field(name).to_string());
                        }
                        return false;
                    }
                }
                true
            });
        }
        Value::Array(items) => {
            let Some(schema) = &schema.items else { return };
            for (index, item) in items.iter_mut().enumerate() {
                prune(schema, item, &at.item(index), false, dropped);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Schema;

    #[test]
    fn unknown_fields_go_and_are_named_while_open_objects_keep_theirs() {
        let schema = Schema::parse(
            &json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {}}}, "spec": {"type": "object", "properties": {
                "known": {"type": "string"},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "items": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            }}}}),
            "",
        )
        .unwrap();
        let mut object = json!({"kind": "X", "metadata": {"name": "x"}, "spec": {
            "known": "1", "unknown": "2", "open": {"any": 1}, "items": [{"a": "1", "b": "2"}]}});
        let dropped = schema.prune(&mut object);
        assert_eq!(dropped, ["spec.unknown", "spec.items[0].b"]);
        assert_eq!(object["spec"], json!({"known": "1", "open": {"any": 1}, "items": [{"a": "1"}]}));
        assert_eq!(object["metadata"]["name"], "x");
    }
}
