//! What names may look like.

use serde_json::Value;

use crate::builtin::Builtin;
use crate::registry::Resource;
use crate::status::Cause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// What is wrong with the name of a new object.
pub(crate) fn check_name(resource: &Resource, name: &str) -> Vec<Cause> {
    let (fits, longest, why) = if resource.builtin() == Some(Builtin::Namespace) {
        (is_label(name), 63, LABEL)
    } else {
        (name.split('.').all(is_label), 253, SUBDOMAIN)
    };
    let mut causes = Vec::new();
    let shown = Value::from(name);
    if !fits {
        causes.push(Cause::invalid("metadata.name", &shown, why));
    }
    if name.len() > longest {
        causes.push(Cause::invalid("metadata.name", &shown, format!("must be no more than {longest} characters")));
    }
    causes
}

/// What is wrong with the labels of an object.
pub(crate) fn check_labels(object: &Value) -> Vec<Cause> {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let mut causes = Vec::new();
    for value in labels.map(|(_, value)| value) {
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
