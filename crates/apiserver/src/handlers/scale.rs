//! `/scale`: the replicas of an object, whatever it calls them, as one kind that every client knows.

use axum::body::Body;
use http::{Method, Response};
use serde_json::{Value, json};

use super::{Answer, Call, update};
use crate::meta::At;
use crate::patch::{json_patch, merge};
use crate::registry::Scale;
use crate::status::{ApiError, Cause};
use crate::{body, meta};

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json";

pub(super) fn dispatch(method: &Method, call: &Call, raw: &[u8]) -> Result<Response<Body>, ApiError> {
    let paths = call.resource.scale.as_ref().ok_or_else(ApiError::no_such_path)?;
    let answer = match *method {
        Method::GET => Answer::ok(call.present(call.find()?.value())),
        Method::PUT => {
            let wanted = body::object(&call.headers, raw)?;
            update::change(call, |current| scaled(call, paths, current, &wanted))?
        }
        Method::PATCH => {
            let patch = body::json(raw)?;
            match body::media_type(&call.headers) {
                "application/merge-patch+json" => update::change(call, |current| {
                    scaled(call, paths, current, &merge::merged(&shown(paths, current)?, &patch))
                })?,
                "application/json-patch+json" => {
                    let operations = json_patch::parse(&patch)?;
                    update::change(call, |current| {
                        let patched = json_patch::apply(&shown(paths, current)?, &operations);
                        scaled(call, paths, current, &patched.map_err(json_patch::PatchError::into_api)?)
                    })?
                }
                _ => return Err(ApiError::unsupported_media_type(ACCEPTED)),
            }
        }
        _ => return Err(ApiError::method_not_allowed()),
    };
    call.reply(Answer { object: shown(paths, &answer.object)?, ..answer })
}

/// The object as a `Scale`.
fn shown(paths: &Scale, object: &Value) -> Result<Value, ApiError> {
    let Some(replicas) = at(object, &paths.spec_replicas).and_then(Value::as_i64) else {
        let why = format!("the spec replicas field \".{}\" does not exist", paths.spec_replicas);
        return Err(ApiError::internal(why));
    };
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at("metadata").get(field) {
            meta::put(&mut metadata, field, value.clone());
        }
    }
    let mut status = json!({"replicas": at(object, &paths.status_replicas).and_then(Value::as_i64).unwrap_or(0)});
    let selector = paths.label_selector.as_deref().and_then(|path| at(object, path)).and_then(Value::as_str);
    if let Some(selector) = selector.filter(|text| !text.is_empty()) {
        meta::put(&mut status, "selector", json!(selector));
    }
    let spec = if replicas == 0 { json!({}) } else { json!({"replicas": replicas}) };
    Ok(json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}))
}

/// The object with the replicas that a `Scale` asks for.
fn scaled(call: &Call, paths: &Scale, current: &Value, scale: &Value) -> Result<Value, ApiError> {
    let name = meta::name(current);
    let version = meta::text(scale, "resourceVersion");
    if !version.is_empty() && version != meta::text(current, "resourceVersion") {
        return Err(ApiError::modified_since(call.resource.subject(), name));
    }
    let kind = (scale.at("apiVersion").as_str().unwrap_or_default(), scale.at("kind").as_str().unwrap_or_default());
    if kind != ("autoscaling/v1", "Scale") {
        return Err(ApiError::bad_request(format!(
            "the body is a {} of {:?}; /scale takes a Scale of \"autoscaling/v1\"",
            kind.1, kind.0
        )));
    }
    let given = scale.at("spec").at("replicas");
    let replicas = if given.is_null() { Some(0) } else { given.as_i64() };
    let Some(replicas) = replicas else {
        return Err(ApiError::bad_request(format!("spec.replicas of a Scale is a whole number, not {given}")));
    };
    if replicas < 0 {
        let cause = Cause::invalid(".spec.replicas", json!(replicas), "should be a non-negative integer");
        return Err(ApiError::invalid(call.resource.subject(), name, vec![cause]));
    }
    let mut next = current.clone();
    set(&mut next, &paths.spec_replicas, json!(replicas));
    Ok(next)
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, name| value.get(name))
}

fn set(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for name in path.split('.') {
        if !place.is_object() {
            *place = json!({});
        }
        let Some(fields) = place.as_object_mut() else { return };
        place = fields.entry(name).or_insert(Value::Null);
    }
    *place = value;
}
