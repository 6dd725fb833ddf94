//! Checking a value against its schema, in Kubernetes' words.

use std::collections::HashSet;

use serde_json::Value;

use super::{ListType, Schema, Type, format, list_key};
use crate::meta::At;
use crate::place::{Place, shown};
use crate::status::{Cause, MOST};

/// How many looks at a value one object may cost. A schema with many branches asks for many of each value.
const STEPS: usize = 20_000_000;

/// Broken rules, in the order they were found; of very many, the first.
pub(super) struct Findings {
    pub(super) causes: Vec<Cause>,
    /// When to stop looking: when there are so many causes, and after so many steps.
    enough: usize,
    steps: usize,
}

impl Default for Findings {
    fn default() -> Self {
        Self { causes: Vec::new(), enough: MOST.saturating_add(1), steps: STEPS }
    }
}

impl Findings {
    fn invalid(&mut self, at: &Place<'_>, value: &Value, why: &str) {
        self.causes.push(Cause::invalid(at.to_string(), value, format!("{at} in body {why}")));
    }

    /// Whether there is nothing more to look for.
    fn is_over(&mut self, at: &Place<'_>) -> bool {
        if self.causes.len() >= self.enough {
            return true;
        }
        let Some(left) = self.steps.checked_sub(1) else {
            let why = "the object and its schema together are too large to be checked";
            self.causes.push(Cause { reason: "FieldValueTooMany", message: why.to_owned(), field: at.to_string() });
            self.enough = self.causes.len();
            return true;
        };
        self.steps = left;
        false
    }

    /// Whether a value keeps to a schema, without telling why not.
    fn holds(&mut self, schema: &Schema, value: &Value, at: &Place<'_>) -> bool {
        let mut inner = Self { causes: Vec::new(), enough: 1, steps: self.steps };
        validate(schema, value, at, &mut inner);
        self.steps = inner.steps;
        inner.causes.is_empty()
    }
}

pub(super) fn validate(schema: &Schema, value: &Value, at: &Place<'_>, found: &mut Findings) {
    if (value.is_null() && schema.nullable) || found.is_over(at) {
        return;
    }
    if !has_type(schema, value) {
        let (wanted, got) = (wanted_type(schema), type_of(value));
        let why = format!("{at} in body must be of type {wanted}: \"{got}\"");
        let cause = Cause::invalid(at.to_string(), format_args!("\"{got}\""), why);
        found.causes.push(Cause { reason: "FieldValueTypeInvalid", ..cause });
        return;
    }
    validate_choices(schema, value, at, found);
    match value {
        Value::Object(fields) => validate_object(schema, fields, at, found),
        Value::Array(items) => validate_list(schema, value, items, at, found),
        Value::String(text) => validate_text(schema, value, text, at, found),
        Value::Number(number) => validate_number(schema, value, number, at, found),
        Value::Bool(_) | Value::Null => {}
    }
    validate_junctors(schema, value, at, found);
}

fn validate_choices(schema: &Schema, value: &Value, at: &Place<'_>, found: &mut Findings) {
    let allowed = &schema.limits.allowed;
    found.steps = found.steps.saturating_sub(allowed.len());
    if allowed.is_empty() || allowed.contains(value) {
        return;
    }
    let names = allowed.iter().map(|choice| match choice {
        Value::String(text) => format!("{text:?}"),
        other => format!("\"{other}\""),
    });
    let names = shown(names.collect::<Vec<_>>().join(", "));
    found.causes.push(Cause {
        reason: "FieldValueNotSupported",
        message: format!("Unsupported value: {}: supported values: {names}", shown(value)),
        field: at.to_string(),
    });
}

fn validate_object(schema: &Schema, fields: &serde_json::Map<String, Value>, at: &Place<'_>, found: &mut Findings) {
    found.steps = found.steps.saturating_sub(schema.required.len());
    for name in schema.required.iter().filter(|name| !fields.contains_key(*name)) {
        if found.is_over(at) {
            return;
        }
        found.causes.push(Cause::required(at.field(name).to_string(), ""));
    }
    let limits = &schema.limits;
    if let Some(most) = limits.max_properties.filter(|most| fields.len() > *most) {
        found.causes.push(too_many(at, fields.len(), most));
    }
    if let Some(least) = limits.min_properties.filter(|least| fields.len() < *least) {
        let value = Value::Object(fields.clone());
        found.invalid(at, &value, &format!("should have at least {least} properties"));
    }
    for (name, value) in fields {
        // Kubernetes writes keys of maps in brackets only where rules report them; schema errors join with dots.
        if let Some(child) = schema.field(name) {
            validate(child, value, &at.field(name), found);
        }
    }
}

