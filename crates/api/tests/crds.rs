//! What the CRDs promise to `kubectl explain`, and that the API server will take them.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;

fn schemas() -> Vec<(String, Value)> {
    oncelet_api::crds()
        .iter()
        .map(|crd| {
            let version = serde_json::to_value(&crd.spec.versions[0]).unwrap();
            (crd.spec.names.kind.clone(), version["schema"]["openAPIV3Schema"].clone())
        })
        .collect()
}

fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    if !schema["items"].is_null() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
}

#[test]
fn every_field_is_described() {
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, schema| {
            let scalar_item = path.ends_with("[]") && schema["properties"].is_null();
            assert!(scalar_item || schema["description"].is_string(), "{path} has no description");
        });
    }
}

/// The wish to end something comes while it runs, and that to begin may come late; how an image is got changes nothing.
const MUTABLE: &[(&str, &str)] =
    &[("ContainerExec", "stop"), ("Container", "start"), ("Container", "stop"), ("Container", "pullPolicy")];

#[test]
fn every_field_of_a_spec_is_immutable_but_for_wishes_that_come_later() {
    for (kind, schema) in schemas() {
        let spec = &schema["properties"]["spec"];
        let rules = spec["x-kubernetes-validations"].as_array().unwrap();
        for field in spec["properties"].as_object().unwrap().keys() {
            let mutable = MUTABLE.contains(&(&kind, field));
            let guarded = rules.iter().any(|rule| {
                rule["fieldPath"] == format!(".{field}") && rule["rule"].as_str().unwrap().contains("oldSelf")
            });
            assert!(guarded != mutable, "{kind}: spec.{field} may change: {}", !guarded);
        }
    }
}

/// A format that Kubernetes does not know makes it warn at every apply of the CRD.
#[test]
fn only_formats_that_kubernetes_knows_are_used() {
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, schema| {
            let format = schema["format"].as_str();
            assert!(matches!(format, None | Some("int32" | "int64" | "date-time")), "{path} has the format {format:?}");
        });
    }
}

#[test]
fn a_manifest_survives_the_round_trip_through_the_types() {
    let manifest = serde_json::json!({
        "apiVersion": "oncelet.dev/v1alpha1",
        "kind": "ContainerExec",
        "metadata": {"name": "seed", "namespace": "default"},
        "spec": {
            "containerName": "db",
            "command": "psql",
            "args": ["-c", "select $(N)"],
            "env": [
                {"name": "N", "value": "1"},
                {"name": "P", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
            ],
            "runPolicy": "Once",
            "onChange": "Rerun",
        },
    });
    let typed: oncelet_api::ContainerExec = serde_json::from_value(manifest.clone()).unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), manifest);
}
