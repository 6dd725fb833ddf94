//! CEL rules that recur.

use kube::core::Rule;

/// `field` of this object never changes. Written at the parent, because a transition rule on an optional field
/// itself is not evaluated where the field is added or removed.
pub(crate) fn immutable(field: &str) -> Rule {
    Rule::new(format!(
        "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    ))
    .message(format!("{field} is immutable: delete the object and apply it again").as_str())
    .field_path(format!(".{field}"))
}
