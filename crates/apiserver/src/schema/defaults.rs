//! Filling in what the writer left out.

use serde_json::Value;

use super::Schema;

pub(super) fn apply(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // A null is no value, unless the schema says that it is one.
            fields.retain(|name, value| {
                let unwanted = |child: &Schema| !child.nullable && child.default.is_none();
                !(value.is_null() && schema.field(name).is_some_and(unwanted))
            });
            for (name, child) in &schema.properties {
                let Some(default) = &child.default else { continue };
                let missing = match fields.get(name) {
                    None => true,
                    Some(Value::Null) => !child.nullable,
                    Some(_) => false,
                };
                if missing {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(child) = schema.field(name) {
                    apply(child, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for item in items {
                    apply(schema, item);
                }
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
    fn defaults_fill_missing_fields_at_every_depth_and_never_overwrite() {
        let schema = Schema::parse(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
                "mode": {"type": "string", "default": "Auto"},
                "ports": {"type": "array", "items": {"type": "object", "properties": {
                    "protocol": {"type": "string", "default": "TCP"}}}},
            }}}}),
            "",
        )
        .unwrap();
        let mut empty = json!({});
        schema.fill_defaults(&mut empty);
        assert_eq!(empty, json!({"spec": {"mode": "Auto"}}));
        let mut given = json!({"spec": {"mode": null, "ports": [{}, {"protocol": "UDP"}]}});
        schema.fill_defaults(&mut given);
        assert_eq!(given["spec"], json!({"mode": "Auto", "ports": [{"protocol": "TCP"}, {"protocol": "UDP"}]}));
    }
}
