//! The built-in kinds as resources: their names and columns.

use std::sync::Arc;

use k8s_openapi::api::{coordination, core, events};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{Builtin, DEFINITIONS, NAMESPACES};
use crate::meta;
use crate::registry::{Nature, Resource};
use crate::schema::Schema;
use crate::schema::object_meta::{open_object, with_object_meta};
use crate::table::{Column, ColumnType};

/// All of them, in the order in which discovery lists them.
pub(crate) fn resources() -> Vec<Resource> {
    let namespaces =
        resource(Builtin::Namespace, ("", "v1"), "Namespace", NAMESPACES, &schema_of::<core::v1::Namespace>());
    let maps = resource(Builtin::ConfigMap, ("", "v1"), "ConfigMap", "configmaps", &schema_of::<core::v1::ConfigMap>());
    let secrets = resource(Builtin::Secret, ("", "v1"), "Secret", "secrets", &schema_of::<core::v1::Secret>());
    let leases = ("coordination.k8s.io", "v1");
    let leases = resource(Builtin::Lease, leases, "Lease", "leases", &schema_of::<coordination::v1::Lease>());
    let reviews = resource(
        Builtin::SelfSubjectAccessReview,
        ("authorization.k8s.io", "v1"),
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        &open_object(),
    );
    let who = resource(
        Builtin::SelfSubjectReview,
        ("authentication.k8s.io", "v1"),
        "SelfSubjectReview",
        "selfsubjectreviews",
        &open_object(),
    );
    vec![
        maps.short_names(&["cm"]).columns([number("Data", "count(.data,.binaryData)"), age()]),
        core_events(),
        namespaces
            .short_names(&["ns"])
            .of_the_cluster()
            .with_status()
            .columns([text("Status", ".status.phase"), age()]),
        secrets.columns([text("Type", ".type"), number("Data", "count(.data)"), age()]),
        events(),
        leases.columns([text("Holder", ".spec.holderIdentity"), age()]),
        who.of_the_cluster(),
        reviews.of_the_cluster(),
        definitions(),
    ]
}

fn core_events() -> Resource {
    let mut schema = schema_of::<core::v1::Event>();
    atomic(&mut schema, &["involvedObject", "related"]);
    resource(Builtin::CoreEvent, ("", "v1"), "Event", "events", &schema)
        .short_names(&["ev"])
        .without_name_column()
        .columns([
            date("Last Seen", ".lastTimestamp|.series.lastObservedTime|.eventTime"),
            text("Type", ".type"),
            text("Reason", ".reason"),
            text("Object", "object()"),
            text("Subobject", ".involvedObject.fieldPath").wide(),
            text("Source", "source()").wide(),
            text("Message", ".message"),
            date("First Seen", ".firstTimestamp|.eventTime").wide(),
            number("Count", ".series.count|.count|1").wide(),
            text("Name", ".metadata.name").wide(),
        ])
}

fn events() -> Resource {
    let version = ("events.k8s.io", "v1");
    let mut schema = schema_of::<events::v1::Event>();
    atomic(&mut schema, &["regarding", "related"]);
    let mut events = resource(Builtin::Event, version, "Event", "events", &schema);
    // The same objects as those of `core/v1`.
    events.table = Arc::from("events");
    events.short_names(&["ev"]).without_name_column().columns([
        date("Last Seen", ".deprecatedLastTimestamp|.series.lastObservedTime|.eventTime"),
        text("Type", ".type"),
        text("Reason", ".reason"),
        text("Object", "object()"),
        text("Subobject", ".regarding.fieldPath").wide(),
        text("Source", "source()").wide(),
        text("Message", ".note"),
        date("First Seen", ".deprecatedFirstTimestamp|.eventTime").wide(),
        number("Count", ".series.count|.deprecatedCount|1").wide(),
        text("Name", ".metadata.name").wide(),
    ])
}

fn definitions() -> Resource {
    // The schema of a schema refers to itself; what matters of it is checked where the definition is read.
    let schema = open_object();
    let (kind, plural) = ("CustomResourceDefinition", "customresourcedefinitions");
    let mut definitions = resource(Builtin::Definition, ("apiextensions.k8s.io", "v1"), kind, plural, &schema);
    definitions.table = Arc::from(DEFINITIONS);
    definitions.categories = vec!["api-extensions".to_owned()];
    definitions.short_names(&["crd", "crds"]).of_the_cluster().with_status().columns([Column::new(
        "Created At",
        ColumnType::Verbatim,
        ".metadata.creationTimestamp",
    )])
}

fn age() -> Column {
    date("Age", ".metadata.creationTimestamp")
}

fn text(name: &str, path: &str) -> Column {
    Column::new(name, ColumnType::Text, path)
}

fn number(name: &str, path: &str) -> Column {
    Column::new(name, ColumnType::Integer, path)
}

fn date(name: &str, path: &str) -> Column {
    Column::new(name, ColumnType::Date, path)
}

/// References to other objects are replaced as a whole, which the published types do not say.
fn atomic(schema: &mut Value, fields: &[&str]) {
    for field in fields {
        if let Some(property) = schema.pointer_mut(&format!("/properties/{field}")) {
            meta::put(property, "x-kubernetes-map-type", json!("atomic"));
        }
    }
}

/// The schema of a type of `k8s-openapi`, with everything that it refers to inlined.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    with_object_meta(settings.into_generator().into_root_schema_for::<T>().to_value())
}

fn resource(builtin: Builtin, (group, version): (&str, &str), kind: &str, plural: &str, schema: &Value) -> Resource {
    let table = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        table: Arc::from(table),
        has_status: false,
        scale: None,
        selectable: Vec::new(),
        storage: None,
        parts: Vec::new(),
        columns: vec![Column::name()],
        // These schemas come from a published crate; a test reads every one of them.
        schema: Arc::new(Schema::parse(schema, "").unwrap_or_default()),
        nature: Nature::Builtin(builtin),
    }
}

impl Resource {
    fn short_names(mut self, names: &[&str]) -> Self {
        self.short_names = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    fn of_the_cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    fn with_status(mut self) -> Self {
        self.has_status = true;
        self
    }

    /// Events are told by what they are about.
    fn without_name_column(mut self) -> Self {
        self.columns.clear();
        self
    }

    fn columns<const N: usize>(mut self, columns: [Column; N]) -> Self {
        self.columns.extend(columns.into_iter().map(Column::of_builtin));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_of_every_built_in_kind_is_one_that_is_understood() {
        for resource in resources() {
            assert!(resource.schema.properties.contains_key("metadata"), "{}", resource.kind);
        }
    }
}
