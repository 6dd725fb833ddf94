//! What is said of objects that this server knows nothing of but that they are well-formed: whoever runs it knows what is
//! hardly meant.

use std::fmt;

use serde_json::Value;

use crate::handlers::{Call, Subresource};

/// Warnings for whoever creates or changes an object of a resource, in whole or in a dry run. Nothing is refused for them.
#[derive(Clone, Copy)]
pub struct Advice {
    /// The group of the resource.
    pub group: &'static str,
    /// Its plural name.
    pub plural: &'static str,
    /// What there is to say of an object, a sentence each.
    pub warnings: fn(&Value) -> Vec<String>,
}

impl fmt::Debug for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.plural, self.group)
    }
}

impl Call {
    /// What there is to say of `object`, which is about to be stored.
    pub(crate) fn advice(&self, object: &Value) -> Vec<String> {
        if self.subresource != Subresource::Object {
            return Vec::new();
        }
        let of_it = |advice: &&Advice| advice.group == self.resource.group && advice.plural == self.resource.plural;
        self.app.advice.iter().filter(of_it).flat_map(|advice| (advice.warnings)(object)).collect()
    }
}
