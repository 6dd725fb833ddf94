//! GET of one object, and of a list, whole or in pages.

use std::sync::Arc;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::meta;
use crate::negotiate::{Form, json_reply, json_text_reply};
use crate::status::{ApiError, Cause, Details, Subject};
use crate::storage::{Key, Snapshot, Stored};

pub(super) const LIST_OPTIONS: Subject<'static> = Subject { group: "meta.k8s.io", plural: "", kind: "ListOptions" };

pub(super) fn get(call: &Call) -> Result<Response<Body>, ApiError> {
    let found = call.find()?;
    if call.takes_as_stored(Form::of(&call.headers, &call.query)?) {
        return Ok(json_text_reply(found.json.clone()));
    }
    call.reply(Answer::ok(call.present(found.value())))
}

/// Where the next page starts: the moment that the first page showed, and the last key shown.
#[derive(serde::Serialize, serde::Deserialize)]
struct Continue {
    version: u64,
    namespace: String,
    name: String,
}

pub(super) fn list(call: &Call) -> Result<Response<Body>, ApiError> {
    let form = Form::of(&call.headers, &call.query)?;
    check_list_options(call)?;
    let selector = call.selector()?;
    let resume = match call.query.text("continue") {
        "" => None,
        token => Some(decode(token)?),
    };
    let Snapshot { version, objects } = snapshot(call, resume.as_ref())?;
    let after = resume.map(|resume| Key::new(&resume.namespace, &resume.name));
    let rest = objects.into_iter().filter(|object| after.as_ref().is_none_or(|after| object.key > *after));
    let mut selected = rest.filter(|object| call.selects(&selector, object)).peekable();
    let limit = call.query.number("limit").filter(|&limit| limit > 0).and_then(|limit| usize::try_from(limit).ok());
    let page: Vec<_> = selected.by_ref().take(limit.unwrap_or(usize::MAX)).collect();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if call.resource.is_custom() && form == Form::Plain {
        meta::put(&mut metadata, "continue", json!(""));
    }
    if let (Some(_), Some(last)) = (selected.peek(), page.last()) {
        let next = Continue { version, namespace: last.key.namespace.clone(), name: last.key.name.clone() };
        meta::put(&mut metadata, "continue", json!(URL_SAFE_NO_PAD.encode(json!(next).to_string())));
        if selector.is_empty() {
            meta::put(&mut metadata, "remainingItemCount", json!(selected.count()));
        }
    }
    if call.takes_as_stored(form) {
        return Ok(json_text_reply(list_of_stored(call, &metadata, &page)));
    }
    let page: Vec<Value> = page.iter().map(|object| call.present(object.value())).collect();
    Ok(json_reply(200, &form.list(&call.resource, &page, &metadata, call.now())))
}

/// What [`Form::list`] makes, of objects that are text already.
fn list_of_stored(call: &Call, metadata: &Value, page: &[Arc<Stored>]) -> Bytes {
    let (kind, version) = (json!(call.resource.list_kind), json!(call.resource.api_version()));
    let head = format!(r#"{{"kind":{kind},"apiVersion":{version},"metadata":{metadata},"items":["#);
    let each = page.iter().map(|object| object.json.len().saturating_add(1));
    let length = each.fold(head.len().saturating_add(2), usize::saturating_add);
    let mut text = Vec::with_capacity(length);
    text.extend_from_slice(head.as_bytes());
    for (number, object) in page.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&object.json);
    }
    text.extend_from_slice(b"]}");
    text.into()
}

fn check_list_options(call: &Call) -> Result<(), ApiError> {
    let text = |option: &str| call.query.text(option);
    let limit = text("limit");
    if !limit.is_empty() && limit.parse::<i64>().is_err() {
        return Err(ApiError::bad_request(format!("strconv.ParseInt: parsing {limit:?}: invalid syntax")));
    }
    let (version, matching) = (text("resourceVersion"), text("resourceVersionMatch"));
    let mut causes = Vec::new();
    if !matching.is_empty() {
        let field = "resourceVersionMatch";
        if version.is_empty() {
            causes
                .push(Cause::forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if !text("continue").is_empty() {
            causes.push(Cause::forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !["Exact", "NotOlderThan"].contains(&matching) {
            let message =
                format!("Unsupported value: {}: supported values: \"Exact\", \"NotOlderThan\", \"\"", json!(matching));
            causes.push(Cause { reason: "FieldValueNotSupported", message, field: field.to_owned() });
        }
        if matching == "Exact" && version == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            causes.push(Cause::forbidden(field, why));
        }
    }
    if !text("sendInitialEvents").is_empty() {
        causes.push(Cause::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(LIST_OPTIONS, "", causes)) }
}

fn decode(token: &str) -> Result<Continue, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| ApiError::bad_request("continue key is not valid: it does not come from this server"))
}

/// The moment that the request asks for.
fn snapshot(call: &Call, resume: Option<&Continue>) -> Result<Snapshot, ApiError> {
    let (store, table) = (&call.app.store, &call.resource.table);
    let namespace = call.namespace.as_deref();
    let wanted = match resume {
        Some(resume) => Some(resume.version),
        None => match (call.query.text("resourceVersion"), call.query.text("resourceVersionMatch")) {
            ("" | "0", _) => None,
            (text, matching) => {
                let version = version(text)?;
                if version > store.version() {
                    return Err(too_large(version, store.version()));
                }
                (matching == "Exact").then_some(version)
            }
        },
    };
    let Some(wanted) = wanted else { return Ok(store.list(table, namespace)) };
    store
        .list_at(table, namespace, wanted)
        .map_err(|expired| ApiError::expired(format!("too old resource version: {wanted} ({})", expired.oldest)))
}

pub(super) fn version(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| ApiError::bad_request(format!("invalid resource version \"{text}\"")))
}

fn too_large(wanted: u64, current: u64) -> ApiError {
    let message = format!("Too large resource version: {wanted}, current: {current}");
    let details = Details { retry_after_seconds: 1, ..Details::default() };
    ApiError { details: Some(Box::new(details)), ..ApiError::new(504, "Timeout", message) }
}
