//! From what a client sent to what is stored: identity, pruning, defaults, checks, generation.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::meta;
use crate::names;
use crate::registry::Resource;
use crate::status::{ApiError, Cause};

/// What becomes of fields that the schema does not know. They are never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "Ignore" => Self::Ignore,
            "Strict" => Self::Strict,
            _ => Self::Warn,
        }
    }
}

/// An object that may be stored.
pub(crate) struct Admitted {
    pub(crate) object: Value,
    pub(crate) warnings: Vec<String>,
}

/// A change of an existing object, in whole or of its status alone.
pub(crate) struct Change<'a> {
    /// The object as it is stored.
    pub(crate) old: &'a Value,
    pub(crate) status: bool,
}

/// What only the server writes.
const SERVER_FIELDS: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "managedFields",
];

/// Admits an object that the server itself puts there.
pub(crate) fn seed(resource: &Resource, object: Value, now: Timestamp) -> Result<Value, ApiError> {
    create(resource, object, "", None, FieldValidation::Ignore, now).map(|admitted| admitted.object)
}

/// Admits a new object. `name` is there where the URL names the object (server-side apply).
pub(crate) fn create(
    resource: &Resource,
    mut object: Value,
    namespace: &str,
    name: Option<&str>,
    validation: FieldValidation,
    now: Timestamp,
) -> Result<Admitted, ApiError> {
    check_type(resource, &mut object)?;
    check_namespace(resource, &mut object, namespace)?;
    if !meta::text(&object, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let warnings = prune(resource, &mut object, validation)?;
    for field in SERVER_FIELDS {
        meta::remove(&mut object, field);
    }
    meta::remove(&mut object, "selfLink");
    let generate = meta::text(&object, "generateName").to_owned();
    if meta::name(&object).is_empty() && !generate.is_empty() {
        let suffix = uuid::Uuid::new_v4().simple().to_string();
        meta::set(&mut object, "name", json!(format!("{generate}{}", &suffix[..5])));
    }
    if let Some(name) = name.filter(|name| *name != meta::name(&object)) {
        return Err(name_differs(meta::name(&object), name));
    }
    meta::set(&mut object, "uid", json!(uuid::Uuid::new_v4().to_string()));
    meta::set(&mut object, "creationTimestamp", meta::time(now));
    if resource.is_custom() {
        meta::set(&mut object, "generation", json!(1));
        if resource.has_status
            && let Some(fields) = object.as_object_mut()
        {
            fields.shift_remove("status");
        }
    }
    let object = finish(resource, object, None, now);
    let name = meta::name(&object);
    let mut causes = if name.is_empty() {
        vec![Cause::required("metadata.name", "name or generateName is required")]
    } else {
        names::check_name(resource, name)
    };
    causes.extend(broken_rules(resource, &object, None));
    if causes.is_empty() {
        Ok(Admitted { object, warnings })
    } else {
        Err(ApiError::invalid(resource.subject(), name, causes))
    }
}

/// Admits a new state of an existing object. The result equals `change.old` where nothing changes.
pub(crate) fn update(
    resource: &Resource,
    mut object: Value,
    change: &Change<'_>,
    validation: FieldValidation,
    now: Timestamp,
) -> Result<Admitted, ApiError> {
    let old = change.old;
    let name = meta::name(old);
    let subject = resource.subject();
    if !object.is_object() {
        return Err(ApiError::bad_request("the new state is not an object"));
    }
    check_type(resource, &mut object)?;
    check_namespace(resource, &mut object, meta::text(old, "namespace"))?;
    if meta::name(&object) != name {
        return Err(name_differs(meta::name(&object), name));
    }
    let version = meta::text(&object, "resourceVersion");
    if !version.is_empty() && version != meta::text(old, "resourceVersion") {
        return Err(ApiError::modified_since(subject, name));
    }
    let uid = meta::text(&object, "uid");
    if !uid.is_empty() && uid != meta::text(old, "uid") {
        let is = meta::text(old, "uid");
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {is}");
        return Err(ApiError::conflict(subject, name, &why));
    }
    let warnings = prune(resource, &mut object, validation)?;
    if let Some(builtin) = resource.builtin() {
        object = builtin.store(object);
    }
    if change.status {
        let status = object.get("status").cloned();
        object = old.clone();
        set_status(&mut object, status);
    } else if resource.is_custom() && resource.has_status {
        set_status(&mut object, old.get("status").cloned());
    }
    for field in SERVER_FIELDS {
        meta::copy(old, &mut object, field);
    }
    let mut object = finish(resource, object, Some(old), now);
    if resource.is_custom() && !change.status && differs_beyond_metadata(resource, old, &object) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        meta::set(&mut object, "generation", json!(generation));
    }
    // What it is called is part of its URL, not of its state.
    object["apiVersion"] = old["apiVersion"].clone();
    let mut causes = broken_rules(resource, &object, Some(old));
    causes.extend(late_finalizers(old, &object));
    if causes.is_empty() { Ok(Admitted { object, warnings }) } else { Err(ApiError::invalid(subject, name, causes)) }
}

