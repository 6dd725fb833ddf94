//! OpenAPI v3: what `kubectl explain` prints, and what `apply` and `create` look at before they send anything.

mod paths;
pub(crate) mod v2;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Patch, Status};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::meta;
use crate::meta::At;
use crate::registry::{Nature, Registry, Resource, api_version};
use crate::status::ApiError;

const META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1";

/// `/openapi/v3`: where the documents are.
pub(crate) fn index(registry: &Registry) -> Value {
    let mut documents = Map::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let prefix = if group.is_empty() { "api" } else { "apis" };
            let path = format!("{prefix}/{}", api_version(group, version));
            documents.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}")}));
        }
    }
    json!({"paths": documents})
}

/// The document of one group and version.
pub(crate) fn document(registry: &Registry, group: &str, version: &str) -> Result<Value, ApiError> {
    let resources: Vec<_> = registry.of_version(group, version).collect();
    if resources.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let mut generator = generator();
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for resource in resources {
        match &resource.nature {
            Nature::Builtin(builtin) => builtin.openapi(&mut generator),
            Nature::Custom { raw_schema } => drop(schemas.insert(component(resource), custom(raw_schema))),
        }
        schemas.insert(list_component(resource), list(resource));
        paths::add(resource, &mut paths);
    }
    schemas.extend(generator.take_definitions(true));
    for resource in registry.of_version(group, version) {
        if let Some(schema) = schemas.get_mut(&component(resource)) {
            meta::put(schema, "x-kubernetes-group-version-kind", json!([kind(resource)]));
        }
    }
    Ok(json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// Knows the types that every document refers to.
fn generator() -> SchemaGenerator {
    let mut generator = SchemaSettings::openapi3().into_generator();
    generator.subschema_for::<ObjectMeta>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<Patch>();
    generator.subschema_for::<Status>();
    generator
}

/// The name of a resource's schema: `dev.example.v1.Widget`, `io.k8s.api.core.v1.Secret`.
fn component(resource: &Resource) -> String {
    let (version, kind) = (&resource.version, &resource.kind);
    let package = match resource.group.as_str() {
        _ if resource.is_custom() => resource.group.rsplit('.').collect::<Vec<_>>().join("."),
        "" => "io.k8s.api.core".to_owned(),
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
        group => format!("io.k8s.api.{}", group.trim_end_matches(".k8s.io")),
    };
    format!("{package}.{version}.{kind}")
}

fn list_component(resource: &Resource) -> String {
    format!("{}List", component(resource))
}

fn kind(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

/// As Kubernetes describes the fields that every object has.
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
    convert recognized schemas to the latest internal value, and may reject unrecognized values.";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer \
    this from the endpoint the client submits requests to. Cannot be updated. In CamelCase.";
const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

fn described(what: &str, anchor: &str) -> String {
    format!("{what} More info: {CONVENTIONS}{anchor}")
}

/// Spells out what `x-kubernetes-int-or-string` means, for readers that know only JSON Schema.
fn int_or_string(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
                fields.entry("anyOf").or_insert_with(|| json!([{"type": "integer"}, {"type": "string"}]));
            }
            fields.values_mut().for_each(int_or_string);
        }
        Value::Array(items) => items.iter_mut().for_each(int_or_string),
        _ => {}
    }
}

/// The definition's schema with the fields that every object has.
fn custom(raw: &Value) -> Value {
    let mut schema = raw.clone();
    int_or_string(&mut schema);
    let mut properties = raw.at("properties").as_object().cloned().unwrap_or_default();
    properties.values_mut().for_each(int_or_string);
    let text = |about: &str, anchor: &str| json!({"type": "string", "description": described(about, anchor)});
    properties.insert("apiVersion".to_owned(), text(API_VERSION, "#resources"));
    properties.insert("kind".to_owned(), text(KIND, "#types-kinds"));
    let metadata = json!({"description": described("Standard object's metadata.", "#metadata"),
        "allOf": [{"$ref": format!("{META}.ObjectMeta")}]});
    properties.insert("metadata".to_owned(), metadata);
    meta::put(&mut schema, "type", json!("object"));
    meta::put(&mut schema, "properties", Value::Object(properties));
    schema
}

fn list(resource: &Resource) -> Value {
    json!({
        "type": "object", "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": described(API_VERSION, "#resources")},
            "kind": {"type": "string", "description": described(KIND, "#types-kinds")},
            "items": {"type": "array", "description": described(&format!("List of {}.", resource.plural), ""),
                "items": {"$ref": format!("#/components/schemas/{}", component(resource))}},
            "metadata": {"description": described("Standard list metadata.", "#types-kinds"),
                "allOf": [{"$ref": format!("{META}.ListMeta")}]},
        },
        "x-kubernetes-group-version-kind":
            [{"group": resource.group, "version": resource.version, "kind": resource.list_kind}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_within_a_document_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let registry = Registry::new([].into_iter(), &[]);
        for (group, versions) in registry.groups() {
            let document = document(&registry, group, versions[0]).unwrap();
            let mut found = Vec::new();
            references(&document, &mut found);
            for reference in found {
                let pointer = reference.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{group}: {reference}");
            }
            for resource in registry.of_version(group, versions[0]) {
                let name = component(resource);
                assert!(document["components"]["schemas"][&name].is_object(), "{name}");
            }
        }
    }
}
