//! One event, two forms: stored as `core/v1`, also served as `events.k8s.io/v1`.

use serde_json::Value;

use crate::meta;
use crate::meta::At;
use crate::status::Cause;

pub(super) const CORE_SELECTABLE: [&str; 10] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "type",
];

pub(super) const SELECTABLE: [&str; 10] = [
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

/// `core/v1` name, `events.k8s.io/v1` name.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Written out even where they say nothing: typed clients of other languages rely on it.
const ALWAYS: [(&str, &str); 6] = [
    ("source", "{}"),
    ("firstTimestamp", "null"),
    ("lastTimestamp", "null"),
    ("eventTime", "null"),
    ("reportingComponent", "\"\""),
    ("reportingInstance", "\"\""),
];

/// The event as `core/v1` shows it.
pub(super) fn show_core(mut event: Value) -> Value {
    if let Some(fields) = event.as_object_mut() {
        for (field, empty) in ALWAYS {
            if !fields.contains_key(field) {
                fields.insert(field.to_owned(), serde_json::from_str(empty).unwrap_or_default());
            }
        }
    }
    event
}

/// The event as `events.k8s.io/v1` shows it.
pub(super) fn show(event: Value) -> Value {
    let mut event = from_core(show_core(event));
    if let Some(fields) = event.as_object_mut() {
        // Text that says nothing is left out here.
        fields.retain(|name, value| !(name.starts_with("reporting") && *value == ""));
    }
    event
}

/// An event is told where its object is.
pub(super) fn check(event: &Value) -> Vec<Cause> {
    let about = event.at("involvedObject").at("namespace").as_str().unwrap_or_default();
    // What has no namespace is told of in `default`.
    let place = if about.is_empty() { "default" } else { about };
    if place == meta::text(event, "namespace") {
        return Vec::new();
    }
    vec![Cause::invalid("involvedObject.namespace", Value::from(about), "does not match event.namespace")]
}

/// What a new event of `events.k8s.io/v1` must say beside.
pub(super) fn check_new(event: &Value) -> Vec<Cause> {
    let mut causes = check(event);
    if !event.at("eventTime").is_string() {
        causes.push(Cause::required("eventTime", ""));
    }
    let kind = event.at("type").as_str().unwrap_or_default();
    if !["Normal", "Warning"].contains(&kind) {
        causes.push(Cause::invalid("type", Value::from(kind), format!("has invalid value: {kind}")));
    }
    causes
}

pub(super) fn to_core(event: Value) -> Value {
    rename(event, |name| RENAMED.iter().find(|(_, new)| *new == name).map(|(core, _)| *core))
}

fn from_core(event: Value) -> Value {
    rename(event, |name| RENAMED.iter().find(|(core, _)| *core == name).map(|(_, new)| *new))
}

fn rename(event: Value, other: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(fields) = event else { return event };
    fields.into_iter().map(|(name, value)| (other(&name).map_or(name, str::to_owned), value)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_hold_the_same_event() {
        let event = json!({"regarding": {"name": "x"}, "note": "hello", "reportingController": "c", "reason": "R"});
        let core = to_core(event.clone());
        assert_eq!(core["involvedObject"]["name"], "x");
        assert_eq!(core["message"], "hello");
        assert_eq!(from_core(core), event);
    }
}
