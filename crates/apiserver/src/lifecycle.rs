//! From what a client sent to what is stored: identity, pruning, defaults, checks, generation.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::builtin::Builtin;
use crate::meta;
use crate::meta::At;
use crate::names;
use crate::place;
use crate::registry::Resource;
use crate::status::{ApiError, Cause, MOST, Subject};

/// What becomes of fields that the schema does not know. They are never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    /// What it may be called.
    pub(crate) const NAMES: [&str; 4] = ["", "Ignore", "Strict", "Warn"];

    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "Ignore" => Self::Ignore,
            "Strict" => Self::Strict,
            _ => Self::Warn,
        }
    }
}

/// What becomes of what a writer got wrong without harm.
#[derive(Clone, Copy)]
pub(crate) struct Strictness<'a> {
    pub(crate) validation: FieldValidation,
    /// Fields that were there twice.
    pub(crate) duplicates: &'a [String],
}

impl Strictness<'_> {
    /// For what the server itself writes.
    const NONE: Self = Self { validation: FieldValidation::Ignore, duplicates: &[] };
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

/// Admits an object that the server itself puts there, in the place of `kept` where there is one.
pub(crate) fn seed(
    resource: &Resource,
    mut object: Value,
    kept: Option<&Value>,
    now: Timestamp,
) -> Result<Value, ApiError> {
    let Some(old) = kept else {
        return create(resource, object, "", None, Strictness::NONE, now).map(|admitted| admitted.object);
    };
    // What others have written on it stays.
    let mut metadata = old.at("metadata").clone();
    for (field, value) in object.at("metadata").as_object().into_iter().flatten() {
        meta::put(&mut metadata, field, value.clone());
    }
    meta::put(&mut object, "metadata", metadata);
    update(resource, object, &Change { old, status: false }, Strictness::NONE, now).map(|admitted| admitted.object)
}

/// Admits a new object. `name` is there where the URL names the object (server-side apply).
pub(crate) fn create(
    resource: &Resource,
    mut object: Value,
    namespace: &str,
    name: Option<&str>,
    strictness: Strictness<'_>,
    now: Timestamp,
) -> Result<Admitted, ApiError> {
    check_type(resource, &mut object)?;
    check_namespace(resource, &mut object, namespace)?;
    if !meta::text(&object, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let mut warnings = prune(resource, &mut object, strictness)?;
    for field in SERVER_FIELDS {
        meta::remove(&mut object, field);
    }
    meta::remove(&mut object, "selfLink");
    let generate = meta::text(&object, "generateName").to_owned();
    if meta::name(&object).is_empty() && !generate.is_empty() {
        meta::set(&mut object, "name", json!(format!("{generate}{}", random_suffix())));
    }
    if let Some(name) = name.filter(|name| *name != meta::name(&object)) {
        return Err(name_differs(meta::name(&object), name));
    }
    meta::set(&mut object, "uid", json!(uuid::Uuid::new_v4().to_string()));
    meta::set(&mut object, "creationTimestamp", meta::time(now));
    if counts_generations(resource) {
        meta::set(&mut object, "generation", json!(1));
    }
    if resource.is_custom()
        && resource.has_status
        && let Some(fields) = object.as_object_mut()
    {
        fields.shift_remove("status");
    }
    let object = finish(resource, object, None, now);
    let name = meta::name(&object);
    warnings.extend(names::finalizer_warnings(&object, None));
    let causes = broken_rules(resource, &object, None, names::check_name(resource, &object))?;
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
    strictness: Strictness<'_>,
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
    // A write of the status alone leaves all other metadata as it is, whatever it says of it.
    if !change.status && !uid.is_empty() && uid != meta::text(old, "uid") {
        let cause = Cause::invalid("metadata.uid", json!(uid), "field is immutable");
        return Err(ApiError::invalid(subject, name, vec![cause]));
    }
    let mut warnings = prune(resource, &mut object, strictness)?;
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
    if counts_generations(resource) && !change.status && differs_beyond_metadata(resource, old, &object) {
        let generation = old.at("metadata").at("generation").as_i64().unwrap_or(0).saturating_add(1);
        meta::set(&mut object, "generation", json!(generation));
    }
    // What it is called is part of its URL, not of its state.
    meta::put(&mut object, "apiVersion", old.at("apiVersion").clone());
    warnings.extend(names::finalizer_warnings(&object, Some(old)));
    let causes = broken_rules(resource, &object, Some(old), late_finalizers(old, &object).into_iter().collect())?;
    if causes.is_empty() { Ok(Admitted { object, warnings }) } else { Err(ApiError::invalid(subject, name, causes)) }
}

/// Definitions count the changes of what they want, and so do the objects that they define.
fn counts_generations(resource: &Resource) -> bool {
    resource.is_custom() || resource.builtin() == Some(Builtin::Definition)
}

/// Letters and digits that spell no words and are not mistaken for each other.
fn random_suffix() -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    let letter = |&byte: &u8| LETTERS.iter().cycle().nth(usize::from(byte)).copied().map(char::from);
    random.as_bytes().iter().take(5).filter_map(letter).collect()
}

pub(crate) fn name_differs(object: &str, url: &str) -> ApiError {
    if object.is_empty() {
        let why = "was undeterminable: name must be provided";
        return ApiError::bad_request(format!("the name of the object ({url} based on URL) {why}"));
    }
    ApiError::bad_request(format!("the name of the object ({object}) does not match the name on the URL ({url})"))
}

