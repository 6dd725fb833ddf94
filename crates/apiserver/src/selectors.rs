//! Label and field selectors.

use serde_json::Value;

use crate::meta::At;
use crate::names;
use crate::status::ApiError;

/// What an object must carry to be selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTerm {
    path: String,
    equal: bool,
    value: String,
}

impl Selector {
    /// Reads both selectors of a request. `selectable` knows the fields beside `metadata.name` and
    /// `metadata.namespace`.
    pub(crate) fn parse(labels: &str, fields: &str, selectable: impl Fn(&str) -> bool) -> Result<Self, ApiError> {
        let labels = parse_labels(labels)
            .ok_or_else(|| ApiError::bad_request(format!("unable to parse label selector: {labels:?}")))?;
        for requirement in &labels {
            requirement.check_values()?;
        }
        Ok(Self { labels, fields: parse_fields(fields, selectable)? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.at("metadata").at("labels");
        self.labels.iter().all(|requirement| requirement.matches(labels))
            && self.fields.iter().all(|term| term.matches(object))
    }
}

impl Requirement {
    fn check_values(&self) -> Result<(), ApiError> {
        let (Self::In(key, values) | Self::NotIn(key, values)) = self else { return Ok(()) };
        let wrong = values.iter().enumerate().find(|(_, value)| !names::is_label_value(value));
        wrong.map_or(Ok(()), |(index, value)| {
            let why = format!("values[{index}][{key}]: Invalid value: {value:?}: {}", names::LABEL_VALUE);
            Err(ApiError::bad_request(format!("unable to parse requirement: {why}")))
        })
    }

    fn matches(&self, labels: &Value) -> bool {
        let label = |key: &String| labels.at(key.as_str()).as_str();
        match self {
            Self::In(key, values) => label(key).is_some_and(|value| values.iter().any(|one| one == value)),
            Self::NotIn(key, values) => label(key).is_none_or(|value| values.iter().all(|one| one != value)),
            Self::Exists(key) => label(key).is_some(),
            Self::Missing(key) => label(key).is_none(),
        }
    }
}

impl FieldTerm {
    fn matches(&self, object: &Value) -> bool {
        let found = self.path.split('.').fold(object, |value, part| value.at(part));
        let text = match found {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        (text == self.value) == self.equal
    }
}

fn parse_fields(text: &str, selectable: impl Fn(&str) -> bool) -> Result<Vec<FieldTerm>, ApiError> {
    let terms = text.split(',').filter(|term| !term.is_empty());
    terms
        .map(|term| {
            let (path, equal, value) = if let Some((path, value)) = term.split_once("!=") {
                (path, false, value)
            } else if let Some((path, value)) = term.split_once("==") {
                (path, true, value)
            } else if let Some((path, value)) = term.split_once('=') {
                (path, true, value)
            } else {
                let why = format!("invalid selector: '{term}'; can't understand '{term}'");
                return Err(ApiError::bad_request(why));
            };
            if !["metadata.name", "metadata.namespace"].contains(&path) && !selectable(path) {
                return Err(ApiError::bad_request(format!("field label not supported: {path}")));
            }
            Ok(FieldTerm { path: path.to_owned(), equal, value: value.to_owned() })
        })
        .collect()
}

fn parse_labels(text: &str) -> Option<Vec<Requirement>> {
    split_outside_brackets(text).map(str::trim).filter(|term| !term.is_empty()).map(parse_requirement).collect()
}

fn split_outside_brackets(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.split(move |c| {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        c == ',' && !inside
    })
}

fn parse_requirement(term: &str) -> Option<Requirement> {
    let key = |text: &str| {
        let text = text.trim();
        let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        fits.then(|| text.to_owned())
    };
    let one = |text: &str| vec![text.trim().to_owned()];
    if let Some(missing) = term.strip_prefix('!') {
        return key(missing).map(Requirement::Missing);
    }
    if let Some((left, right)) = term.split_once('(') {
        let values = right.trim_end().strip_suffix(')')?.split(',').map(|value| value.trim().to_owned()).collect();
        let (left, operator) = left.trim_end().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => Some(Requirement::In(key(left)?, values)),
            "notin" => Some(Requirement::NotIn(key(left)?, values)),
            _ => None,
        };
    }
    if let Some((left, right)) = term.split_once("!=") {
        return Some(Requirement::NotIn(key(left)?, one(right)));
    }
    if let Some((left, right)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Some(Requirement::In(key(left)?, one(right)));
    }
    key(term).map(Requirement::Exists)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_of_every_form_select_what_they_say() {
        let object = json!({"metadata": {"labels": {"app": "a", "tier": "web"}}});
        let cases = [
            ("app=a", true),
            ("app==a,tier=web", true),
            ("app!=a", false),
            ("app in (a, b),tier", true),
            ("app notin (a)", false),
            ("!app", false),
            ("!other", true),
            ("other!=x", true),
            ("other notin (x)", true),
        ];
        for (text, selected) in cases {
            assert_eq!(Selector::parse(text, "", |_| false).unwrap().matches(&object), selected, "{text}");
        }
        assert!(Selector::parse("a in b", "", |_| false).is_err());
    }

    #[test]
    fn a_field_that_is_not_selectable_is_refused_by_name() {
        let error = Selector::parse("", "spec.x=1", |_| false).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, "field label not supported: spec.x"));
        let selector = Selector::parse("", "metadata.name=a,reason!=B", |field| field == "reason").unwrap();
        assert!(selector.matches(&json!({"metadata": {"name": "a"}, "reason": "C"})));
        assert!(!selector.matches(&json!({"metadata": {"name": "a"}, "reason": "B"})));
    }
}
