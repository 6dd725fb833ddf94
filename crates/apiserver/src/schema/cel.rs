//! `x-kubernetes-validations`: rules in CEL, also over the change from an old value to a new one.
//!
//! The walk is ours and only a single node's rules go to `kube-cel`, because only here is it known which old item of
//! a list belongs to which new one: by key where the list has keys, not by position.

use std::collections::HashMap;

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, Validator, compile_schema};
use serde_json::Value;

use super::cost::{Cost, count, on_large_stack};
use super::validate::path_or_nil;
use super::{Budget, ListType, Schema, list_key};
use crate::meta;
use crate::meta::At;
use crate::place::{Place, shown};
use crate::status::{Cause, MOST};

/// The compiled rules of one node.
pub(super) struct Rules {
    compiled: CompiledSchema,
    validator: Validator,
    cost: Cost,
}

impl Rules {
    pub(super) fn parse(raw: &Value, budget: &Budget) -> Result<Option<Self>, String> {
        let rules = raw.at("x-kubernetes-validations");
        if rules.as_array().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        budget.nodes(count(raw))?;
        let cost = Cost::of(rules).map_err(|why| format!("x-kubernetes-validations: {why}"))?;
        // The children stay for their formats (timestamps are not strings to CEL), without rules of their own.
        let mut node = without_rules(raw);
        meta::put(&mut node, "x-kubernetes-validations", rules.clone());
        let compiled = on_large_stack(|| compile_schema(&node));
        let compiled = compiled.ok_or("x-kubernetes-validations: a rule cannot be compiled")?;
        if let Some(error) = compiled.compilation_errors().first() {
            return Err(format!("x-kubernetes-validations: {error}"));
        }
        Ok(Some(Self { compiled, validator: Validator::new(), cost }))
    }

    fn evaluate(&self, new: &Value, old: Option<&Value>, at: &Place<'_>, causes: &mut Vec<Cause>) {
        if !self.cost.allows(new) {
            let why = "its rules would take too many steps on a value of this size";
            causes.push(Cause::invalid_whole(path_or_nil(at), why));
            return;
        }
        match self.cost.run(|| self.validator.validate_compiled(&self.compiled, new, old)) {
            Some(Ok(())) => {}
            Some(Err(errors)) => causes.extend(errors.into_iter().map(|error| cause(error, new, at))),
            None => causes.push(Cause::invalid_whole(path_or_nil(at), "its rules could not be evaluated")),
        }
    }
}

fn cause(error: ValidationError, value: &Value, at: &Place<'_>) -> Cause {
    let field = match (at, error.field_path.trim_start_matches('.')) {
        (Place::Root, "") => "<nil>".to_owned(),
        (at, "") => at.to_string(),
        (at, inner) => at.field(inner).to_string(),
    };
    // Scalars are shown; of the rest only the rule's message is of use.
    let whole = value.is_object() || value.is_array();
    let message = match error.kind {
        ErrorKind::ValidationFailure => error.message,
        _ => format!("rule \"{}\" could not be evaluated: {}", error.rule, error.message),
    };
    match error.reason.as_deref() {
        Some("FieldValueRequired") => Cause::required(field, &message),
        Some("FieldValueForbidden") => Cause::forbidden(field, message),
        Some("FieldValueDuplicate") => {
            Cause { reason: "FieldValueDuplicate", message: format!("Duplicate value: {}", shown(value)), field }
        }
        _ if whole => Cause::invalid_whole(field, message),
        _ => Cause::invalid(field, value, message),
    }
}

