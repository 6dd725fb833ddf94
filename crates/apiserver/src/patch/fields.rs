//! Sets of fields, as `FieldsV1` writes them: which parts of an object a manager has a say in.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::meta::At;
use crate::place::shown;
use crate::schema::{ListType, Schema};
use crate::status::MOST;

/// A part of an object: a field, an item known by keys, or a value of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Element {
    Field(String),
    /// The keys with their values, as JSON.
    Item(String),
    /// The value, as JSON.
    Value(String),
}

/// A set of fields, as a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// Whether this very place is in the set, beside what is below it.
    own: bool,
    children: BTreeMap<Element, FieldSet>,
}

impl Element {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        Some(match kind {
            "f" => Self::Field(rest.to_owned()),
            "k" => Self::Item(rest.to_owned()),
            "v" => Self::Value(rest.to_owned()),
            _ => return None,
        })
    }

    fn text(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Item(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
        }
    }

    /// As conflicts are printed: `.spec`, `[name="a"]`.
    fn shown(&self) -> String {
        match self {
            Self::Field(name) => format!(".{name}"),
            Self::Value(value) => format!("[={value}]"),
            Self::Item(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<_> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("[{}]", keys.join(","))
            }
        }
    }
}

/// The parts of a value, each with its schema and whether it is owned beside its own parts. `None` for a value that is
/// owned as a whole.
pub(crate) fn parts<'a>(
    value: &'a Value,
    schema: Option<&'a Schema>,
) -> Option<Vec<(Element, &'a Value, Option<&'a Schema>)>> {
    match value {
        Value::Object(fields) if !fields.is_empty() && !schema.is_some_and(|schema| schema.atomic_map) => {
            let part = |(name, value): (&String, &'a Value)| {
                (Element::Field(name.clone()), value, schema.and_then(|schema| schema.field(name)))
            };
            Some(fields.iter().map(part).collect())
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(|item| element_of(item, schema).map(|(element, child)| (element, item, child))).collect()
        }
        _ => None,
    }
}

/// What an item is known by in a list with this schema, and its own schema. `None` in a list that is owned as a whole.
pub(super) fn element_of<'a>(item: &Value, list: Option<&'a Schema>) -> Option<(Element, Option<&'a Schema>)> {
    let list = list?;
    let element = match &list.list_type {
        ListType::Atomic => return None,
        ListType::Set => Element::Value(item.to_string()),
        ListType::Map(keys) => {
            let keys: Value = keys.iter().map(|key| (key.clone(), item.at(key.as_str()).clone())).collect();
            Element::Item(keys.to_string())
        }
    };
    Some((element, list.items.as_deref()))
}

/// A map or a list without anything in it.
fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

impl FieldSet {
    /// Everything that the value says.
    pub(crate) fn of(value: &Value, schema: Option<&Schema>) -> Self {
        let Some(parts) = parts(value, schema) else { return Self { own: true, ..Self::default() } };
        let mut set = Self::default();
        for (element, value, schema) in parts {
            let child = Self::of_part(&element, value, schema);
            set.children.insert(element, child);
        }
        set
    }

    /// An item of a list is in the set beside what it says; a field only if it says nothing below itself.
    fn of_part(element: &Element, value: &Value, schema: Option<&Schema>) -> Self {
        let mut set = Self::of(value, schema);
        set.own |= !matches!(element, Element::Field(_));
        set
    }

    /// What is new or other in `new`. A map or a list that is new as a whole is in the set beside its parts.
    pub(crate) fn changed(old: &Value, new: &Value, schema: Option<&Schema>) -> Self {
        if old == new {
            return Self::default();
        }
        let Some(news) = parts(new, schema) else { return Self::of(new, schema) };
        let olds = match parts(old, schema) {
            Some(olds) => olds,
            None if is_empty(old) => Vec::new(),
            None => return Self::of_new(new, schema),
        };
        // The first of several that are known by the same.
        let olds: BTreeMap<_, _> = olds.into_iter().rev().map(|(element, value, _)| (element, value)).collect();
        let mut set = Self::default();
        for (element, value, schema) in news {
            let child = match olds.get(&element) {
                Some(before) => Self::changed(before, value, schema),
                None => Self::of_new(value, schema),
            };
            set.insert(element, child);
        }
        set
    }

    /// Everything that the value says, and the places themselves.
    fn of_new(value: &Value, schema: Option<&Schema>) -> Self {
        let parts = parts(value, schema).unwrap_or_default();
        let part =
            |(element, value, schema): (Element, &Value, Option<&Schema>)| (element, Self::of_new(value, schema));
        Self { own: true, children: parts.into_iter().map(part).collect() }
    }

    fn insert(&mut self, element: Element, child: Self) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    pub(crate) fn parse(fields: &Value) -> Self {
        let mut set = Self::default();
        let fields = fields.as_object();
        set.own = fields.is_none_or(|fields| fields.is_empty() || fields.contains_key("."));
        for (name, value) in fields.into_iter().flatten() {
            if let Some(element) = Element::parse(name) {
                set.children.insert(element, Self::parse(value));
            }
        }
        set
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut fields = Map::new();
        if self.own && !self.children.is_empty() {
            fields.insert(".".to_owned(), json!({}));
        }
        fields.extend(self.children.iter().map(|(element, child)| (element.text(), child.to_json())));
        Value::Object(fields)
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.own && self.children.is_empty()
    }

