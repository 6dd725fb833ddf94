//! The kinds that are served without a definition: the few that clients of custom resources need.

mod definition;
mod event;
mod listing;
mod secret;

use k8s_openapi::api::{coordination, core, events};
use serde_json::{Value, json};

use crate::meta;
use crate::meta::At;
use crate::names;
use crate::status::{Cause, MOST};
pub(crate) use listing::resources;

pub(crate) const NAMESPACES: &str = "namespaces";
pub(crate) const EVENTS: &str = "events";
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// The built-in kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    Namespace,
    ConfigMap,
    Secret,
    /// `core/v1`, the form in which events are stored.
    CoreEvent,
    /// `events.k8s.io/v1`, the same objects under other field names.
    Event,
    Lease,
    Definition,
    SelfSubjectAccessReview,
    SelfSubjectReview,
}

impl Builtin {
    /// What the server fills in or folds before it stores a new state. `old` is there for an update.
    pub(crate) fn prepare(self, new: &mut Value, old: Option<&Value>, now: jiff::Timestamp) {
        match self {
            Self::Namespace => prepare_namespace(new),
            Self::Secret => secret::prepare(new),
            Self::Definition => definition::prepare(new, old, now),
            Self::ConfigMap => drop_empty(new, &["data", "binaryData"]),
            Self::CoreEvent | Self::Event | Self::Lease | Self::SelfSubjectAccessReview | Self::SelfSubjectReview => {}
        }
    }

    /// Rules beyond the schema.
    pub(crate) fn check(self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        match self {
            Self::ConfigMap => {
                let mut causes = check_keys(new, &["data", "binaryData"]);
                causes.extend(immutable_data(new, old, &["data", "binaryData"]));
                causes
            }
            Self::Secret => secret::check(new, old),
            Self::Definition => definition::check(new),
            Self::Lease => check_lease(new),
            Self::Event if old.is_none() => event::check_new(new),
            Self::CoreEvent | Self::Event => event::check(new),
            Self::Namespace | Self::SelfSubjectAccessReview | Self::SelfSubjectReview => Vec::new(),
        }
    }

    /// What an object of the kind holds that says nothing: parts that are always there, and what the server fills in.
    pub(crate) fn nothing(self) -> Value {
        match self {
            Self::Lease => json!({"spec": {}}),
            Self::Namespace => json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
            Self::CoreEvent | Self::Event => json!({"involvedObject": {}, "source": {}}),
            Self::Definition => json!({"spec": {"names": {}}}),
            Self::ConfigMap | Self::Secret | Self::SelfSubjectAccessReview | Self::SelfSubjectReview => json!({}),
        }
    }

    /// Whether it is a question, answered at once and never stored.
    pub(crate) fn is_question(self) -> bool {
        matches!(self, Self::SelfSubjectAccessReview | Self::SelfSubjectReview)
    }

    /// Field selectors beside `metadata.name` and `metadata.namespace`.
    pub(crate) fn selectable(self) -> &'static [&'static str] {
        match self {
            Self::CoreEvent => &event::CORE_SELECTABLE,
            Self::Event => &event::SELECTABLE,
            Self::Namespace => &["status.phase"],
            Self::Secret => &["type"],
            _ => &[],
        }
    }

    /// The stored form of an object that was sent in this kind's form.
    pub(crate) fn store(self, object: Value) -> Value {
        if self == Self::Event { event::to_core(object) } else { object }
    }

    /// This kind's form of a stored object.
    pub(crate) fn show(self, object: Value) -> Value {
        match self {
            Self::Event => event::show(object),
            Self::CoreEvent => event::show_core(object),
            _ => object,
        }
    }

    /// The schema document of the kind and of everything that it refers to, under `components/schemas`.
    pub(crate) fn openapi(self, generator: &mut schemars::SchemaGenerator) {
        match self {
            Self::Namespace => drop(generator.subschema_for::<core::v1::Namespace>()),
            Self::ConfigMap => drop(generator.subschema_for::<core::v1::ConfigMap>()),
            Self::Secret => drop(generator.subschema_for::<core::v1::Secret>()),
            Self::CoreEvent => drop(generator.subschema_for::<core::v1::Event>()),
            Self::Event => drop(generator.subschema_for::<events::v1::Event>()),
            Self::Lease => drop(generator.subschema_for::<coordination::v1::Lease>()),
            Self::Definition => drop(generator.subschema_for::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>()),
            Self::SelfSubjectAccessReview => drop(generator.subschema_for::<k8s_openapi::api::authorization::v1::SelfSubjectAccessReview>()),
            Self::SelfSubjectReview => drop(generator.subschema_for::<k8s_openapi::api::authentication::v1::SelfSubjectReview>()),
        }
    }
}

/// A map without entries is the same as none.
fn drop_empty(new: &mut Value, fields: &[&str]) {
    if let Some(object) = new.as_object_mut() {
        object.retain(|name, value| {
            !(fields.contains(&name.as_str()) && value.as_object().is_some_and(serde_json::Map::is_empty))
        });
    }
}

fn prepare_namespace(new: &mut Value) {
    let name = meta::name(new).to_owned();
    if let Some(metadata) = meta::of(new) {
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        meta::put(labels, "kubernetes.io/metadata.name", json!(name));
    }
    let phase = if meta::is_ending(new) { "Terminating" } else { "Active" };
    meta::put(new, "spec", json!({"finalizers": ["kubernetes"]}));
    meta::put(new, "status", json!({"phase": phase}));
}

fn check_lease(lease: &Value) -> Vec<Cause> {
    let spec = lease.at("spec");
    let below = |field: &str, least: i64| spec.at(field).as_i64().filter(|&number| number < least);
    let duration = below("leaseDurationSeconds", 1)
        .map(|given| Cause::invalid("spec.leaseDurationSeconds", given, "must be greater than 0"));
    let transitions = below("leaseTransitions", 0)
        .map(|given| Cause::invalid("spec.leaseTransitions", given, "must be greater than or equal to 0"));
    duration.into_iter().chain(transitions).collect()
}

/// Keys of these maps become names of files, and one key is in one map.
fn check_keys(new: &Value, fields: &[&str]) -> Vec<Cause> {
    let keys = |field: &str| new.at(field).as_object().into_iter().flat_map(|map| map.keys());
    let mut causes = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        for key in keys(field) {
            if causes.len() > MOST {
                break;
            }
            causes.extend(names::check_config_key(field, key));
            for other in fields.iter().skip(index.saturating_add(1)).filter(|other| new.at(other).get(key).is_some()) {
                let why = format!("duplicate of key present in {other}");
                causes.push(Cause::invalid(format!("{field}[{key}]"), json!(key), why));
            }
        }
    }
    causes
}

/// An object that says `immutable: true` keeps its data and goes on saying so.
fn immutable_data(new: &Value, old: Option<&Value>, fields: &[&str]) -> Vec<Cause> {
    let Some(old) = old.filter(|old| old.at("immutable") == true) else { return Vec::new() };
    let why = "field is immutable when `immutable` is set";
    let mut causes = Vec::new();
    if new.at("immutable") != true {
        causes.push(Cause::forbidden("immutable", why));
    }
    causes.extend(
        fields.iter().filter(|field| new.at(field) != old.at(field)).map(|field| Cause::forbidden(*field, why)),
    );
    causes
}