/// The type that the URL names. Built-in kinds may leave theirs out.
fn check_type(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    let expected = [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())];
    for (field, expected) in expected {
        let given = object.at(field).as_str().unwrap_or_default();
        if given.is_empty() && !resource.is_custom() {
            meta::put(object, field, json!(expected));
        } else if given.is_empty() {
            let missing = if object.at("kind").as_str().unwrap_or_default().is_empty() { "Kind" } else { "apiVersion" };
            let (kind, text) = (&resource.kind, place::shown(&*object));
            let beginning: String = text.chars().take(30).collect();
            return Err(ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): \
                 Object '{missing}' is missing in '{text}' ({beginning} ...)"
            )));
        } else if given != expected && field == "kind" && resource.is_custom() {
            let cause = Cause::invalid("kind", json!(given), format!("must be {expected}"));
            let subject = Subject { kind: given, ..resource.subject() };
            return Err(ApiError::invalid(subject, meta::name(object), vec![cause]));
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
fn prune(resource: &Resource, object: &mut Value, strictness: Strictness<'_>) -> Result<Vec<String>, ApiError> {
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
    let duplicates = strictness.duplicates.iter().map(|field| format!("duplicate field \"{field}\""));
    let unknown = unknown.iter().map(|field| format!("unknown field \"{field}\""));
    let texts: Vec<String> = duplicates.chain(unknown).take(MOST).collect();
    match strictness.validation {
        FieldValidation::Strict if !texts.is_empty() => {
            let (kind, list) = (&resource.kind, texts.join(", "));
            Err(ApiError::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {list}",
                resource.version
            )))
        }
        FieldValidation::Warn => Ok(texts),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
    }
}

/// Everything that the server adds before it checks.
fn finish(resource: &Resource, mut object: Value, old: Option<&Value>, now: Timestamp) -> Value {
    // None of these is the same as an empty one.
    for field in ["finalizers", "ownerReferences", "labels", "annotations"] {
        let empty = match object.at("metadata").at(field) {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if empty {
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

/// Everything that is wrong with an object, after what is known to be. A value that a typed client could not even read
/// is an error of its own.
fn broken_rules(
    resource: &Resource,
    object: &Value,
    old: Option<&Value>,
    known: Vec<Cause>,
) -> Result<Vec<Cause>, ApiError> {
    // Small patches, one after the other, make a large object.
    if meta::json_size(object) > crate::body::LIMIT {
        return Err(ApiError::too_large(crate::body::LIMIT));
    }
    // A parser refuses what is deeper. What a patch puts together is looked at here.
    if place::is_too_deep(object) {
        let why = format!("the object has more than {} levels of objects and lists", place::DEPTH);
        return Err(ApiError::bad_request(why));
    }
    let mut causes = known;
    causes.extend(names::check_metadata(object));
    let found = match resource.builtin() {
        // The schema is that of the form in which the kind is served.
        Some(builtin) => {
            let mut shown = builtin.show(object.clone());
            meta::drop_nulls(&mut shown);
            resource.schema.check(&shown, None, &causes)
        }
        None => resource.schema.check(object, old, &causes),
    };
    let typed = |cause: &&Cause| !resource.is_custom() || cause.field.starts_with("metadata.");
    let misread = |cause: &&Cause| cause.reason == "FieldValueTypeInvalid" || cause.message.contains("of type byte");
    if let Some(cause) = found.iter().filter(typed).find(misread) {
        return Err(unreadable(resource, cause));
    }
    causes.extend(found);
    if let Some(builtin) = resource.builtin() {
        causes.extend(builtin.check(object, old));
    }
    Ok(causes)
}

fn unreadable(resource: &Resource, cause: &Cause) -> ApiError {
    let kind = &resource.kind;
    let given = cause.message.split('"').nth(1).unwrap_or_default();
    let given = match given {
        "boolean" => "bool",
        "integer" => "number",
        other => other,
    };
    let wanted = cause.message.split(" of type ").nth(1).and_then(|rest| rest.split(':').next()).unwrap_or_default();
    let why = if wanted == "byte" {
        format!("{}: illegal base64 data", cause.field)
    } else {
        // The key of a map is no field of its own.
        let field = cause.field.rsplit_once('.').filter(|_| wanted == "string").map_or(&*cause.field, |(map, _)| map);
        let place = match field.strip_prefix("metadata.") {
            Some(inner) if resource.is_custom() => format!("ObjectMeta.{inner}"),
            Some(_) => format!("ObjectMeta.{field}"),
            None => format!("{kind}.{field}"),
        };
        format!("json: cannot unmarshal {given} into Go struct field {place} of type {wanted}")
    };
    ApiError::bad_request(format!("{kind} in version \"{}\" cannot be handled as a {kind}: {why}", resource.version))
}

/// Nothing new may hold on to an object that is already ending.
fn late_finalizers(old: &Value, new: &Value) -> Option<Cause> {
    if !meta::is_ending(old) {
        return None;
    }
    let before: HashSet<&str> = meta::finalizers(old).collect();
    let added: Vec<&str> = meta::finalizers(new).filter(|one| !before.contains(one)).take(MOST).collect();
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
