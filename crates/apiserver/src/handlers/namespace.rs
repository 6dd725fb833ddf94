//! The end of a namespace: first nothing new, then nothing left, then the namespace itself.

use serde_json::json;

use super::Call;
use super::delete::{self, Policy};
use crate::app::App;
use crate::builtin::{Builtin, NAMESPACES};
use crate::meta;
use crate::status::Subject;
use crate::storage::Key;

pub(super) const SUBJECT: Subject<'static> = Subject { group: "", plural: NAMESPACES, kind: "Namespace" };

/// Whether the call is about namespaces, which end only when they are empty.
pub(super) fn is_one(call: &Call) -> bool {
    call.resource.builtin() == Some(Builtin::Namespace)
}

/// Deletes everything in an ending namespace; what has finalizers stays until they are gone.
pub(super) fn empty(app: &App, namespace: &str) {
    for table in app.store.tables_with_objects_in(namespace) {
        for object in app.store.list(&table, Some(namespace)).objects {
            delete::end(app, &table, &object.key, Policy::Background);
        }
    }
    remove_if_empty(app, namespace);
}

/// Removes the namespace if it is ending and holds nothing.
pub(super) fn remove_if_empty(app: &App, namespace: &str) {
    let key = Key::new("", namespace);
    let Some(found) = app.store.get(NAMESPACES, &key) else { return };
    let mut last = found.value();
    let free = meta::finalizers(&last).next().is_none();
    if !found.is_ending || !free || !app.store.tables_with_objects_in(namespace).is_empty() {
        return;
    }
    meta::put(&mut last, "spec", json!({}));
    // Lost to another writer: that writer looks again after its own change.
    let _ = app.store.remove(&NAMESPACES.into(), &found, &mut last);
}
