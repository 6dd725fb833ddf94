//! `ObjectMeta`, which every object has and no definition spells out.

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

static OBJECT_META: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<ObjectMeta>().to_value();
    // What the published types do not say: how these lists merge.
    let lists = &mut schema["properties"];
    lists["finalizers"]["x-kubernetes-list-type"] = json!("set");
    lists["ownerReferences"]["x-kubernetes-list-type"] = json!("map");
    lists["ownerReferences"]["x-kubernetes-list-map-keys"] = json!(["uid"]);
    // Their own check says it in other words.
    if let Some(reference) = lists["ownerReferences"]["items"].as_object_mut() {
        reference.shift_remove("required");
    }
    schema
});

/// The schema with `ObjectMeta` as its metadata. What a definition says of the name stays.
pub(crate) fn with_object_meta(mut schema: Value) -> Value {
    let own = schema["properties"]["metadata"]["properties"].clone();
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let mut metadata = OBJECT_META.clone();
    for field in ["name", "generateName"] {
        if own[field].is_object() {
            metadata["properties"][field] = own[field].clone();
        }
    }
    schema["properties"]["metadata"] = metadata;
    schema
}

/// An object of which only the metadata is known.
pub(crate) fn open_object() -> Value {
    with_object_meta(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))
}
