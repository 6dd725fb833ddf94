//! JSON patch, RFC 6902, as Kubernetes' library reads it: a `test` for null holds where nothing is.

use serde_json::Value;

use crate::body::LIMIT;
use crate::meta;
use crate::meta::At;
use crate::place::{DEPTH, is_deeper};
use crate::status::ApiError;

/// One operation, with its paths taken apart.
#[derive(Debug)]
pub(crate) enum Operation {
    Add(Pointer, Value),
    Remove(Pointer),
    Replace(Pointer, Value),
    Move { from: Pointer, to: Pointer },
    Copy { from: Pointer, to: Pointer },
    Test(Pointer, Value),
}

/// `/a/b~1c`, taken apart.
#[derive(Debug)]
pub(crate) struct Pointer {
    text: String,
    parts: Vec<String>,
}

/// Why a patch could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatchError {
    #[error("testing value {0} failed")]
    Test(String),
    #[error("{operation} operation does not apply: doc is missing path: {path}")]
    Missing { operation: &'static str, path: String },
    #[error("Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {LIMIT}")]
    Copies(usize),
    #[error("the result would have more than {DEPTH} levels of objects and lists")]
    TooDeep,
    #[error(
        "the operations move more than {SHIFTS} fields and items out of the way; put them at the end, or replace all"
    )]
    TooCostly,
}

/// How many neighbours all operations together may move: one at the beginning of a list moves all of its items.
const SHIFTS: usize = 50_000_000;

impl PatchError {
    pub(crate) fn into_api(self) -> ApiError {
        if !matches!(self, Self::Test(_) | Self::Missing { .. }) {
            return ApiError::new(413, "RequestEntityTooLarge", format!("Request entity too large: {self}"));
        }
        let message = format!("the server rejected our request due to an error in our request: {self}");
        ApiError { details: Some(Box::default()), ..ApiError::new(422, "Invalid", message) }
    }
}

pub(crate) fn parse(patch: &Value) -> Result<Vec<Operation>, ApiError> {
    let wrong =
        || ApiError::bad_request("the body of the request is not a JSON patch: a list of operations is expected");
    let items = patch.as_array().ok_or_else(wrong)?;
    // As many as Kubernetes takes: more would be a way to keep the server busy.
    if items.len() > 10_000 {
        return Err(ApiError::too_large(10_000));
    }
    let operation = |item: &Value| {
        let refused = || {
            let message =
                format!("the server rejected our request due to an error in our request: no operation: {item}");
            ApiError { details: Some(Box::default()), ..ApiError::new(422, "Invalid", message) }
        };
        Operation::parse(item).ok_or_else(refused)
    };
    items.iter().map(operation).collect()
}

impl Operation {
    fn parse(item: &Value) -> Option<Self> {
        let path = Pointer::parse(item.at("path").as_str()?)?;
        let from = || Pointer::parse(item.at("from").as_str()?);
        let value = || item.at("value").clone();
        Some(match item.at("op").as_str()? {
            "add" => Self::Add(path, value()),
            "remove" => Self::Remove(path),
            "replace" => Self::Replace(path, value()),
            "move" => Self::Move { from: from()?, to: path },
            "copy" => Self::Copy { from: from()?, to: path },
            "test" => Self::Test(path, value()),
            _ => return None,
        })
    }
}

impl Pointer {
    fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && !text.starts_with('/') {
            return None;
        }
        let parts = text.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
        Some(Self { text: text.to_owned(), parts })
    }

    fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        Self::follow(&self.parts, document)
    }

    fn follow<'a>(parts: &[String], document: &'a Value) -> Option<&'a Value> {
        parts.iter().try_fold(document, |value, part| match value {
            Value::Object(fields) => fields.get(part),
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// The container that the last part is in, and that part. `None` for the whole document or a missing path.
    fn parent<'a, 'b>(&'b self, document: &'a mut Value) -> Option<(&'a mut Value, &'b str)> {
        let (last, parents) = self.parts.split_last()?;
        let parent = parents.iter().try_fold(document, |value, part| match value {
            Value::Object(fields) => fields.get_mut(part),
            Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?),
            _ => None,
        })?;
        Some((parent, last))
    }

    /// How many fields or items move when one is taken out at the place, or put there.
    fn behind(&self, document: &Value, taken: bool) -> usize {
        let Some((last, parents)) = self.parts.split_last() else { return 0 };
        match Self::follow(parents, document) {
            Some(Value::Array(items)) => items.len().saturating_sub(last.parse().unwrap_or(usize::MAX)),
            Some(Value::Object(fields)) if taken => fields.len(),
            _ => 0,
        }
    }

    fn insert(&self, document: &mut Value, value: Value) -> Option<()> {
        if self.parts.is_empty() {
            *document = value;
            return Some(());
        }
        match self.parent(document)? {
            (Value::Object(fields), name) => drop(fields.insert(name.to_owned(), value)),
            (Value::Array(items), "-") => items.push(value),
            (Value::Array(items), index) => {
                let index = index.parse().ok().filter(|index| *index <= items.len())?;
                items.insert(index, value);
            }
            _ => return None,
        }
        Some(())
    }

    fn take(&self, document: &mut Value) -> Option<Value> {
        match self.parent(document)? {
            (Value::Object(fields), name) => fields.shift_remove(name),
            (Value::Array(items), index) => {
                let index = index.parse().ok().filter(|index| *index < items.len())?;
                Some(items.remove(index))
            }
            _ => None,
        }
    }
}

