//! One version of one object.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::Key;
use crate::meta;
use crate::meta::At;

/// One version of one object, as JSON: a tree of values takes many times as much memory, and most readers want the text.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) key: Key,
    pub(crate) version: u64,
    pub(crate) json: Bytes,
    pub(crate) uid: Box<str>,
    /// Whether its deletion has begun.
    pub(crate) is_ending: bool,
    /// The UIDs of its owners.
    pub(crate) owners: Box<[Box<str>]>,
}

impl Stored {
    pub(crate) fn new(key: Key, version: u64, value: &Value) -> Self {
        let mut json = serde_json::to_vec(value).unwrap_or_default();
        json.shrink_to_fit();
        let owners = meta::owner_references(value).filter_map(|owner| owner.at("uid").as_str());
        Self {
            key,
            version,
            uid: meta::text(value, "uid").into(),
            is_ending: meta::is_ending(value),
            owners: owners.map(Box::from).collect(),
            json: json.into(),
        }
    }

    /// The object as text.
    pub(super) fn text(&self) -> &str {
        // It was written here.
        std::str::from_utf8(&self.json).unwrap_or_default()
    }

    /// The object as a tree, made anew for each caller.
    pub(crate) fn value(&self) -> Value {
        parse(&self.json).unwrap_or_default()
    }
}

/// Reads what this server wrote. It may be deeper than what clients may send: `managedFields` repeats an object's own depth.
pub(super) fn parse(json: &[u8]) -> serde_json::Result<Value> {
    let mut from = serde_json::Deserializer::from_slice(json);
    from.disable_recursion_limit();
    let value = Value::deserialize(&mut from)?;
    from.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn comes_back(value: &Value) {
        assert_eq!(Stored::new(Key::new("", "x"), 1, value).value(), *value);
    }

    #[test]
    fn an_object_comes_back_as_it_was_stored() {
        comes_back(
            &json!({"a": [1, -1, u64::MAX, 0.1, 1e300, 5e-324, 0.300_000_000_000_000_04, null, true, "\u{0}\n\u{1F600}"]}),
        );
        // Fields keep their order.
        let text = r#"{"z":1,"a":{"y":2,"b":3}}"#;
        assert_eq!(Stored::new(Key::new("", "x"), 1, &parse(text.as_bytes()).unwrap()).json, text);
    }

    /// A client may send 127 levels; with what is booked of them it is some more.
    #[test]
    fn an_object_may_be_deeper_than_clients_may_send() {
        let deep = (0..140).fold(json!("bottom"), |inner, _| json!({"f": inner}));
        comes_back(&deep);
    }
}