fn name_differs(object: &str, url: &str) -> ApiError {
    ApiError::bad_request(format!("the name of the object ({object}) does not match the name on the URL ({url})"))
}

/// The type that the URL names. Built-in kinds may leave theirs out.
fn check_type(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    let expected = [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())];
    for (field, expected) in expected {
        let given = object[field].as_str().unwrap_or_default();
        if given.is_empty() && !resource.is_custom() {
            object[field] = json!(expected);
        } else if given.is_empty() {
            let title = if field == "kind" { "Kind" } else { "apiVersion" };
            return Err(ApiError::bad_request(format!("Object '{title}' is missing in the body of the request")));
        } else if given != expected {
            let (what, name) = if field == "kind" { ("kind", "kind") } else { ("API version", "API version") };
            return Err(ApiError::bad_request(format!(
                "the {what} in the data ({given}) does not match the expected {name} ({expected})"
            )));
        }
    }
    Ok(())
}

fn check_namespace(resource: &Resource, object: &mut Value, namespace: &str) -> Result<(), ApiError> {
    if !resource.namespaced {
        meta::remove(object, "namespace");
        return Ok(());
    }
    match meta::text(object, "namespace") {
        "" => meta::set(object, "namespace", json!(namespace)),
        given if given != namespace => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        _ => {}
    }
    Ok(())
}

/// Drops unknown fields, and says so as the client asked.
fn prune(resource: &Resource, object: &mut Value, validation: FieldValidation) -> Result<Vec<String>, ApiError> {
    if resource.is_custom() {
        if let Some(metadata) = object.get_mut("metadata") {
            meta::drop_nulls(metadata);
        }
    } else {
        meta::drop_nulls(object);
    }
    // Its own schema is as open as the objects that it describes.
    meta::remove(object, "managedFields");
    let unknown = resource.schema.prune(object);
    let texts: Vec<String> = unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
    match validation {
        FieldValidation::Strict if !texts.is_empty() => {
            let (kind, list) = (&resource.kind, texts.join(", "));
            let message = if resource.is_custom() {
                format!("strict decoding error: {list}")
            } else {
                format!(
                    "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {list}",
                    resource.version
                )
            };
            Err(ApiError::bad_request(message))
        }
        FieldValidation::Warn => Ok(texts),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
    }
}

/// Everything that the server adds before it checks.
fn finish(resource: &Resource, mut object: Value, old: Option<&Value>, now: Timestamp) -> Value {
    // An empty list of these is the same as none.
    for field in ["finalizers", "ownerReferences"] {
        if object["metadata"][field].as_array().is_some_and(Vec::is_empty) || object["metadata"][field].is_null() {
            meta::remove(&mut object, field);
        }
    }
    if resource.is_custom() {
        resource.schema.fill_defaults(&mut object);
    }
    if let Some(builtin) = resource.builtin() {
        if old.is_none() {
            object = builtin.store(object);
        }
        builtin.prepare(&mut object, old, now);
    }
    meta::in_reading_order(object)
}

fn set_status(object: &mut Value, status: Option<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match status {
        Some(status) => drop(fields.insert("status".to_owned(), status)),
        None => drop(fields.shift_remove("status")),
    }
}

fn broken_rules(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = names::check_labels(object);
    match resource.builtin() {
        Some(builtin) => {
            // The schema is that of the form in which the kind is served.
            causes.extend(resource.schema.check(&builtin.show(object.clone()), None));
            causes.extend(builtin.check(object, old));
        }
        None => causes.extend(resource.schema.check(object, old)),
    }
    causes
}

/// Nothing new may hold on to an object that is already ending.
fn late_finalizers(old: &Value, new: &Value) -> Option<Cause> {
    if !meta::is_ending(old) {
        return None;
    }
    let added: Vec<&str> = meta::finalizers(new).filter(|one| !meta::finalizers(old).any(|old| old == *one)).collect();
    (!added.is_empty()).then(|| {
        let why = "no new finalizers can be added if the object is being deleted, found new finalizers";
        Cause::forbidden(
            "metadata.finalizers",
            format!("{why} []string{{{}}}", json!(added).to_string().trim_matches(['[', ']'])),
        )
    })
}

fn differs_beyond_metadata(resource: &Resource, old: &Value, new: &Value) -> bool {
    let relevant = |object: &Value| -> Value {
        let fields = object.as_object().into_iter().flatten();
        let skip = |name: &str| {
            ["metadata", "apiVersion", "kind"].contains(&name) || (resource.has_status && name == "status")
        };
        fields.filter(|(name, _)| !skip(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    relevant(old) != relevant(new)
}
