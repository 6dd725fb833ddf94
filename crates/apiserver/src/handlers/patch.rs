//! PATCH, in its four formats.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::update::Next;
use super::{Booking, Call, create, update};
use crate::patch::{json_patch, managers, merge, strategic};
use crate::status::ApiError;
use crate::{body, meta};

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const ACCEPTED_BUILTIN: &str = "application/json-patch+json, application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";

pub(super) fn patch(call: &Call, raw: &[u8]) -> Result<Response<Body>, ApiError> {
    let answer = match body::media_type(&call.headers) {
        "application/merge-patch+json" => {
            let patch = body::json(raw)?;
            update::change(call, |current| Ok(merge::merged(current, &patch)))
        }
        "application/strategic-merge-patch+json" if !call.resource.is_custom() => {
            let patch = body::json(raw)?;
            update::change(call, |current| strategic::merged(current, &patch))
        }
        "application/json-patch+json" => {
            let operations = json_patch::parse(&body::json(raw)?)?;
            update::change(call, |current| {
                json_patch::apply(current, &operations)
                    .map_err(|error| error.into_api(call.resource.subject(), meta::name(current)))
            })
        }
        "application/apply-patch+yaml" => return apply(call, raw),
        _ if call.resource.is_custom() => Err(ApiError::unsupported_media_type(ACCEPTED)),
        _ => Err(ApiError::unsupported_media_type(ACCEPTED_BUILTIN)),
    };
    call.reply(answer?)
}

/// Server-side apply: creates what is not there, unless only its status was meant.
fn apply(call: &Call, raw: &[u8]) -> Result<Response<Body>, ApiError> {
    let mut applied = body::yaml(raw)?;
    if !applied.is_object() {
        return Err(ApiError::bad_request("the body of an apply patch is not an object"));
    }
    let manager = call.query.text("fieldManager");
    if manager.is_empty() {
        return Err(ApiError::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    if applied["metadata"]["managedFields"].as_array().is_some_and(|fields| !fields.is_empty()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    // Bodies for status and leases may carry no metadata: the URL names the object.
    meta::set(&mut applied, "name", json!(call.name.as_deref().unwrap_or_default()));
    if let Some(namespace) = call.namespace.as_deref().filter(|_| call.resource.namespaced) {
        meta::set(&mut applied, "namespace", json!(namespace));
    }
    let schema = Some(&*call.resource.schema);
    let booking = Booking::of(call);
    let laid_over = |current: &Value| {
        let force = call.query.flag("force");
        managers::apply(current, &applied, schema, &booking.writer(call), force, call.resource.subject())
    };
    let change = || {
        update::replace(call, |current| {
            let result = laid_over(current)?;
            Ok(Next { applied: Some(result.entries()), object: result.object })
        })
    };
    match change() {
        Err(error) if error.code == 404 && !call.status => {}
        answer => return call.reply(answer?),
    }
    let new = laid_over(&Value::Null)?;
    let entries = new.entries();
    match create::store_new(call, new.object, |object| managers::book_apply(entries, object)) {
        // Another writer created it in between.
        Err(error) if error.reason == "AlreadyExists" => call.reply(change()?),
        created => call.reply(created?),
    }
}
