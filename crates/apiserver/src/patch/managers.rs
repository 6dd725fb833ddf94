//! `metadata.managedFields`: who has a say in which fields.
//!
//! A write that is not an apply owns what it changes and takes it from everyone else. An apply owns all that it says,
//! meets a conflict where another manager holds a field at another value, and lets go of what it no longer says: that
//! goes from the object unless somebody else holds it too.

use serde_json::{Value, json};

use super::apply;
use super::fields::FieldSet;
use crate::meta;
use crate::meta::At;
use crate::schema::Schema;
use crate::status::{ApiError, Cause, Details, MOST};

/// Who writes, and how the write is to be booked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) api_version: &'a str,
    /// `""`, `status` or `scale`
    pub(crate) subresource: &'a str,
    /// The resource keeps its status apart, so that other writes never touch it.
    pub(crate) has_status: bool,
    /// `metav1.Time`
    pub(crate) now: &'a Value,
}

/// One entry of `managedFields`.
#[derive(Clone)]
struct Entry {
    raw: Value,
    fields: FieldSet,
}

impl Entry {
    fn all(object: &Value) -> Vec<Self> {
        Self::all_of(object.at("metadata").at("managedFields"))
    }

    fn all_of(entries: &Value) -> Vec<Self> {
        let entries = entries.as_array().into_iter().flatten().filter(|entry| entry.at("manager").is_string());
        entries.map(|raw| Self { raw: raw.clone(), fields: FieldSet::parse(raw.at("fieldsV1")) }).collect()
    }

    fn is(&self, writer: &Writer<'_>, operation: &str) -> bool {
        self.raw.at("manager") == writer.manager
            && self.raw.at("operation") == operation
            && self.raw.at("subresource").as_str().unwrap_or_default() == writer.subresource
    }
}

impl Writer<'_> {
    /// Kubernetes gives what is written through `/scale` no time.
    fn is_timed(&self) -> bool {
        self.subresource != "scale"
    }

    fn entry(&self, operation: &str, fields: FieldSet) -> Entry {
        let mut raw = json!({
            "manager": self.manager, "operation": operation, "apiVersion": self.api_version, "time": self.now,
            "fieldsType": "FieldsV1",
        });
        if !self.subresource.is_empty() {
            meta::put(&mut raw, "subresource", json!(self.subresource));
        }
        if !self.is_timed()
            && let Some(fields) = raw.as_object_mut()
        {
            fields.shift_remove("time");
        }
        Entry { raw, fields }
    }

    /// Leaves out what is identity, and what this kind of write cannot change.
    fn relevant(&self, mut set: FieldSet) -> FieldSet {
        set.remove_field("apiVersion");
        set.remove_field("kind");
        if self.subresource == "status" {
            set.keep_field("status");
        } else if self.has_status {
            set.remove_field("status");
        }
        if let Some(metadata) = set.field_mut("metadata") {
            metadata.disown();
            let identity = [
                "name",
                "namespace",
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "managedFields",
                "selfLink",
            ];
            for field in identity {
                metadata.remove_field(field);
            }
            if metadata.is_empty() {
                set.remove_field("metadata");
            }
        }
        set
    }
}

/// Books a write that is not an apply. For a new object `old` is what a typed object of its kind holds from the start.
/// `given` are the entries that the writer itself wrote, where it wrote other ones: so clients hand fields over.
pub(crate) fn book_update(
    old: &Value,
    new: &mut Value,
    given: Option<&Value>,
    schema: Option<&Schema>,
    writer: &Writer<'_>,
) {
    let changed = writer.relevant(FieldSet::changed(old, new, schema));
    let mut entries = given.map_or_else(|| Entry::all(old), Entry::all_of);
    for entry in &mut entries {
        if !entry.is(writer, "Update") {
            entry.fields.subtract(&changed);
        }
    }
    if !changed.is_empty() {
        match entries.iter_mut().find(|entry| entry.is(writer, "Update")) {
            Some(mine) => {
                let before = mine.fields.clone();
                mine.fields.union(&changed);
                if mine.fields != before && writer.is_timed() {
                    meta::put(&mut mine.raw, "time", writer.now.clone());
                }
            }
            None => entries.push(writer.entry("Update", changed)),
        }
    }
    store(new, entries, schema);
}