fn validate_list(schema: &Schema, whole: &Value, items: &[Value], at: &Place<'_>, found: &mut Findings) {
    let limits = &schema.limits;
    if let Some(most) = limits.max_items.filter(|most| items.len() > *most) {
        found.causes.push(too_many(at, items.len(), most));
    }
    if let Some(least) = limits.min_items.filter(|least| items.len() < *least) {
        found.invalid(at, whole, &format!("should have at least {least} items"));
    }
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let at = at.item(index);
        let repeated = match &schema.list_type {
            ListType::Set => (!seen.insert(vec![item])).then(|| item.clone()),
            ListType::Map(keys) => (!seen.insert(list_key(item, keys)))
                .then(|| keys.iter().map(|key| (key.clone(), item.at(key.as_str()).clone())).collect::<Value>()),
            ListType::Atomic => (limits.unique_items && !seen.insert(vec![item])).then(|| item.clone()),
        };
        if let Some(repeated) = repeated {
            if found.is_over(&at) {
                return;
            }
            let message = format!("Duplicate value: {}", shown(repeated));
            found.causes.push(Cause { reason: "FieldValueDuplicate", message, field: at.to_string() });
        }
        if let Some(schema) = &schema.items {
            validate(schema, item, &at, found);
        }
    }
}

fn validate_text(schema: &Schema, value: &Value, text: &str, at: &Place<'_>, found: &mut Findings) {
    let limits = &schema.limits;
    let length = text.chars().count();
    // Of these only the first is told.
    if let Some(most) = limits.max_length.filter(|most| length > *most) {
        let message = format!("Too long: may not be more than {most} bytes");
        found.causes.push(Cause { reason: "FieldValueTooLong", message, field: at.to_string() });
    } else if let Some(least) = limits.min_length.filter(|least| length < *least) {
        found.invalid(at, value, &format!("should be at least {least} chars long"));
    } else if let Some(pattern) = limits.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        found.invalid(at, value, &format!("should match '{pattern}'"));
    }
    if let Some(format) = limits.format.as_ref().filter(|format| !format::holds(format, text)) {
        found.invalid(at, value, &format!("must be of type {format}: {}", shown(value)));
    }
}

fn validate_number(schema: &Schema, value: &Value, number: &serde_json::Number, at: &Place<'_>, found: &mut Findings) {
    let limits = &schema.limits;
    let Some(number) = number.as_f64() else { return };
    if let Some(least) = limits.minimum {
        let exclusive = limits.exclusive_minimum;
        if number < least || (exclusive && number <= least) {
            let than = if exclusive { "greater than" } else { "greater than or equal to" };
            found.invalid(at, value, &format!("should be {than} {least}"));
        }
    }
    if let Some(most) = limits.maximum {
        let exclusive = limits.exclusive_maximum;
        if number > most || (exclusive && number >= most) {
            let than = if exclusive { "less than" } else { "less than or equal to" };
            found.invalid(at, value, &format!("should be {than} {most}"));
        }
    }
    if let Some(step) = limits.multiple_of.filter(|step| *step > 0.0) {
        let steps = number / step;
        if (steps - steps.round()).abs() > 1e-9 {
            found.invalid(at, value, &format!("should be a multiple of {step}"));
        }
    }
}

fn validate_junctors(schema: &Schema, value: &Value, at: &Place<'_>, found: &mut Findings) {
    for branch in &schema.all_of {
        validate(branch, value, at, found);
    }
    let mut broken = Vec::new();
    // An int-or-string is written as such an anyOf as well, and its type has been checked already.
    let any_of = !schema.any_of.is_empty() && !schema.int_or_string;
    if any_of && !schema.any_of.iter().any(|branch| found.holds(branch, value, at)) {
        broken.push(format!("\"{at}\" must validate at least one schema (anyOf)"));
    }
    if !schema.one_of.is_empty() {
        match schema.one_of.iter().filter(|branch| found.holds(branch, value, at)).count() {
            1 => {}
            0 => broken.push(format!("\"{at}\" must validate one and only one schema (oneOf). Found none valid")),
            many => broken.push(format!(
                "\"{at}\" must validate one and only one schema (oneOf). Found {many} valid alternatives"
            )),
        }
    }
    if schema.not.as_deref().is_some_and(|branch| found.holds(branch, value, at)) {
        broken.push(format!("\"{at}\" must not validate the schema (not)"));
    }
    for why in broken {
        let shown =
            if value.is_object() || value.is_array() { format!("\"{}\"", type_of(value)) } else { value.to_string() };
        found.causes.push(Cause::invalid(path_or_nil(at), shown, why));
    }
}

