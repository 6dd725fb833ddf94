//! `ObjectMeta`, which every object has and no definition spells out.

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::meta;
use crate::meta::At;

static OBJECT_META: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<ObjectMeta>().to_value();
    // What the published types do not say: how these lists merge.
    if let Some(finalizers) = schema.pointer_mut("/properties/finalizers") {
        meta::put(finalizers, "x-kubernetes-list-type", json!("set"));
    }
    if let Some(owners) = schema.pointer_mut("/properties/ownerReferences") {
        meta::put(owners, "x-kubernetes-list-type", json!("map"));
        meta::put(owners, "x-kubernetes-list-map-keys", json!(["uid"]));
    }
    // Their own check says it in other words.
    let reference = schema.pointer_mut("/properties/ownerReferences/items").and_then(Value::as_object_mut);
    reference.map(|reference| reference.shift_remove("required"));
    schema
});

/// The schema with `ObjectMeta` as its metadata. What a definition says of the name stays.
pub(crate) fn with_object_meta(schema: Value) -> Value {
    // A schema that is none says nothing.
    let mut schema = if schema.is_object() { schema } else { json!({}) };
    let mut metadata = OBJECT_META.clone();
    if let Some(properties) = metadata.get_mut("properties") {
        for field in ["name", "generateName"] {
            let own = schema.at("properties").at("metadata").at("properties").at(field);
            if own.is_object() {
                meta::put(properties, field, own.clone());
            }
        }
    }
    let mut properties = schema.at("properties").as_object().cloned().unwrap_or_default();
    properties.insert("metadata".to_owned(), metadata);
    meta::put(&mut schema, "properties", Value::Object(properties));
    schema
}

/// An object of which only the metadata is known.
pub(crate) fn open_object() -> Value {
    with_object_meta(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))
}
