//! PUT, and the one way in which an existing object changes.

use axum::body::Body;
use http::Response;
use serde_json::Value;

use super::{Answer, Call, delete, namespace};
use crate::lifecycle::{self, Admitted, Change};
use crate::meta::At;
use crate::patch::managers::book_apply;
use crate::status::{ApiError, Cause, Subject};
use crate::storage::Stored;
use crate::{body, meta};

/// How often a change that depends on nothing the client read is tried again when another writer was faster.
const ATTEMPTS: usize = 50;
/// As many entries of `managedFields` as a client may write: every later write looks at each of them.
const MANAGERS: usize = 1000;

pub(super) fn update(call: &Call, raw: &[u8]) -> Result<Response<Body>, ApiError> {
    let object = body::object(&call.headers, raw)?;
    let answer = change(call, |current| {
        check_precondition(call, &object, current)?;
        Ok(object.clone())
    })?;
    call.reply(answer)
}

/// Whether the new state was made from the current one. Custom resources are not replaced blindly.
fn check_precondition(call: &Call, new: &Value, current: &Value) -> Result<(), ApiError> {
    let (subject, name) = (call.resource.subject(), meta::name(current));
    if meta::name(new) != name {
        // Refused for that, later.
        return Ok(());
    }
    let (uid, is) = (meta::text(new, "uid"), meta::text(current, "uid"));
    if !uid.is_empty() && uid != is {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {is}");
        return Err(ApiError::conflict(subject, name, &why));
    }
    if call.resource.is_custom() && meta::text(new, "resourceVersion").is_empty() {
        let cause = Cause::invalid("metadata.resourceVersion", 0, "must be specified for an update");
        let subject = Subject { kind: subject.plural, ..subject };
        return Err(ApiError::invalid(subject, name, vec![cause]));
    }
    Ok(())
}

/// A new state, and who gets its fields: the one who applied it, or the one who changed it.
pub(super) struct Next {
    pub(super) object: Value,
    /// The `managedFields` that came of an apply.
    pub(super) applied: Option<Vec<Value>>,
}

/// [`replace`] by a write that is not an apply.
pub(super) fn change(call: &Call, compute: impl Fn(&Value) -> Result<Value, ApiError>) -> Result<Answer, ApiError> {
    replace(call, |current| Ok(Next { object: compute(current)?, applied: None }))
}

/// Reads, computes, and stores if nobody else has stored meanwhile; otherwise again. `compute` sees the object as this
/// resource shows it.
pub(super) fn replace(call: &Call, compute: impl Fn(&Value) -> Result<Next, ApiError>) -> Result<Answer, ApiError> {
    for _ in 0..ATTEMPTS {
        let read = call.find()?;
        let old = read.value();
        let next = compute(&call.present(old.clone()))?;
        let given = next.object.at("metadata").at("managedFields").as_array().filter(|given| !given.is_empty());
        if given.is_some_and(|given| given.len() > MANAGERS) {
            let message = format!("Too many: {}: must have at most {MANAGERS} items", given.map_or(0, Vec::len));
            let cause = Cause { reason: "FieldValueTooMany", message, field: "metadata.managedFields".to_owned() };
            return Err(ApiError::invalid(call.resource.subject(), meta::name(&old), vec![cause]));
        }
        let given = given.map(|given| Value::Array(given.clone()));
        let given = given.filter(|given| given != old.at("metadata").at("managedFields"));
        let change = Change { old: &old, status: call.is_of_status() };
        let mut admitted = lifecycle::update(&call.resource, next.object, &change, call.strictness(), call.now())?;
        admitted.warnings.extend(call.advice(&admitted.object));
        if let Some(entries) = next.applied {
            book_apply(entries, &mut admitted.object);
        } else {
            call.book(&old, &mut admitted.object, given.as_ref());
        }
        call.resource.make_storable(&mut admitted.object);
        if let Some(answer) = commit(call, &read, &old, admitted) {
            return Ok(answer);
        }
    }
    Err(ApiError::modified_since(call.resource.subject(), call.name.as_deref().unwrap_or_default()))
}

/// `None` if another writer was faster.
fn commit(call: &Call, read: &Stored, old: &Value, admitted: Admitted) -> Option<Answer> {
    let Admitted { mut object, warnings } = admitted;
    if call.query.dry_run() || object == *old {
        return Some(Answer { code: 200, object: call.present(object), warnings });
    }
    let store = &call.app.store;
    let ends = meta::is_ending(&object) && meta::finalizers(&object).next().is_none() && !namespace::is_one(call);
    if ends {
        let removed = store.remove(&call.resource.table, read, &mut object).ok()?;
        delete::after_removal(&call.app, &removed);
    } else {
        store.replace(&call.resource.table, read, &mut object).ok()?;
    }
    call.after_commit();
    Some(Answer { code: 200, object: call.present(object), warnings })
}
