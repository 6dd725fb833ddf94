//! `kubectl apply` before and after server-side apply: what it applied from the client's side stands in an annotation,
//! and what it wrote so it may write again without a conflict.

use serde_json::{Map, Value};

use super::fields::FieldSet;
use super::managers::{self, Applied, Conflict, Writer};
use crate::meta::At;
use crate::schema::Schema;
use crate::{body, meta};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// [`managers::apply`] for kubectl.
pub(crate) fn apply(
    current: &Value,
    applied: &Value,
    schema: Option<&Schema>,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, Conflict> {
    let before = current.at("metadata").at("annotations").at(ANNOTATION).as_str();
    let Some(before) = before else { return managers::apply(current, applied, schema, writer, force) };
    let mut result = match managers::apply(current, applied, schema, writer, force) {
        Err(conflict) if wrote_all(before, &conflict, schema) => {
            managers::apply(current, applied, schema, writer, true)?
        }
        result => result?,
    };
    // The annotation goes on telling what kubectl applied last.
    let mut now = sorted(applied).to_string();
    now.push('\n');
    if let Some(annotations) =
        meta::of(&mut result.object).and_then(|metadata| metadata.get_mut("annotations")?.as_object_mut())
    {
        annotations.insert(ANNOTATION.to_owned(), Value::String(now));
    }
    Ok(result)
}

/// Whether every field of the conflict is one that kubectl wrote itself.
fn wrote_all(before: &str, conflict: &Conflict, schema: Option<&Schema>) -> bool {
    let Ok(before) = body::json(before.as_bytes()) else { return false };
    let own = FieldSet::of(&before, schema);
    conflict.lost().all(|lost| lost.is_within(&own))
}

/// With the keys of every map in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            fields.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(fields.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(replicas: u64) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"replicas": replicas}})
    }

    #[test]
    fn kubectl_takes_over_what_it_wrote_from_the_clients_side() {
        let now = json!("now");
        let client = Writer {
            manager: "kubectl-client-side-apply",
            api_version: "g/v1",
            subresource: "",
            has_status: true,
            now: &now,
        };
        let mut current = object(1);
        current["metadata"]["annotations"] = json!({ANNOTATION: object(1).to_string()});
        managers::book_update(&json!({}), &mut current, None, None, &client);
        let server = Writer { manager: "kubectl", ..client };
        assert!(managers::apply(&current, &object(2), None, &server, false).is_err());
        let result = apply(&current, &object(2), None, &server, false).unwrap().object;
        assert_eq!(result["spec"]["replicas"], 2);
        assert_eq!(
            result["metadata"]["annotations"][ANNOTATION],
            "{\"metadata\":{\"name\":\"a\"},\"spec\":{\"replicas\":2}}\n"
        );
    }
}
