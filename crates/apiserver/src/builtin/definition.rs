//! `CustomResourceDefinition`: what is checked when one is written, and the status that says it is served.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::meta;
use crate::meta::At;
use crate::registry::{default_definition, from_definition};
use crate::status::{Cause, MOST};

/// As many versions as a definition may have: each has a schema of its own in memory.
const VERSIONS: usize = 100;

pub(super) fn prepare(new: &mut Value, old: Option<&Value>, now: jiff::Timestamp) {
    default_definition(new);
    let since = old.and_then(|old| old.at("status").at("conditions").get(0)?.at("lastTransitionTime").as_str());
    let since = since.map_or_else(|| meta::time(now), |since| json!(since));
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "lastTransitionTime": since, "reason": reason, "message": message});
    let versions = new.at("spec").at("versions").as_array().into_iter().flatten();
    let stored: Vec<_> =
        versions.filter(|version| version.at("storage") == true).map(|version| version.at("name").clone()).collect();
    let status = json!({
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": new.at("spec").at("names"),
        "storedVersions": stored,
    });
    meta::put(new, "status", status);
}

pub(super) fn check(new: &Value) -> Vec<Cause> {
    let spec = new.at("spec");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut causes = Vec::new();
    if !["", "Cluster", "Namespaced"].contains(&spec.at("scope").as_str().unwrap_or_default()) {
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {}: supported values: \"Cluster\", \"Namespaced\"", spec.at("scope")),
            field: "spec.scope".to_owned(),
        });
    }
    for field in ["group", "scope"] {
        if text(spec.at(field)).is_empty() {
            causes.push(Cause::required(format!("spec.{field}"), ""));
        }
    }
    for field in ["plural", "kind"] {
        if text(spec.at("names").at(field)).is_empty() {
            causes.push(Cause::required(format!("spec.names.{field}"), ""));
        }
    }
    let expected = format!("{}.{}", text(spec.at("names").at("plural")), text(spec.at("group")));
    if meta::name(new) != expected {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", new.at("metadata").at("name"), why));
    }
    if spec.at("conversion").at("strategy") != "None" {
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {}: supported values: \"None\"", spec.at("conversion").at("strategy")),
            field: "spec.conversion.strategy".to_owned(),
        });
    }
    let versions = spec.at("versions").as_array().map_or(&[] as &[Value], Vec::as_slice);
    if versions.iter().filter(|version| version.at("storage") == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", spec.at("versions"), why));
    }
    let mut names = HashSet::new();
    if !versions.iter().all(|version| names.insert(version.at("name").as_str())) {
        causes.push(Cause::invalid("spec.versions", spec.at("versions"), "must contain unique version names"));
    }
    for (index, version) in versions.iter().enumerate() {
        if causes.len() > MOST {
            break;
        }
        if !version.at("schema").at("openAPIV3Schema").is_object() {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            causes.push(Cause::required(field, ""));
        }
        // What is the same in all versions, as it is in one, Kubernetes looks for at the top.
        let place = if versions.len() == 1 { "spec".to_owned() } else { format!("spec.versions[{index}]") };
        causes.extend(check_scale(version.at("subresources").at("scale"), &place));
        causes.extend(check_selectable(version, &place));
    }
    if versions.len() > VERSIONS {
        let message = format!("Too many: {}: must have at most {VERSIONS} items", versions.len());
        causes.push(Cause { reason: "FieldValueTooMany", message, field: "spec.versions".to_owned() });
    } else if let Err(error) = from_definition(new) {
        causes.push(Cause::invalid(error.path, "\"schema\"", error.why));
    }
    causes
}

fn check_scale(scale: &Value, place: &str) -> Vec<Cause> {
    if !scale.is_object() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    for (field, homes) in [
        ("specReplicasPath", &[".spec."] as &[&str]),
        ("statusReplicasPath", &[".status."]),
        ("labelSelectorPath", &[".spec.", ".status."]),
    ] {
        let at = format!("{place}.subresources.scale.{field}");
        match scale.at(field).as_str().unwrap_or_default() {
            "" if field == "labelSelectorPath" => {}
            "" => causes.push(Cause::required(at, "")),
            path if homes.iter().any(|home| path.starts_with(home)) => {}
            path => {
                let homes: Vec<_> = homes.iter().map(|home| home.trim_end_matches('.')).collect();
                let why = format!("should be a json path under {}", homes.join(" or "));
                causes.push(Cause::invalid(at, json!(path), why));
            }
        }
    }
    causes
}

/// A field selector compares text: only fields that are one can be selected by.
fn check_selectable(version: &Value, place: &str) -> Vec<Cause> {
    let fields = version.at("selectableFields").as_array().into_iter().flatten().enumerate();
    let wrong = |(index, field): (usize, &Value)| {
        let path = field.at("jsonPath").as_str().unwrap_or_default();
        let at = format!("{place}.selectableFields[{index}].jsonPath");
        if path.is_empty() {
            return Some(Cause::required(at, ""));
        }
        let schema = version.at("schema").at("openAPIV3Schema");
        let names = path.strip_prefix('.').unwrap_or_default().split('.');
        let found = names.fold(schema, |schema, name| schema.at("properties").at(name));
        let why = match found.at("type").as_str() {
            Some("string" | "boolean" | "integer") => return None,
            Some(_) => {
                "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                        formats are allowed."
            }
            None => "is an invalid path: does not refer to a valid field",
        };
        Some(Cause::invalid(at, json!(path), why))
    };
    fields.filter_map(wrong).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({"metadata": {"name": "things.example.dev"}, "spec": {
            "group": "example.dev", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    }

    #[test]
    fn a_good_definition_is_established_with_its_names_filled_in() {
        let mut good = definition();
        prepare(&mut good, None, jiff::Timestamp::UNIX_EPOCH);
        assert!(check(&good).is_empty(), "{:?}", check(&good));
        assert_eq!(good["status"]["acceptedNames"]["listKind"], "ThingList");
        assert_eq!(good["status"]["conditions"][1]["type"], "Established");
    }

    #[test]
    fn conversion_by_webhook_is_refused_by_the_name_of_its_field() {
        let mut bad = definition();
        bad["spec"]["conversion"] = json!({"strategy": "Webhook"});
        prepare(&mut bad, None, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(check(&bad)[0].field, "spec.conversion.strategy");
    }
}
