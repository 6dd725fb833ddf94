//! The operations of a resource: clients look here for what a verb takes.

use serde_json::{Map, Value, json};

use super::{META, component, kind, list_component};
use crate::meta;
use crate::registry::Resource;

/// What an operation does to its object, as `x-kubernetes-action` names it.
#[derive(Clone, Copy)]
enum Action {
    List,
    Get,
    Post,
    Put,
    Patch,
    Delete,
    DeleteCollection,
}

pub(super) fn add(resource: &Resource, paths: &mut Map<String, Value>) {
    use Action::{Delete, DeleteCollection, Get, List, Patch, Post, Put};
    let prefix = if resource.group.is_empty() { "/api" } else { "/apis" };
    let base = format!("{prefix}/{}", resource.api_version());
    let plural = &resource.plural;
    let place = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{base}/{plural}")
    };
    let mut add = |path: String, parameters: &[&str], actions: &[Action]| {
        let parameters: Vec<_> = parameters.iter().map(|name| path_parameter(name)).collect();
        let mut item = json!({"parameters": parameters});
        for action in actions {
            meta::put(&mut item, action.method(), operation(resource, *action));
        }
        paths.insert(path, item);
    };
    if resource.verbs() == ["create"] {
        return add(place, &[], &[Post]);
    }
    let namespace: &[&str] = if resource.namespaced { &["namespace"] } else { &[] };
    let named = [&["name"], namespace].concat();
    add(place.clone(), namespace, &[List, Post, DeleteCollection]);
    add(format!("{place}/{{name}}"), &named, &[Get, Put, Patch, Delete]);
    if resource.has_status {
        add(format!("{place}/{{name}}/status"), &named, &[Get, Put, Patch]);
    }
    if resource.namespaced {
        add(format!("{base}/{plural}"), &[], &[List]);
    }
}

impl Action {
    fn method(self) -> &'static str {
        match self {
            Self::List | Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete | Self::DeleteCollection => "delete",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::DeleteCollection => "deletecollection",
            other => other.method(),
        }
    }

    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::List => &[
                "allowWatchBookmarks",
                "continue",
                "fieldSelector",
                "labelSelector",
                "limit",
                "resourceVersion",
                "resourceVersionMatch",
                "sendInitialEvents",
                "timeoutSeconds",
                "watch",
            ],
            Self::Get => &["pretty"],
            Self::Post | Self::Put => &["dryRun", "fieldManager", "fieldValidation"],
            Self::Patch => &["dryRun", "fieldManager", "fieldValidation", "force"],
            Self::Delete | Self::DeleteCollection => &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
        }
    }
}

fn operation(resource: &Resource, action: Action) -> Value {
    let reference = |name: String| json!({"$ref": format!("#/components/schemas/{name}")});
    let content = |schema: Value| json!({"application/json": {"schema": schema}});
    let answer = match action {
        Action::List => reference(list_component(resource)),
        Action::Delete | Action::DeleteCollection => json!({"$ref": format!("{META}.Status")}),
        _ => reference(component(resource)),
    };
    let parameters: Vec<_> = action.parameters().iter().map(|name| query_parameter(name)).collect();
    let mut operation = json!({
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": content(answer)}},
        "x-kubernetes-action": action.name(),
        "x-kubernetes-group-version-kind": kind(resource),
    });
    let body = match action {
        Action::Post | Action::Put => Some(content(reference(component(resource)))),
        Action::Patch => {
            let schema = json!({"schema": {"$ref": format!("{META}.Patch")}});
            let strategic = (!resource.is_custom()).then_some("application/strategic-merge-patch+json");
            let types = ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
            Some(types.into_iter().chain(strategic).map(|name| (name.to_owned(), schema.clone())).collect())
        }
        Action::Delete | Action::DeleteCollection => Some(content(json!({"$ref": format!("{META}.DeleteOptions")}))),
        Action::List | Action::Get => None,
    };
    if let Some(body) = body {
        meta::put(&mut operation, "requestBody", json!({"content": body}));
    }
    operation
}

fn path_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
}

fn query_parameter(name: &str) -> Value {
    let ty = match name {
        "allowWatchBookmarks" | "sendInitialEvents" | "watch" | "force" => "boolean",
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}})
}
