//! One event, two forms: stored as `core/v1`, also served as `events.k8s.io/v1`.

use serde_json::Value;

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

pub(super) fn to_core(event: Value) -> Value {
    rename(event, |name| RENAMED.iter().find(|(_, new)| *new == name).map(|(core, _)| *core))
}

pub(super) fn from_core(event: Value) -> Value {
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
