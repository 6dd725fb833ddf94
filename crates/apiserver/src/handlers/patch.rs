//! PATCH, in its four formats.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::update::Next;
use super::{Booking, Call, create, update};
use crate::lifecycle;
use crate::meta::At;
use crate::patch::{json_patch, last_applied, managers, merge, strategic};
use crate::status::{ApiError, Cause, Subject};
use crate::{body, meta};

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const ACCEPTED_BUILTIN: &str = "application/json-patch+json, application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";

/// The field manager of `kubectl apply --server-side`.
const KUBECTL: &str = "kubectl";

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
                json_patch::apply(current, &operations).map_err(json_patch::PatchError::into_api)
            })
        }
        "application/apply-patch+yaml" => return apply(call, raw),
        _ if call.resource.is_custom() => Err(ApiError::unsupported_media_type(ACCEPTED)),
        _ => Err(ApiError::unsupported_media_type(ACCEPTED_BUILTIN)),
    };
    call.reply(answer?)
}

/// Whether what is applied names itself, as the URL does, and only fields that there are.
fn check_applied(call: &Call, applied: &Value) -> Result<(), ApiError> {
    let text = |field: &str| applied.at(field).as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version.is_empty() || kind.is_empty() {
        let group_version = if api_version.is_empty() { "/" } else { api_version };
        return Err(ApiError::bad_request(format!("invalid object type: {group_version}, Kind={kind}")));
    }
    let name = meta::name(applied);
    let in_url = call.name.as_deref().unwrap_or_default();
    if !name.is_empty() && name != in_url {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({in_url})"
        )));
    }
    let unknown = call.resource.schema.prune(&mut applied.clone());
    let unknown: Vec<_> = unknown.iter().map(|path| format!(".{path}: field not declared in schema")).collect();
    let why = match unknown.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let namespace = meta::text(applied, "namespace");
    let core = if api_version.contains('/') { "" } else { "/" };
    let message =
        format!("failed to create typed patch object ({namespace}/{name}; {core}{api_version}, Kind={kind}): {why}");
    // Kubernetes has no better code for it.
    Err(ApiError::new(500, "", message))
}

/// Server-side apply: creates what is not there, unless only its status was meant.
fn apply(call: &Call, raw: &[u8]) -> Result<Response<Body>, ApiError> {
    let mut applied = body::yaml(raw)?;
    if !applied.is_object() {
        return Err(ApiError::bad_request("the body of an apply patch is not an object"));
    }
    let manager = call.query.text("fieldManager");
    if manager.is_empty() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        let subject = Subject { group: "meta.k8s.io", plural: "", kind: "PatchOptions" };
        return Err(ApiError::invalid(subject, "", vec![cause]));
    }
    check_applied(call, &applied)?;
    if applied.at("metadata").at("managedFields").as_array().is_some_and(|fields| !fields.is_empty()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let names_itself = !meta::name(&applied).is_empty();
    // Bodies for status and leases may carry no metadata: the URL names the object.
    meta::set(&mut applied, "name", json!(call.name.as_deref().unwrap_or_default()));
    if let Some(namespace) = call.namespace.as_deref().filter(|_| call.resource.namespaced) {
        meta::set(&mut applied, "namespace", json!(namespace));
    }
    let schema = Some(&*call.resource.schema);
    let booking = Booking::of(call);
    let laid_over = |current: &Value| {
        let writer = booking.writer(call);
        let force = call.query.flag("force");
        if manager == KUBECTL {
            return last_applied::apply(current, &applied, schema, &writer, force);
        }
        managers::apply(current, &applied, schema, &writer, force)
    };
    let change = || {
        update::replace(call, |current| {
            let result = laid_over(current)?;
            Ok(Next { applied: Some(result.entries()), object: result.object })
        })
    };
    match change() {
        Err(error) if error.code == 404 && !call.is_of_status() => {}
        answer => return call.reply(answer?),
    }
    if !names_itself {
        return Err(lifecycle::name_differs("", call.name.as_deref().unwrap_or_default()));
    }
    let new = laid_over(&Value::Null)?;
    let entries = new.entries();
    match create::store_new(call, new.object, |object| managers::book_apply(entries, object)) {
        // Another writer created it in between.
        Err(error) if error.reason == "AlreadyExists" => call.reply(change()?),
        created => call.reply(created?),
    }
}