/// The document after all operations, or none of them.
pub(crate) fn apply(document: &Value, operations: &[Operation]) -> Result<Value, PatchError> {
    let mut result = document.clone();
    let mut costs = Costs::default();
    for operation in operations {
        costs.add(operation, &result)?;
        step(&mut result, operation)?;
    }
    Ok(result)
}

/// What the operations cost so far.
#[derive(Default)]
struct Costs {
    /// Bytes of JSON.
    copied: usize,
    shifted: usize,
}

impl Costs {
    /// Refuses the next operation if it would cost too much.
    fn add(&mut self, operation: &Operation, document: &Value) -> Result<(), PatchError> {
        let (out, into) = match operation {
            Operation::Add(path, _) | Operation::Replace(path, _) => (None, Some(path)),
            Operation::Remove(path) => (Some(path), None),
            Operation::Move { from, to } => (Some(from), Some(to)),
            Operation::Copy { from, to } => {
                // A few copies of copies would fill the memory.
                self.copied = self.copied.saturating_add(from.find(document).map_or(0, meta::json_size));
                if self.copied > LIMIT {
                    return Err(PatchError::Copies(self.copied));
                }
                (None, Some(to))
            }
            Operation::Test(..) => (None, None),
        };
        // No further down than a parser lets anybody go, so that no walk over a document needs much of the stack.
        let moved = match operation {
            Operation::Add(_, value) | Operation::Replace(_, value) => Some(value),
            Operation::Move { from, .. } => {
                let found = from.find(document);
                self.shifted = self.shifted.saturating_add(found.map_or(0, meta::json_size));
                found
            }
            Operation::Copy { from, .. } => from.find(document),
            _ => None,
        };
        if let (Some(moved), Some(into)) = (moved, into)
            && DEPTH.checked_sub(into.parts.len()).is_none_or(|left| is_deeper(moved, left))
        {
            return Err(PatchError::TooDeep);
        }
        let taken = out.map_or(0, |path| path.behind(document, true));
        let put = into.map_or(0, |path| path.behind(document, false));
        self.shifted = self.shifted.saturating_add(taken).saturating_add(put);
        if self.shifted > SHIFTS { Err(PatchError::TooCostly) } else { Ok(()) }
    }
}

fn step(document: &mut Value, operation: &Operation) -> Result<(), PatchError> {
    let missing = |operation, pointer: &Pointer| PatchError::Missing { operation, path: pointer.text.clone() };
    match operation {
        Operation::Add(path, value) => path.insert(document, value.clone()).ok_or_else(|| missing("add", path)),
        Operation::Remove(path) => path.take(document).map(drop).ok_or_else(|| missing("remove", path)),
        Operation::Replace(path, value) => {
            // What is not there is added, as the library of Kubernetes does: only where it would be must be there.
            if let Some((Value::Array(items), index)) = path.parent(document)
                && let Some(slot) = index.parse::<usize>().ok().and_then(|index| items.get_mut(index))
            {
                *slot = value.clone();
                return Ok(());
            }
            path.insert(document, value.clone()).ok_or_else(|| missing("replace", path))
        }
        Operation::Move { from, to } => {
            let value = from.take(document).ok_or_else(|| missing("move", from))?;
            to.insert(document, value).ok_or_else(|| missing("move", to))
        }
        Operation::Copy { from, to } => {
            let value = from.find(document).cloned().ok_or_else(|| missing("copy", from))?;
            to.insert(document, value).ok_or_else(|| missing("copy", to))
        }
        Operation::Test(path, expected) => {
            let found = path.find(document).unwrap_or(&Value::Null);
            if same(found, expected) { Ok(()) } else { Err(PatchError::Test(path.text.clone())) }
        }
    }
}

/// Equal as JSON: `1` is `1.0`.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || ((left.is_f64() || right.is_f64()) && left.as_f64() == right.as_f64())
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| same(value, other)))
        }
        (left, right) => left == right,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "reads better where it is called")]
    fn patched(document: Value, patch: Value) -> Result<Value, PatchError> {
        apply(&document, &parse(&patch).unwrap())
    }

    #[test]
    fn a_test_for_null_holds_where_nothing_is() {
        let patch = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["f"]},
        ]);
        let result = patched(json!({"metadata": {}}), patch).unwrap();
        assert_eq!(result["metadata"]["finalizers"], json!(["f"]));
    }

    #[test]
    fn every_operation_does_what_the_rfc_says() {
        let cases = [
            (json!({"a": [1, 3]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), json!({"a": [1, 2, 3]})),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]})),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/0"}]), json!({"a": [2]})),
            (json!({"a": [1, 2]}), json!([{"op": "replace", "path": "/a/0", "value": 9}]), json!({"a": [9, 2]})),
            (json!({"a/b": 1}), json!([{"op": "move", "from": "/a~1b", "path": "/c"}]), json!({"c": 1})),
            (json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/c"}]), json!({"a": 1, "c": 1})),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1.0}]), json!({"a": 1})),
        ];
        for (document, patch, expected) in cases {
            assert_eq!(patched(document, patch.clone()).unwrap(), expected, "{patch}");
        }
    }

    #[test]
    fn a_patch_that_does_not_apply_is_refused_with_the_path() {
        assert!(patched(json!({}), json!([{"op": "remove", "path": "/x"}])).unwrap_err().to_string().contains("/x"));
        assert!(matches!(
            patched(json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}])),
            Err(PatchError::Test(_))
        ));
        assert_eq!(parse(&json!({"a": 1})).unwrap_err().code, 400);
    }
}