/// What an apply makes of an object.
pub(crate) struct Applied {
    pub(crate) object: Value,
    entries: Vec<Entry>,
}

/// Merges what a manager applies, or tells with whom it conflicts. `current` is null for a new object.
pub(crate) fn apply(
    current: &Value,
    applied: &Value,
    schema: Option<&Schema>,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, Conflict> {
    let wanted = writer.relevant(FieldSet::of(applied, schema));
    let mut entries = Entry::all(current);
    let position = entries.iter().position(|entry| entry.is(writer, "Apply"));
    let mine = position.map(|position| entries.remove(position));
    // Fields that the merge would change are those at another value.
    let merged = apply::merged(current, applied, schema);
    let contested = FieldSet::changed(current, &merged, schema).intersection(&wanted);
    let mut conflicts = Vec::new();
    for entry in &mut entries {
        let lost = entry.fields.intersection(&contested);
        if lost.has_places() {
            entry.fields.subtract(&lost);
            conflicts.push((entry.raw.clone(), lost));
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(Conflict(conflicts));
    }
    let mut object = merged;
    if let Some(mine) = &mine {
        let mut kept = wanted.clone();
        for entry in &entries {
            kept.union(&entry.fields);
        }
        apply::remove(&mut object, &mine.fields, &kept, schema);
    }
    let entry = match mine {
        Some(mine) if mine.fields == wanted => mine,
        _ => writer.entry("Apply", wanted),
    };
    entries.insert(position.unwrap_or(entries.len()), entry);
    Ok(Applied { object, entries })
}

/// Books an apply on the object that came of it.
pub(crate) fn book_apply(applied: Vec<Value>, new: &mut Value) {
    meta::set(new, "managedFields", Value::Array(applied));
}

impl Applied {
    /// The entries as they are written, for [`book_apply`].
    pub(crate) fn entries(&self) -> Vec<Value> {
        written(&self.entries)
    }
}

/// Applies before updates, each in the order of their times.
fn written(entries: &[Entry]) -> Vec<Value> {
    let mut held: Vec<_> = entries.iter().filter(|entry| !entry.fields.is_empty()).collect();
    let order = ["operation", "time", "manager", "apiVersion", "subresource"];
    held.sort_by_key(|entry| order.map(|field| entry.raw.at(field).as_str().unwrap_or_default().to_owned()));
    held.into_iter()
        .map(|entry| {
            let mut raw = entry.raw.clone();
            meta::put(&mut raw, "fieldsV1", entry.fields.to_json());
            // The status entry says so last, as Kubernetes writes it.
            if let Some(subresource) = raw.as_object_mut().and_then(|raw| raw.shift_remove("subresource")) {
                meta::put(&mut raw, "subresource", subresource);
            }
            raw
        })
        .collect()
}

fn store(new: &mut Value, mut entries: Vec<Entry>, schema: Option<&Schema>) {
    for entry in &mut entries {
        entry.fields.retain_existing(new, schema);
    }
    let entries = written(&entries);
    if entries.is_empty() {
        meta::remove(new, "managedFields");
    } else {
        meta::set(new, "managedFields", Value::Array(entries));
    }
}

/// What others hold of that which was applied: their entries, each with what it would lose.
#[derive(Debug)]
pub(crate) struct Conflict(Vec<(Value, FieldSet)>);

impl Conflict {
    pub(crate) fn lost(&self) -> impl Iterator<Item = &FieldSet> {
        self.0.iter().map(|(_, lost)| lost)
    }
}

impl From<Conflict> for ApiError {
    fn from(Conflict(conflicts): Conflict) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let shown = |entry: &Value| {
            let subresource = match text(entry.at("subresource")) {
                none if none.is_empty() => none,
                subresource => format!(" with subresource \"{subresource}\""),
            };
            let using = match text(entry.at("operation")).as_str() {
                "Apply" => String::new(),
                _ => format!(" using {}", text(entry.at("apiVersion"))),
            };
            format!("\"{}\"{subresource}{using}", text(entry.at("manager")))
        };
        let conflicts: Vec<_> = conflicts.iter().take(MOST).map(|(entry, lost)| (shown(entry), lost.paths())).collect();
        let causes = conflicts.iter().flat_map(|(holder, paths)| {
            let message = format!("conflict with {holder}");
            paths.iter().map(move |path| Cause {
                reason: "FieldManagerConflict",
                message: message.clone(),
                field: path.clone(),
            })
        });
        let causes: Vec<Cause> = causes.take(MOST).collect();
        let message = if let [one] = causes.as_slice() {
            format!("Apply failed with 1 conflict: {}: {}", one.message, one.field)
        } else {
            let mut lines = Vec::new();
            let mut room = MOST;
            for (holder, paths) in &conflicts {
                lines.push(format!("conflicts with {holder}:"));
                lines.extend(paths.iter().take(room).map(|path| format!("- {path}")));
                room = room.saturating_sub(paths.len());
            }
            format!("Apply failed with {} conflicts: {}", causes.len(), lines.join("\n"))
        };
        let details = Details { causes, ..Details::default() };
        Self { details: Some(Box::new(details)), ..Self::new(409, "Conflict", message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer<'a>(manager: &'a str, now: &'a Value) -> Writer<'a> {
        Writer { manager, api_version: "g/v1", subresource: "", has_status: true, now }
    }

    #[allow(clippy::needless_pass_by_value, reason = "reads better where it is called")]
    fn applied(current: &Value, by: &str, wanted: Value, force: bool) -> Result<Value, ApiError> {
        let now = json!("now");
        let result = apply(current, &wanted, None, &writer(by, &now), force).map_err(ApiError::from)?;
        let entries = result.entries();
        let mut object = result.object;
        book_apply(entries, &mut object);
        Ok(object)
    }

    #[test]
    fn what_a_manager_no_longer_says_goes_unless_another_holds_it() {
        let one = applied(&json!({}), "a", json!({"spec": {"x": 1, "y": 1, "z": 1}}), false).unwrap();
        let two = applied(&one, "b", json!({"spec": {"y": 1}}), false).unwrap();
        let three = applied(&two, "a", json!({"spec": {"x": 1}}), false).unwrap();
        assert_eq!(three["spec"], json!({"x": 1, "y": 1}));
    }

    #[test]
    fn another_managers_field_at_another_value_is_a_conflict_that_force_wins() {
        let one = applied(&json!({}), "a", json!({"spec": {"x": 1}}), false).unwrap();
        let error = applied(&one, "b", json!({"spec": {"x": 2}}), false).unwrap_err();
        assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.x");
        let two = applied(&one, "b", json!({"spec": {"x": 2}}), true).unwrap();
        assert_eq!(two["spec"], json!({"x": 2}));
        assert_eq!(two["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let one = applied(&json!({}), "a", json!({"spec": {"x": 1}}), false).unwrap();
        assert_eq!(applied(&one, "a", json!({"spec": {"x": 1}}), false).unwrap(), one);
    }

    #[test]
    fn an_update_owns_what_it_changes_and_takes_it_from_the_applier() {
        let now = json!("now");
        let one = applied(&json!({}), "a", json!({"spec": {"x": 1, "y": 1}}), false).unwrap();
        let mut two = one.clone();
        two["spec"]["x"] = json!(2);
        book_update(&one, &mut two, None, None, &writer("editor", &now));
        let entries = &two["metadata"]["managedFields"];
        assert_eq!(entries[0]["fieldsV1"], json!({"f:spec": {"f:y": {}}}));
        assert_eq!(
            (&entries[1]["manager"], &entries[1]["fieldsV1"]),
            (&json!("editor"), &json!({"f:spec": {"f:x": {}}}))
        );
        let error = applied(&two, "a", json!({"spec": {"x": 1, "y": 1}}), false).unwrap_err();
        assert!(error.message.contains("conflict with \"editor\""), "{}", error.message);
    }
}
