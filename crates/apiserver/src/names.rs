//! What names may look like.

use std::collections::HashSet;

use serde_json::Value;

use crate::builtin::Builtin;
use crate::meta;
use crate::meta::At;
use crate::registry::Resource;
use crate::status::{Cause, MOST};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const QUALIFIED: &str = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and \
    end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. \
    'example.com/MyName')";

const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
    'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

pub(crate) const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

pub(crate) fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// `name` or `prefix/name`, as keys of labels and annotations are; says what is wrong with it.
fn wrong_with_qualified(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let (prefix, name) = match text.split_once('/') {
        None => (None, text),
        Some((_, name)) if name.contains('/') => return vec![QUALIFIED.to_owned()],
        Some((prefix, name)) => (Some(prefix), name),
    };
    match prefix {
        Some("") => wrong.push("prefix part must be non-empty".to_owned()),
        Some(prefix) if !is_subdomain(prefix) => wrong.push(format!("prefix part {SUBDOMAIN}")),
        _ => {}
    }
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        wrong.push("name part must be no more than 63 characters".to_owned());
    }
    if name.is_empty() || !is_label_value(name) {
        wrong.push(NAME_PART.to_owned());
    }
    wrong
}

/// What is wrong with the name of a new object, or with the beginning of one that is to be made.
pub(crate) fn check_name(resource: &Resource, object: &Value) -> Vec<Cause> {
    let name = object.at("metadata").at("name").as_str().unwrap_or_default();
    let mut causes = Vec::new();
    if let Some(beginning) = object.at("metadata").at("generateName").as_str().filter(|beginning| !beginning.is_empty())
    {
        // What is added to it makes a good end of it.
        let beginning_of = format!("{}a", beginning.trim_end_matches('-'));
        let wrong = check_one(resource, &beginning_of, "metadata.generateName");
        causes.extend(
            wrong
                .into_iter()
                .map(|cause| Cause { message: cause.message.replacen(&beginning_of, beginning, 1), ..cause }),
        );
    }
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        causes.extend(check_one(resource, name, "metadata.name"));
    }
    causes
}

fn check_one(resource: &Resource, name: &str, field: &str) -> Vec<Cause> {
    let (fits, longest, why) = match resource.builtin() {
        Some(Builtin::Namespace) if name.contains('.') => (false, 63, "must not contain dots"),
        Some(Builtin::Namespace) => (is_label(name), 63, LABEL),
        _ => (is_subdomain(name), 253, SUBDOMAIN),
    };
    let mut causes = Vec::new();
    let shown = Value::from(name);
    if !fits {
        causes.push(Cause::invalid(field, &shown, why));
    }
    if name.len() > longest {
        causes.push(Cause::invalid(field, &shown, format!("must be no more than {longest} characters")));
    }
    causes
}

/// What is wrong with a key of a ConfigMap or a Secret, which becomes a file's name.
pub(crate) fn check_config_key(field: &str, key: &str) -> Option<Cause> {
    let at = format!("{field}[{key}]");
    let shown = Value::from(key);
    let fits = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fits {
        return Some(Cause::invalid(at, shown, CONFIG_KEY));
    }
    if key.len() > 253 {
        return Some(Cause::invalid(at, shown, "must be no more than 253 characters"));
    }
    match key {
        "." => Some(Cause::invalid(at, shown, "must not be '.'")),
        _ if key.starts_with("..") => Some(Cause::invalid(at, shown, "must not start with '..'")),
        _ => None,
    }
}

/// What is wrong with the metadata of an object, beside its name.
pub(crate) fn check_metadata(object: &Value) -> Vec<Cause> {
    let keys = |field: &str| object.at("metadata").at(field).as_object().into_iter().flat_map(|map| map.keys());
    let mut causes = check_labels(object);
    for key in keys("annotations") {
        if causes.len() > MOST {
            break;
        }
        for why in wrong_with_qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", Value::from(key.as_str()), why));
        }
    }
    for finalizer in meta::finalizers(object) {
        if causes.len() > MOST {
            break;
        }
        for why in wrong_with_qualified(finalizer) {
            causes.push(Cause::invalid("metadata.finalizers", Value::from(finalizer), why));
        }
    }
    for owner in meta::owner_references(object) {
        if causes.len() > MOST {
            break;
        }
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.at(field).as_str().unwrap_or_default().is_empty() {
                let why = if field == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                causes.push(Cause::invalid(format!("metadata.ownerReferences.{field}"), "\"\"", why));
            }
        }
    }
    causes
}

/// Finalizers without a domain may be somebody else's, too.
pub(crate) fn finalizer_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let known: HashSet<&str> = old.into_iter().flat_map(meta::finalizers).collect();
    let new = meta::finalizers(object).filter(|one| !one.contains('/') && !known.contains(one)).take(MOST);
    let advice = "prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers";
    new.map(|one| format!("metadata.finalizers: \"{one}\": {advice}")).collect()
}

fn check_labels(object: &Value) -> Vec<Cause> {
    let labels = object.at("metadata").at("labels").as_object().into_iter().flatten();
    let mut causes = Vec::new();
    for (key, value) in labels {
        if causes.len() > MOST {
            break;
        }
        for why in wrong_with_qualified(key) {
            causes.push(Cause::invalid("metadata.labels", Value::from(key.as_str()), why));
        }
        let text = value.as_str().unwrap_or_default();
        if !is_label_value(text) {
            causes.push(Cause::invalid("metadata.labels", value, LABEL_VALUE));
        }
        if text.len() > 63 {
            causes.push(Cause::invalid("metadata.labels", value, "must be no more than 63 characters"));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_their_values_are_what_rfc_1123_and_kubernetes_say() {
        assert!(["a", "a-b", "0a"].into_iter().all(is_label));
        assert!(!["", "-a", "a-", "A", "a_b", "a.b"].into_iter().any(is_label));
        assert!(["", "A", "a_b.c", "1"].into_iter().all(is_label_value));
        assert!(!["-a", "a.", "a b", "ä"].into_iter().any(is_label_value));
    }
}
