//! What is served, as documents: the legacy ones that every client reads, and the aggregated one of newer clients.

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Value, json};

use crate::meta;
use crate::negotiate::{json_reply, json_reply_as};
use crate::registry::{Registry, Resource, api_version};
use crate::status::ApiError;

/// The Kubernetes version whose behaviour is followed.
const MINOR: &str = "33";

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0+oncelet"), "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// Whether the client reads the aggregated document. `v2beta1`, which older ones ask for, is not served.
fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|offer| {
        let has = |parameter: &str| offer.split(';').any(|part| part.trim() == parameter);
        has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    })
}

fn aggregated(registry: &Registry, legacy: bool) -> Response<Body> {
    let groups = registry.groups();
    let items: Vec<Value> = groups
        .into_iter()
        .filter(|(group, _)| group.is_empty() == legacy)
        .map(|(group, versions)| {
            let versions: Vec<_> = versions
                .into_iter()
                .map(|version| {
                    let resources: Vec<_> =
                        registry.of_version(group, version).map(|one| aggregated_resource(one)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if legacy { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    json_reply_as(200, &document, HeaderValue::from_static(AGGREGATED))
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut subresources = Vec::new();
    if resource.has_status {
        subresources.push(json!({"subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"]}));
    }
    if resource.scale.is_some() {
        let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        subresources.push(json!({"subresource": "scale", "responseKind": scale, "verbs": ["get", "patch", "update"]}));
    }
    for part in &resource.parts {
        subresources.push(json!({"subresource": part, "responseKind": kind, "verbs": ["get"]}));
    }
    json!({
        "resource": resource.plural, "responseKind": kind, "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs(), "shortNames": resource.short_names,
        "categories": resource.categories, "subresources": subresources,
    })
}

fn negotiated(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

pub(crate) fn legacy_versions(registry: &Registry, headers: &HeaderMap) -> Response<Body> {
    if wants_aggregated(headers) {
        return negotiated(aggregated(registry, true));
    }
    let document = json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []});
    negotiated(json_reply(200, &document))
}

pub(crate) fn groups(registry: &Registry, headers: &HeaderMap) -> Response<Body> {
    if wants_aggregated(headers) {
        return negotiated(aggregated(registry, false));
    }
    let groups = registry.groups();
    let named = groups.iter().filter(|(group, _)| !group.is_empty());
    let groups: Vec<_> = named.map(|(group, versions)| group_document(group, versions)).collect();
    negotiated(json_reply(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
}

pub(crate) fn group(registry: &Registry, wanted: &str) -> Result<Response<Body>, ApiError> {
    let groups = registry.groups();
    let found = groups.iter().find(|(group, _)| !group.is_empty() && *group == wanted);
    let (group, versions) = found.ok_or_else(ApiError::no_such_path)?;
    let mut document = group_document(group, versions);
    meta::put(&mut document, "kind", json!("APIGroup"));
    meta::put(&mut document, "apiVersion", json!("v1"));
    Ok(json_reply(200, &document))
}

fn group_document(group: &str, versions: &[&str]) -> Value {
    let version = |version: &&str| json!({"groupVersion": api_version(group, version), "version": version});
    let all: Vec<_> = versions.iter().map(version).collect();
    json!({"name": group, "versions": all, "preferredVersion": all.first()})
}

pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Result<Response<Body>, ApiError> {
    let mut list = Vec::new();
    for resource in registry.of_version(group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs(),
        });
        if !resource.short_names.is_empty() {
            meta::put(&mut entry, "shortNames", json!(resource.short_names));
        }
        if !resource.categories.is_empty() {
            meta::put(&mut entry, "categories", json!(resource.categories));
        }
        list.push(entry);
        if resource.has_status {
            list.push(json!({
                "name": format!("{}/status", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "kind": resource.kind, "verbs": ["get", "patch", "update"],
            }));
        }
        if resource.scale.is_some() {
            list.push(json!({
                "name": format!("{}/scale", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"],
            }));
        }
        for part in &resource.parts {
            list.push(json!({
                "name": format!("{}/{part}", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "kind": resource.kind, "verbs": ["get"],
            }));
        }
    }
    if list.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let document = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": list,
    });
    Ok(json_reply(200, &document))
}
