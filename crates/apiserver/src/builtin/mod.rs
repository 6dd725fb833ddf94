//! The kinds that are served without a definition: the few that clients of custom resources need.

mod definition;
mod event;
mod listing;
mod secret;

use k8s_openapi::api::{coordination, core, events};
use serde_json::{Value, json};

use crate::meta;
use crate::status::Cause;
pub(crate) use listing::resources;

pub(crate) const NAMESPACES: &str = "namespaces";
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
}

impl Builtin {
    /// What the server fills in or folds before it stores a new state. `old` is there for an update.
    pub(crate) fn prepare(self, new: &mut Value, old: Option<&Value>, now: jiff::Timestamp) {
        match self {
            Self::Namespace => prepare_namespace(new),
            Self::Secret => secret::prepare(new),
            Self::Definition => definition::prepare(new, old, now),
            Self::ConfigMap | Self::CoreEvent | Self::Event | Self::Lease | Self::SelfSubjectAccessReview => {}
        }
    }

    /// Rules beyond the schema.
    pub(crate) fn check(self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        match self {
            Self::ConfigMap => immutable_data(new, old, &["data", "binaryData"]),
            Self::Secret => secret::check(new, old),
            Self::Definition => definition::check(new),
            _ => Vec::new(),
        }
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
        if self == Self::Event { event::from_core(object) } else { object }
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
        }
    }
}

fn prepare_namespace(new: &mut Value) {
    let name = meta::name(new).to_owned();
    if let Some(metadata) = meta::of(new) {
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        labels["kubernetes.io/metadata.name"] = json!(name);
    }
    let phase = if meta::is_ending(new) { "Terminating" } else { "Active" };
    new["spec"] = json!({"finalizers": ["kubernetes"]});
    new["status"] = json!({"phase": phase});
}

/// An object that says `immutable: true` keeps its data and goes on saying so.
fn immutable_data(new: &Value, old: Option<&Value>, fields: &[&str]) -> Vec<Cause> {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return Vec::new() };
    let why = "field is immutable when `immutable` is set";
    let mut causes = Vec::new();
    if new["immutable"] != true {
        causes.push(Cause::forbidden("immutable", why));
    }
    causes
        .extend(fields.iter().filter(|field| new[**field] != old[**field]).map(|field| Cause::forbidden(*field, why)));
    causes
}
