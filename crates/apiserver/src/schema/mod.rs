//! Structural schemas of custom resources: what a field may hold, what it holds by default, which fields exist at all.

mod cel;
mod cost;
mod defaults;
mod format;
pub(crate) mod object_meta;
mod prune;
mod validate;

use std::cell::Cell;
use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::meta::At;
use crate::place::{Place, shown};
use crate::status::Cause;
use cel::Rules;

/// A JSON type, as schemas name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// What a list means to those who merge it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// Each value once.
    Set,
    /// Items known by these keys.
    Map(Vec<String>),
}

/// One node of a structural schema.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "they are the flags of a schema, each on its own")]
pub(crate) struct Schema {
    pub(crate) ty: Option<Type>,
    pub(crate) properties: BTreeMap<String, Schema>,
    pub(crate) additional: Option<Box<Schema>>,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) list_type: ListType,
    /// An object that is replaced as a whole.
    pub(crate) atomic_map: bool,
    pub(crate) preserve_unknown: bool,
    /// Holds `apiVersion`, `kind` and `metadata` although the schema does not list them.
    pub(crate) embedded_resource: bool,
    default: Option<Value>,
    nullable: bool,
    int_or_string: bool,
    required: Vec<String>,
    limits: Limits,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
    rules: Option<Rules>,
}

/// What a value may be, beside its type.
#[derive(Default)]
struct Limits {
    allowed: Vec<Value>,
    format: Option<String>,
    pattern: Option<Regex>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: bool,
    exclusive_maximum: bool,
    multiple_of: Option<f64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    unique_items: bool,
    min_properties: Option<usize>,
    max_properties: Option<usize>,
}

/// A schema that cannot be served, with the place that is wrong in it.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub(crate) struct SchemaError {
    pub(crate) path: String,
    pub(crate) why: String,
}

impl Schema {
    /// Reads `openAPIV3Schema`. `path` names the place in the definition for errors.
    pub(crate) fn parse(raw: &Value, path: &str) -> Result<Self, SchemaError> {
        Self::parse_within(raw, path, &Budget::default())
    }

    /// The same, as one of several schemas of a definition.
    pub(crate) fn parse_within(raw: &Value, path: &str, budget: &Budget) -> Result<Self, SchemaError> {
        let wrong = |why: String| SchemaError { path: path.to_owned(), why: shown(why) };
        let children = |field: &str| -> Result<Vec<Self>, SchemaError> {
            let items = raw.at(field).as_array().into_iter().flatten().enumerate();
            items.map(|(index, item)| Self::parse_within(item, &format!("{path}.{field}[{index}]"), budget)).collect()
        };
        let child = |field: &str| -> Result<Option<Box<Self>>, SchemaError> {
            let found = raw.get(field).filter(|value| value.is_object());
            found.map(|value| Self::parse_within(value, &format!("{path}.{field}"), budget).map(Box::new)).transpose()
        };
        let flag = |field: &str| raw.at(field).as_bool().unwrap_or(false);
        let ty = match raw.at("type").as_str() {
            None | Some("") => None,
            Some(name) => Some(Type::parse(name).ok_or_else(|| wrong(format!("unsupported type \"{name}\"")))?),
        };
        let properties = raw.at("properties").as_object().into_iter().flatten();
        let properties = properties
            .map(|(name, value)| {
                let path = shown(format_args!("{path}.properties[{name}]"));
                Ok((name.clone(), Self::parse_within(value, &path, budget)?))
            })
            .collect::<Result<_, SchemaError>>()?;
        // `additionalProperties: true` means any value, which is a schema that allows everything.
        let additional = match raw.get("additionalProperties") {
            Some(Value::Bool(true)) => Some(Box::new(Self { preserve_unknown: true, ..Self::default() })),
            _ => child("additionalProperties")?,
        };
        Ok(Self {
            ty,
            properties,
            additional,
            items: child("items")?,
            list_type: list_type(raw),
            atomic_map: raw.at("x-kubernetes-map-type") == "atomic",
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            default: raw.get("default").cloned(),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            required: strings(raw.at("required")),
            limits: Limits::parse(raw, budget).map_err(wrong)?,
            all_of: children("allOf")?,
            any_of: children("anyOf")?,
            one_of: children("oneOf")?,
            not: child("not")?,
            rules: Rules::parse(raw, budget).map_err(wrong)?,
        })
    }

