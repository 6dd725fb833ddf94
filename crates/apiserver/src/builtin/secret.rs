//! Secrets: `stringData` is written, never read back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{check_keys, drop_empty, immutable_data};
use crate::meta;
use crate::meta::At;
use crate::status::Cause;

pub(super) fn prepare(new: &mut Value) {
    drop_empty(new, &["data", "stringData"]);
    let Some(fields) = new.as_object_mut() else { return };
    if let Some(Value::Object(plain)) = fields.shift_remove("stringData") {
        let data = fields.entry("data").or_insert_with(|| json!({}));
        for (key, value) in plain {
            meta::put(data, &key, json!(STANDARD.encode(value.as_str().unwrap_or_default())));
        }
    }
    let kind = fields.entry("type").or_insert_with(|| json!("Opaque"));
    if kind == "" {
        *kind = json!("Opaque");
    }
}

pub(super) fn check(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = check_keys(new, &["data"]);
    let wanted: &[&str] = match new.at("type").as_str() {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        Some("kubernetes.io/dockercfg") => &[".dockercfg"],
        Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
        _ => &[],
    };
    let missing = wanted.iter().filter(|key| new.at("data").get(**key).is_none());
    causes.extend(missing.map(|key| Cause::required(format!("data[{key}]"), "")));
    causes.extend(immutable_data(new, old, &["data"]));
    if old.is_some_and(|old| old.at("type") != new.at("type")) {
        causes.push(Cause::invalid("type", new.at("type"), "field is immutable"));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_is_folded_into_data_and_wins() {
        let mut secret = json!({"data": {"a": "b2xk"}, "stringData": {"a": "new", "b": "x"}});
        prepare(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "bmV3", "b": "eA=="}, "type": "Opaque"}));
    }
}
