//! Places in a document, such as `spec.items[0].name`.

use std::fmt::{self, Write};

use serde_json::Value;

/// A place, as a chain that leads back to the root. It costs nothing until somebody writes it: a walk over a document that wrote
/// the path of every field would take the square of the time where a long name has many fields below it.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    Root,
    /// `.name`
    Field(&'a Place<'a>, &'a str),
    /// `[name]`, an entry of a map
    Entry(&'a Place<'a>, &'a str),
    /// `[0]`
    Item(&'a Place<'a>, usize),
}

impl<'a> Place<'a> {
    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        Self::Field(self, name)
    }

    pub(crate) fn item(&'a self, index: usize) -> Self {
        Self::Item(self, index)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => write!(f, "{}", short(name)),
            Self::Field(parent, name) => write!(f, "{parent}.{}", short(name)),
            Self::Entry(parent, name) => write!(f, "{parent}[{}]", short(name)),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A name within a path. No name that Kubernetes knows is longer.
const NAME: usize = 512;
/// A value within a message.
const VALUE: usize = 4096;

fn short(name: &str) -> String {
    shown_up_to(NAME, name)
}

/// A client's value as a message repeats it: its beginning, where it is long.
pub(crate) fn shown(value: impl fmt::Display) -> String {
    shown_up_to(VALUE, value)
}

fn shown_up_to(limit: usize, value: impl fmt::Display) -> String {
    let mut text = Limited { text: String::new(), limit };
    if write!(text, "{value}").is_err() {
        text.text.push('…');
    }
    text.text
}

/// Text that takes no more than so many bytes.
struct Limited {
    text: String,
    limit: usize,
}

impl Write for Limited {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.limit.saturating_sub(self.text.len());
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        let end = (0..=room).rev().find(|&end| more.is_char_boundary(end)).unwrap_or_default();
        self.text.push_str(more.get(..end).unwrap_or_default());
        Err(fmt::Error)
    }
}

/// As deep as an object may be: as deep as a parser of JSON goes.
pub(crate) const DEPTH: usize = 128;

/// Whether an object is deeper than [`DEPTH`]. What is booked in `managedFields` repeats its depth and does not count.
pub(crate) fn is_too_deep(object: &Value) -> bool {
    let Value::Object(fields) = object else { return is_deeper(object, DEPTH) };
    fields.iter().any(|(name, value)| match value {
        Value::Object(metadata) if name == "metadata" => {
            metadata.iter().any(|(name, value)| name != "managedFields" && is_deeper(value, DEPTH.saturating_sub(2)))
        }
        value => is_deeper(value, DEPTH.saturating_sub(1)),
    })
}

/// Whether the value has more than `levels` levels of objects and lists. Looks no deeper.
pub(crate) fn is_deeper(value: &Value, levels: usize) -> bool {
    let mut inner = match value {
        Value::Array(items) => Either::Items(items.iter()),
        Value::Object(fields) => Either::Fields(fields.values()),
        _ => return false,
    };
    let Some(left) = levels.checked_sub(1) else { return true };
    inner.any(|value| is_deeper(value, left))
}

enum Either<'a> {
    Items(std::slice::Iter<'a, Value>),
    Fields(serde_json::map::Values<'a>),
}

impl<'a> Iterator for Either<'a> {
    type Item = &'a Value;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Items(items) => items.next(),
            Self::Fields(fields) => fields.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_is_written_as_kubernetes_writes_it() {
        let (spec, root) = (Place::Field(&Place::Root, "spec"), Place::Root);
        assert_eq!(root.to_string(), "");
        assert_eq!(spec.field("items").item(0).field("y").to_string(), "spec.items[0].y");
        assert_eq!(Place::Entry(&spec, "k").to_string(), "spec[k]");
    }

    #[test]
    fn what_a_message_repeats_of_a_long_value_is_its_beginning() {
        assert_eq!(shown("ä".repeat(5)), "äääää");
        let long = shown("ä".repeat(1_000_000));
        assert!(long.len() <= VALUE + '…'.len_utf8() && long.ends_with("ä…"), "{}", long.len());
        let name = "n".repeat(1_000_000);
        assert!(Place::Root.field(&name).to_string().len() < 1000);
    }

    #[test]
    fn an_object_may_be_as_deep_as_a_parser_goes_beside_what_is_booked_of_it() {
        let deep = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"f": inner}));
        let object =
            |spec: usize, booked: usize| json!({"spec": deep(spec), "metadata": {"managedFields": [deep(booked)]}});
        assert!(!is_too_deep(&object(DEPTH - 1, DEPTH + 10)));
        assert!(is_too_deep(&object(DEPTH, 1)));
    }

    #[test]
    fn a_depth_is_told_exactly_and_of_any_value() {
        assert!(!is_deeper(&json!(1), 0) && is_deeper(&json!([]), 0));
        assert!(!is_deeper(&json!({"a": [1]}), 2) && is_deeper(&json!({"a": [1]}), 1));
    }
}