    /// Everything that is wrong with `new`; `old` is the object before the change, `earlier` what is wrong already.
    pub(crate) fn check(&self, new: &Value, old: Option<&Value>, earlier: &[Cause]) -> Vec<Cause> {
        let mut found = validate::Findings::default();
        validate::validate(self, new, &Place::Root, &mut found);
        if !found.causes.iter().chain(earlier).any(Cause::blocks_rules) {
            cel::evaluate(self, new, old, &Place::Root, &mut found.causes);
        } else if self.has_rules() {
            found.causes.push(Cause::invalid(
                "<nil>",
                "null",
                "some validation rules were not checked because the object was invalid; \
                 correct the existing errors to complete validation",
            ));
        }
        found.causes
    }

    /// Drops what the schema does not know, and returns the dropped paths: `spec.x`, `spec.items[0].y`.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut dropped = Vec::new();
        prune::prune_root(self, object, &mut dropped);
        dropped
    }

    /// Fills in defaults, and drops nulls that stand where a default belongs.
    pub(crate) fn fill_defaults(&self, object: &mut Value) {
        defaults::apply(self, object);
    }

    /// The schema of `field` within an object of this schema.
    pub(crate) fn field(&self, field: &str) -> Option<&Self> {
        self.properties.get(field).or(self.additional.as_deref())
    }

    fn has_rules(&self) -> bool {
        self.rules.is_some()
            || self.properties.values().any(Self::has_rules)
            || [&self.additional, &self.items].into_iter().flatten().any(|child| child.has_rules())
    }
}

/// What the schemas of one definition may take: a few bytes of a pattern or a rule can stand for megabytes of what is made from it.
pub(crate) struct Budget {
    /// Bytes of compiled patterns.
    patterns: Cell<usize>,
    /// Nodes of schemas that are compiled for rules, each as often as rules are above it.
    nodes: Cell<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { patterns: Cell::new(64 * 1024 * 1024), nodes: Cell::new(250_000) }
    }
}

impl Budget {
    fn pattern(&self, pattern: &str) -> Result<Regex, String> {
        let compile = |size: usize| RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(size).build();
        for size in [4, 16, 64, 256, 1024, 4096].map(|size: usize| size.saturating_mul(1024)) {
            match compile(size) {
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => return Err(format!("pattern: {error}")),
                Ok(regex) => {
                    let left = self.patterns.get().checked_sub(size);
                    self.patterns.set(left.ok_or("pattern: all patterns of the definition together are too large")?);
                    return Ok(regex);
                }
            }
        }
        Err("pattern: it is too large".to_owned())
    }

    fn nodes(&self, count: usize) -> Result<(), String> {
        let left = self.nodes.get().checked_sub(count);
        self.nodes.set(left.ok_or("x-kubernetes-validations: too many rules are above too many fields")?);
        Ok(())
    }
}

impl Type {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

impl Limits {
    fn parse(raw: &Value, budget: &Budget) -> Result<Self, String> {
        let count = |field: &str| raw.at(field).as_u64().and_then(|count| usize::try_from(count).ok());
        let pattern = raw.at("pattern").as_str().filter(|pattern| !pattern.is_empty());
        Ok(Self {
            allowed: raw.at("enum").as_array().cloned().unwrap_or_default(),
            format: raw.at("format").as_str().map(str::to_owned),
            pattern: pattern.map(|pattern| budget.pattern(pattern)).transpose()?,
            minimum: raw.at("minimum").as_f64(),
            maximum: raw.at("maximum").as_f64(),
            exclusive_minimum: raw.at("exclusiveMinimum").as_bool().unwrap_or(false),
            exclusive_maximum: raw.at("exclusiveMaximum").as_bool().unwrap_or(false),
            multiple_of: raw.at("multipleOf").as_f64(),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: raw.at("uniqueItems").as_bool().unwrap_or(false),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
        })
    }
}

fn list_type(raw: &Value) -> ListType {
    match raw.at("x-kubernetes-list-type").as_str() {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(strings(raw.at("x-kubernetes-list-map-keys"))),
        _ => ListType::Atomic,
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What identifies an item of a map-type list: its values under the keys.
pub(crate) fn list_key<'a>(item: &'a Value, keys: &[String]) -> Vec<&'a Value> {
    keys.iter().map(|key| item.at(key.as_str())).collect()
}