pub(super) fn path_or_nil(at: &Place<'_>) -> String {
    if matches!(at, Place::Root) { "<nil>".to_owned() } else { at.to_string() }
}

fn too_many(at: &Place<'_>, count: usize, most: usize) -> Cause {
    let message = format!("Too many: {count}: must have at most {most} items");
    Cause { reason: "FieldValueTooMany", message, field: at.to_string() }
}

fn has_type(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || is_integer(value);
    }
    match schema.ty {
        // A node without a type takes anything but, where it says so, null.
        None => true,
        Some(Type::Object) => value.is_object(),
        Some(Type::Array) => value.is_array(),
        Some(Type::String) => value.is_string(),
        Some(Type::Integer) => is_integer(value),
        Some(Type::Number) => value.is_number(),
        Some(Type::Boolean) => value.is_boolean(),
    }
}

/// `1.0` is an integer, as in JSON Schema.
fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn wanted_type(schema: &Schema) -> &'static str {
    if schema.int_or_string { "integer,string" } else { schema.ty.map_or("object", Type::name) }
}

/// The schema type that a value would have.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Schema;
    use super::*;

    fn causes(schema: &Value, value: &Value) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"v": schema}});
        let schema = Schema::parse(&schema, "").unwrap();
        let object = json!({"v": value});
        schema
            .check(&object, None, &[])
            .into_iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    #[test]
    fn each_broken_limit_is_said_in_kubernetes_words() {
        let cases = [
            (
                json!({"type": "integer"}),
                json!("x"),
                r#"v: Invalid value: "string": v in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("c"),
                r#"v: Unsupported value: "c": supported values: "a", "b""#,
            ),
            (
                json!({"type": "string", "pattern": "^a$"}),
                json!("b"),
                r#"v: Invalid value: "b": v in body should match '^a$'"#,
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "v: Invalid value: 0: v in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "integer", "maximum": 1}),
                json!(2),
                "v: Invalid value: 2: v in body should be less than or equal to 1",
            ),
            (
                json!({"type": "string", "minLength": 1}),
                json!(""),
                r#"v: Invalid value: "": v in body should be at least 1 chars long"#,
            ),
            (json!({"type": "string", "maxLength": 1}), json!("ab"), "v: Too long: may not be more than 1 bytes"),
            (
                json!({"type": "array", "maxItems": 0, "items": {"type": "string"}}),
                json!(["a"]),
                "v: Too many: 1: must have at most 0 items",
            ),
            (json!({"type": "object", "required": ["a"]}), json!({}), "v.a: Required value"),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("x"),
                r#"v: Invalid value: "x": v in body must be of type date-time: "x""#,
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                r#"v: Invalid value: "boolean": v in body must be of type integer,string: "boolean""#,
            ),
            (
                json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                json!({}),
                r#"v: Invalid value: "object": "v" must validate one and only one schema (oneOf). Found none valid"#,
            ),
        ];
        for (schema, value, expected) in cases {
            assert_eq!(causes(&schema, &value), [expected], "{schema} {value}");
        }
    }

    #[test]
    fn a_list_known_by_keys_refuses_a_second_item_with_the_same_keys() {
        let schema = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}}}});
        assert_eq!(
            causes(&schema, &json!([{"name": "a"}, {"name": "b"}, {"name": "a"}])),
            [r#"v[2]: Duplicate value: {"name":"a"}"#]
        );
    }

    #[test]
    fn a_null_is_fine_where_the_schema_says_so_and_a_type_error_elsewhere() {
        assert!(causes(&json!({"type": "string", "nullable": true}), &json!(null)).is_empty());
        assert_eq!(
            causes(&json!({"type": "string"}), &json!(null)),
            [r#"v: Invalid value: "null": v in body must be of type string: "null""#]
        );
    }
}
