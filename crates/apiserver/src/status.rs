//! Refusals in the shape that Kubernetes clients read: `meta/v1 Status`.

use serde_json::{Map, Value, json};

use crate::body::VALUES;
use crate::place::shown;

/// As many broken rules, unknown fields or conflicts as are told of one object. Who made more mistakes starts with these.
pub(crate) const MOST: usize = 100;

/// Where a rule was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// `FieldValueInvalid` and its siblings.
    pub(crate) reason: &'static str,
    /// Without the field, which the list of causes names beside it.
    pub(crate) message: String,
    /// `spec.replicas`; `<nil>` where no single field is meant.
    pub(crate) field: String,
}

/// What the refused request was about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) uid: String,
    pub(crate) causes: Vec<Cause>,
    pub(crate) retry_after_seconds: u32,
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Option<Box<Details>>,
}

/// The resource that messages name, as `plural.group`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) group: &'a str,
    pub(crate) plural: &'a str,
    pub(crate) kind: &'a str,
}

impl Subject<'_> {
    fn qualified(&self) -> String {
        qualified(self.plural, self.group)
    }

    fn details(&self, name: &str) -> Details {
        Details {
            name: name.to_owned(),
            group: self.group.to_owned(),
            kind: self.plural.to_owned(),
            ..Details::default()
        }
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl ApiError {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn too_many_requests() -> Self {
        let details = Some(Box::new(Details { retry_after_seconds: 1, ..Details::default() }));
        Self { details, ..Self::new(429, "TooManyRequests", "Too many requests, please try again later.") }
    }

    pub(crate) fn forbidden(subject: Subject<'_>, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", subject.qualified());
        Self { details: Some(Box::new(subject.details(name))), ..Self::new(403, "Forbidden", message) }
    }

    /// No such path.
    pub(crate) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// No such object.
    pub(crate) fn not_found(subject: Subject<'_>, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", subject.qualified());
        Self { details: Some(Box::new(subject.details(name))), ..Self::new(404, "NotFound", message) }
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self { details: Some(Box::default()), ..Self::new(405, "MethodNotAllowed", message) }
    }

    pub(crate) fn not_acceptable(offered: &str) -> Self {
        let message = format!("only the following media types are accepted: {offered}");
        Self::new(406, "NotAcceptable", message)
    }

    pub(crate) fn already_exists(subject: Subject<'_>, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", subject.qualified());
        Self { details: Some(Box::new(subject.details(name))), ..Self::new(409, "AlreadyExists", message) }
    }

    /// What cannot be answered although nobody did anything wrong.
    pub(crate) fn internal(why: String) -> Self {
        let message = format!("Internal error occurred: {why}");
        let cause = Cause { reason: "", message: why, field: String::new() };
        let details = Details { causes: vec![cause], ..Details::default() };
        Self { details: Some(Box::new(details)), ..Self::new(500, "InternalError", message) }
    }

    pub(crate) fn conflict(subject: Subject<'_>, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", subject.qualified());
        Self { details: Some(Box::new(subject.details(name))), ..Self::new(409, "Conflict", message) }
    }

    /// An option of the request that is not one of `supported`; `options` is `CreateOptions` or a sibling.
    pub(crate) fn unsupported_option(options: &str, field: &str, given: &Value, supported: &[&str]) -> Self {
        let supported: Vec<_> = supported.iter().map(|one| format!("\"{one}\"")).collect();
        let cause = Cause {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {given}: supported values: {}", supported.join(", ")),
            field: field.to_owned(),
        };
        Self::invalid(Subject { group: "meta.k8s.io", plural: "", kind: options }, "", vec![cause])
    }

    /// The writer's `resourceVersion` is not the stored one.
    pub(crate) fn modified_since(subject: Subject<'_>, name: &str) -> Self {
        Self::conflict(
            subject,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    pub(crate) fn too_many_values() -> Self {
        let message = format!("Request entity too large: it has more than {VALUES} values");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub(crate) fn unsupported_media_type(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// One or more broken rules; `causes` must not be empty.
    pub(crate) fn invalid(subject: Subject<'_>, name: &str, mut causes: Vec<Cause>) -> Self {
        let untold = causes.len() > MOST;
        causes.truncate(MOST);
        let mut texts: Vec<String> = Vec::new();
        for cause in &causes {
            let text = format!("{}: {}", cause.field, cause.message);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        if untold {
            texts.push(format!("and more: only the first {MOST} are told"));
        }
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {list}", qualified(subject.kind, subject.group));
        let mut details = subject.details(name);
        subject.kind.clone_into(&mut details.kind);
        details.causes = causes;
        Self { details: Some(Box::new(details)), ..Self::new(422, "Invalid", message) }
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            crate::meta::put(&mut status, "reason", json!(self.reason));
        }
        if let Some(details) = &self.details {
            crate::meta::put(&mut status, "details", details.to_json());
        }
        crate::meta::put(&mut status, "code", json!(self.code));
        status
    }
}

impl Details {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (field, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !value.is_empty() {
                out.insert(field.to_owned(), json!(value));
            }
        }
        if !self.causes.is_empty() {
            let causes: Vec<_> = self.causes.iter().map(Cause::to_json).collect();
            out.insert("causes".to_owned(), Value::Array(causes));
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        Value::Object(out)
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let fields = [("reason", self.reason), ("message", &self.message), ("field", &self.field)];
        fields
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name.to_owned(), json!(text)))
            .collect()
    }
}

/// What a deletion answers when there is nothing left to show.
pub(crate) fn success(subject: Subject<'_>, name: &str, uid: &str) -> Value {
    let details = Details { uid: uid.to_owned(), ..subject.details(name) };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_json()})
}

impl Cause {
    pub(crate) fn invalid(
        field: impl Into<String>,
        value: impl std::fmt::Display,
        why: impl std::fmt::Display,
    ) -> Self {
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: {why}", shown(value)),
            field: field.into(),
        }
    }

    /// For values too large to repeat: objects and lists.
    pub(crate) fn invalid_whole(field: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self { reason: "FieldValueInvalid", message: format!("Invalid value: {why}"), field: field.into() }
    }

    /// Whether the object is so far from its schema that rules cannot be evaluated on it.
    pub(crate) fn blocks_rules(&self) -> bool {
        [
            "FieldValueNotSupported",
            "FieldValueRequired",
            "FieldValueTooLong",
            "FieldValueTooMany",
            "FieldValueTypeInvalid",
        ]
        .contains(&self.reason)
    }

    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { reason: "FieldValueRequired", message, field: field.into() }
    }

    pub(crate) fn forbidden(field: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self { reason: "FieldValueForbidden", message: format!("Forbidden: {why}"), field: field.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDGETS: Subject<'static> = Subject { group: "example.dev", plural: "widgets", kind: "Widget" };

    #[test]
    fn one_cause_reads_as_a_sentence_and_several_as_a_list() {
        let one = Cause::invalid("spec.a", 1, "no");
        let two = Cause::required("spec.b", "");
        assert_eq!(
            ApiError::invalid(WIDGETS, "w", vec![one.clone()]).message,
            "Widget.example.dev \"w\" is invalid: spec.a: Invalid value: 1: no"
        );
        assert_eq!(
            ApiError::invalid(WIDGETS, "w", vec![one, two]).message,
            "Widget.example.dev \"w\" is invalid: [spec.a: Invalid value: 1: no, spec.b: Required value]"
        );
    }

    #[test]
    fn a_missing_object_is_named_with_its_resource_and_group() {
        let error = ApiError::not_found(WIDGETS, "w").to_json();
        assert_eq!(error["message"], "widgets.example.dev \"w\" not found");
        assert_eq!(error["details"], json!({"name": "w", "group": "example.dev", "kind": "widgets"}));
        assert_eq!(error["code"], 404);
    }
}