    pub(crate) fn child(&self, element: &Element) -> Option<&Self> {
        self.children.get(element)
    }

    pub(crate) fn owns_itself(&self) -> bool {
        self.own
    }

    /// Leaves out this very place, not what is below it.
    pub(crate) fn disown(&mut self) {
        self.own = false;
    }

    pub(crate) fn remove_field(&mut self, name: &str) {
        self.children.remove(&Element::Field(name.to_owned()));
    }

    /// Only what is below the field.
    pub(crate) fn keep_field(&mut self, name: &str) {
        self.children.retain(|element, _| *element == Element::Field(name.to_owned()));
    }

    pub(crate) fn field_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.children.get_mut(&Element::Field(name.to_owned()))
    }

    pub(crate) fn union(&mut self, other: &Self) {
        self.own |= other.own;
        for (element, child) in &other.children {
            self.children.entry(element.clone()).or_default().union(child);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.own &= !other.own;
        // In the time of the smaller one: many managers may hold a little each.
        if self.children.len() < other.children.len() {
            self.children.retain(|element, mine| {
                let Some(theirs) = other.children.get(element) else { return true };
                mine.subtract(theirs);
                !mine.is_empty()
            });
            return;
        }
        for (element, child) in &other.children {
            if let Some(mine) = self.children.get_mut(element) {
                mine.subtract(child);
                if mine.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// What is in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { own: self.own && other.own, ..Self::default() };
        for (element, child) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                both.insert(element.clone(), child.intersection(theirs));
            }
        }
        both
    }

    /// Only what `value` still has.
    pub(crate) fn retain_existing(&mut self, value: &Value, schema: Option<&Schema>) {
        let has_items = self.children.keys().any(|element| !matches!(element, Element::Field(_)));
        let items = value.as_array().filter(|_| has_items).and_then(|_| parts(value, schema)).unwrap_or_default();
        let items: BTreeMap<_, _> =
            items.into_iter().rev().map(|(element, value, schema)| (element, (value, schema))).collect();
        let fields = value.as_object().filter(|_| !schema.is_some_and(|schema| schema.atomic_map));
        self.children.retain(|element, child| {
            let found = match element {
                Element::Field(name) => fields
                    .and_then(|fields| fields.get(name))
                    .map(|value| (value, schema.and_then(|schema| schema.field(name)))),
                element => items.get(element).copied(),
            };
            let Some((value, schema)) = found else { return false };
            child.retain_existing(value, schema);
            !child.is_empty()
        });
    }

    /// Whether any place is in the set but this one.
    pub(crate) fn has_places(&self) -> bool {
        self.children.values().any(|child| child.own || child.has_places())
    }

    /// Whether every place in the set is in the other one, too.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let mut rest = self.clone();
        rest.subtract(other);
        !rest.has_places()
    }

    /// The first places in the set, as conflicts are printed: `.spec.replicas`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, at: &str, found: &mut Vec<String>) {
        let shown = |element: &Element| shown(format_args!("{at}{}", element.shown()));
        // What is owned here first, then what is owned below.
        for (element, _) in self.children.iter().filter(|(_, child)| child.own) {
            if found.len() >= MOST {
                return;
            }
            found.push(shown(element));
        }
        for (element, child) in self.children.iter().filter(|(_, child)| child.has_places()) {
            if found.len() >= MOST {
                return;
            }
            child.collect(&shown(element), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let raw = json!({"type": "object", "properties": {"list": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object"}}, "args": {"type": "array"}}});
        Schema::parse(&raw, "").unwrap()
    }

    #[test]
    fn a_set_is_written_as_kubernetes_writes_it_and_read_back() {
        let schema = schema();
        let set = FieldSet::of(&json!({"a": 1, "args": [1], "list": [{"name": "x", "v": 2}]}), Some(&schema));
        let written = set.to_json();
        assert_eq!(
            written,
            json!({"f:a": {}, "f:args": {}, "f:list": {"k:{\"name\":\"x\"}": {".": {}, "f:name": {}, "f:v": {}}}})
        );
        assert_eq!(FieldSet::parse(&written), set);
        assert_eq!(set.paths(), [".a", ".args", ".list[name=\"x\"]", ".list[name=\"x\"].name", ".list[name=\"x\"].v"]);
    }

    #[test]
    fn only_what_changed_is_in_the_set_of_changes() {
        let schema = schema();
        let old = json!({"a": 1, "b": 1, "list": [{"name": "x", "v": 1}]});
        let new = json!({"a": 2, "b": 1, "list": [{"name": "x", "v": 2}, {"name": "y"}]});
        assert_eq!(
            FieldSet::changed(&old, &new, Some(&schema)).paths(),
            [".a", ".list[name=\"y\"]", ".list[name=\"x\"].v", ".list[name=\"y\"].name"]
        );
        let added = FieldSet::changed(&json!({}), &json!({"map": {"x": 1}}), Some(&schema));
        assert_eq!(added.to_json(), json!({"f:map": {".": {}, "f:x": {}}}));
    }
}
