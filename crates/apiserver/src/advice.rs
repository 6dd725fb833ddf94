//! Warnings about objects. This server only knows whether an object is well-formed; the program that embeds it knows which
//! values are probably mistakes.

use std::fmt;

use serde_json::Value;

use crate::handlers::{Call, Subresource};

/// The source of warnings for a resource, asked at each create, update, patch and dry run. A warning refuses nothing.
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
