//! Fields that a JSON document has twice, which parsers pass over in silence.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::place::Place;
use crate::status::MOST;

/// The paths of the first fields that come a second time in their object, in their order. Empty for what is no JSON.
pub(crate) fn find(json: &[u8]) -> Vec<String> {
    let found = RefCell::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let _ = Look { at: Place::Root, found: &found }.deserialize(&mut deserializer);
    found.into_inner()
}

/// Looks through one value.
struct Look<'a> {
    at: Place<'a>,
    found: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let at = self.at.field(&name);
            if seen.contains(&name) && self.found.borrow().len() < MOST {
                self.found.borrow_mut().push(at.to_string());
            }
            map.next_value_seed(Look { at, found: self.found })?;
            seen.insert(name);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let at = self.at.item(index);
            if items.next_element_seed(Look { at, found: self.found })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_comes_twice_is_found_at_every_depth() {
        let json = br#"{"a": 1, "b": {"x": [{"y": 1, "y": 2}]}, "a": {"c": null, "c": null}, "d": "a"}"#;
        assert_eq!(find(json), ["b.x[0].y", "a", "a.c"]);
        assert!(find(b"{\"a\": 1, ").is_empty());
    }
}