fn without_rules(raw: &Value) -> Value {
    match raw {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| *name != "x-kubernetes-validations");
            kept.map(|(name, value)| (name.clone(), without_rules(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_rules).collect(),
        other => other.clone(),
    }
}

/// Evaluates the rules of this node and of every node below that has a value.
pub(super) fn evaluate(schema: &Schema, new: &Value, old: Option<&Value>, at: &Place<'_>, causes: &mut Vec<Cause>) {
    if causes.len() > MOST {
        return;
    }
    if let Some(rules) = &schema.rules {
        rules.evaluate(new, old, at, causes);
    }
    match new {
        Value::Object(fields) => {
            for (name, value) in fields {
                let known = schema.properties.get(name).map(|child| (child, at.field(name)));
                let mapped = || schema.additional.as_deref().map(|child| (child, Place::Entry(at, name)));
                if let Some((child, at)) = known.or_else(mapped) {
                    evaluate(child, value, old.and_then(|old| old.get(name)), &at, causes);
                }
            }
        }
        Value::Array(items) => {
            let Some(child) = &schema.items else { return };
            let counterparts = Counterparts::of(&schema.list_type, old);
            for (index, item) in items.iter().enumerate() {
                evaluate(child, item, counterparts.find(item), &at.item(index), causes);
            }
        }
        _ => {}
    }
}

/// The old items of a list by their keys. Items of atomic lists and sets have no history.
struct Counterparts<'a> {
    keys: &'a [String],
    old: HashMap<Vec<&'a Value>, &'a Value>,
}

impl<'a> Counterparts<'a> {
    fn of(list_type: &'a ListType, old: Option<&'a Value>) -> Self {
        let keys = if let ListType::Map(keys) = list_type { keys.as_slice() } else { &[] };
        let old = old.and_then(Value::as_array).into_iter().flatten().filter(|_| !keys.is_empty());
        // The first of several with the same keys.
        Self { keys, old: old.rev().map(|old| (list_key(old, keys), old)).collect() }
    }

    /// The old item that a new one continues.
    fn find(&self, item: &'a Value) -> Option<&'a Value> {
        self.old.get(&list_key(item, self.keys)).copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "reads better where it is called")]
    fn schema(rules: Value, properties: Value) -> Schema {
        let raw = json!({"type": "object", "properties": {"spec": {
            "type": "object", "properties": properties, "x-kubernetes-validations": rules}}});
        Schema::parse(&raw, "").unwrap()
    }

    fn texts(causes: Vec<Cause>) -> Vec<String> {
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_broken_rule_names_its_field_and_says_its_message() {
        let schema = schema(
            json!([{"rule": "has(self.a) != has(self.b)", "message": "exactly one of a and b must be set"}]),
            json!({"a": {"type": "string"}, "b": {"type": "string"}}),
        );
        assert!(schema.check(&json!({"spec": {"a": "1"}}), None, &[]).is_empty());
        assert_eq!(
            texts(schema.check(&json!({"spec": {}}), None, &[])),
            ["spec: Invalid value: exactly one of a and b must be set"]
        );
    }

    #[test]
    fn a_rule_over_a_change_is_asked_only_when_there_is_an_old_value() {
        let schema = schema(
            json!([]),
            json!({"image": {"type": "string", "x-kubernetes-validations":
                [{"rule": "self == oldSelf", "message": "image is immutable"}]}}),
        );
        let (old, new) = (json!({"spec": {"image": "a"}}), json!({"spec": {"image": "b"}}));
        assert!(schema.check(&new, None, &[]).is_empty());
        assert_eq!(
            texts(schema.check(&new, Some(&old), &[])),
            ["spec.image: Invalid value: \"b\": image is immutable"]
        );
    }

    #[test]
    fn items_are_compared_with_the_old_item_of_the_same_key_wherever_it_stands() {
        let schema = schema(
            json!([]),
            json!({"list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "v must not shrink"}]}}}),
        );
        let old = json!({"spec": {"list": [{"name": "a", "v": 9}, {"name": "b", "v": 1}]}});
        let swapped = json!({"spec": {"list": [{"name": "b", "v": 2}, {"name": "a", "v": 9}]}});
        assert!(schema.check(&swapped, Some(&old), &[]).is_empty());
    }

    #[test]
    fn rules_are_left_unasked_while_the_shape_is_wrong_and_the_answer_says_so() {
        let schema = schema(json!([{"rule": "self.a > 0"}]), json!({"a": {"type": "integer"}}));
        let causes = texts(schema.check(&json!({"spec": {"a": "x"}}), None, &[]));
        assert_eq!(causes.len(), 2);
        assert!(
            causes[1].starts_with("<nil>: Invalid value: null: some validation rules were not checked"),
            "{causes:?}"
        );
    }

    #[test]
    fn a_rule_that_does_not_compile_is_refused_with_the_definition() {
        let raw = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.("}]});
        assert!(Schema::parse(&raw, "spec.versions[0].schema").is_err());
    }
}
