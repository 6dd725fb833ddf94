//! Where two documents differ.

use std::fmt;

use serde_json::Value;

/// One place at which the sides say something else. `None` is a missing value.
pub(crate) struct Difference {
    /// `body.spec.ports[0].name`
    pub(crate) path: String,
    embedded: Option<Value>,
    real: Option<Value>,
}

pub(crate) fn differences(embedded: &Value, real: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(String::new(), Some(embedded), Some(real), &mut found);
    found
}

fn walk(path: String, embedded: Option<&Value>, real: Option<&Value>, found: &mut Vec<Difference>) {
    match (embedded, real) {
        (embedded, real) if embedded == real => {}
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let only_right = right.keys().filter(|key| !left.contains_key(*key));
            for key in left.keys().chain(only_right) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(path, left.get(key), right.get(key), found);
            }
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            for index in 0..left.len().max(right.len()) {
                walk(format!("{path}[{index}]"), left.get(index), right.get(index), found);
            }
        }
        (embedded, real) => found.push(Difference { path, embedded: embedded.cloned(), real: real.cloned() }),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| match value {
            None => "(nothing)".to_owned(),
            Some(Value::String(text)) if text.contains('\n') => format!("\n{text}"),
            Some(value) => value.to_string(),
        };
        let (embedded, real) = (shown(&self.embedded), shown(&self.real));
        writeln!(f, "  {}\n    kube-apiserver: {real}\n    embedded:       {embedded}", self.path)
    }
}
