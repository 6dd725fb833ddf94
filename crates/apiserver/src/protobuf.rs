//! The few messages that newer `kubectl`s send as protobuf: `create namespace`, `create configmap`, `create secret`,
//! `auth can-i`, and options of deletions. A hand-written reader of the wire format, driven by tables of field numbers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::body::VALUES;
use crate::status::ApiError;

/// Starts every Kubernetes protobuf body.
const MAGIC: &[u8] = b"k8s\0";

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bool,
    Int,
    /// Bytes, which JSON carries as base64.
    Bytes,
    Message(&'static [Field]),
    /// `map<string, string>`.
    TextMap,
    /// `map<string, bytes>`.
    BytesMap,
    Repeated(&'static Kind),
    Time,
    /// Dropped: what the server sets itself.
    Ignored,
}

type Field = (u32, &'static str, Kind);

const OWNER: &[Field] = &[
    (1, "kind", Kind::Text),
    (3, "name", Kind::Text),
    (4, "uid", Kind::Text),
    (5, "apiVersion", Kind::Text),
    (6, "controller", Kind::Bool),
    (7, "blockOwnerDeletion", Kind::Bool),
];

const METADATA: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (3, "namespace", Kind::Text),
    (5, "uid", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (8, "creationTimestamp", Kind::Ignored),
    (11, "labels", Kind::TextMap),
    (12, "annotations", Kind::TextMap),
    (13, "ownerReferences", Kind::Repeated(&Kind::Message(OWNER))),
    (14, "finalizers", Kind::Repeated(&Kind::Text)),
    (17, "managedFields", Kind::Ignored),
];

const NAMESPACE: &[Field] =
    &[(1, "metadata", Kind::Message(METADATA)), (2, "spec", Kind::Ignored), (3, "status", Kind::Ignored)];

const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::TextMap),
    (3, "binaryData", Kind::BytesMap),
    (4, "immutable", Kind::Bool),
];

const SECRET: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::BytesMap),
    (3, "type", Kind::Text),
    (4, "stringData", Kind::TextMap),
    (5, "immutable", Kind::Bool),
];

const RESOURCE_ATTRIBUTES: &[Field] = &[
    (1, "namespace", Kind::Text),
    (2, "verb", Kind::Text),
    (3, "group", Kind::Text),
    (4, "version", Kind::Text),
    (5, "resource", Kind::Text),
    (6, "subresource", Kind::Text),
    (7, "name", Kind::Text),
];

const NON_RESOURCE_ATTRIBUTES: &[Field] = &[(1, "path", Kind::Text), (2, "verb", Kind::Text)];

const ACCESS_REVIEW: &[Field] = &[
    (1, "metadata", Kind::Ignored),
    (
        2,
        "spec",
        Kind::Message(&[
            (1, "resourceAttributes", Kind::Message(RESOURCE_ATTRIBUTES)),
            (2, "nonResourceAttributes", Kind::Message(NON_RESOURCE_ATTRIBUTES)),
        ]),
    ),
    (3, "status", Kind::Ignored),
];

const LEASE: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (
        2,
        "spec",
        Kind::Message(&[
            (1, "holderIdentity", Kind::Text),
            (2, "leaseDurationSeconds", Kind::Int),
            (3, "acquireTime", Kind::Time),
            (4, "renewTime", Kind::Time),
            (5, "leaseTransitions", Kind::Int),
        ]),
    ),
];

const REVIEW: &[Field] = &[(1, "metadata", Kind::Message(METADATA))];

const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Kind::Int),
    (2, "preconditions", Kind::Message(&[(1, "uid", Kind::Text), (2, "resourceVersion", Kind::Text)])),
    (3, "orphanDependents", Kind::Bool),
    (4, "propagationPolicy", Kind::Text),
    (5, "dryRun", Kind::Repeated(&Kind::Text)),
];

fn message_of(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectReview" => REVIEW,
        "Lease" => LEASE,
        "DeleteOptions" => DELETE_OPTIONS,
        _ => return None,
    })
}

/// An object from a Kubernetes protobuf envelope. A kind that is not in the tables is 415: send JSON.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ApiError> {
    let malformed = || ApiError::bad_request("the body of the request is not a Kubernetes protobuf message");
    let envelope = body.strip_prefix(MAGIC).ok_or_else(malformed)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[] as &[u8]);
    for (number, wire) in fields(envelope).ok_or_else(malformed)? {
        match (number, wire) {
            (1, Wire::Bytes(type_meta)) => {
                for (number, wire) in fields(type_meta).ok_or_else(malformed)? {
                    match number {
                        1 => api_version = wire.text().ok_or_else(malformed)?,
                        2 => kind = wire.text().ok_or_else(malformed)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    let Some(table) = message_of(&kind) else {
        return Err(ApiError::unsupported_media_type("application/json, application/yaml"));
    };
    let Value::Object(object) = message(table, raw).ok_or_else(malformed)? else { return Err(malformed()) };
    let mut typed = Map::new();
    typed.insert("apiVersion".to_owned(), json!(api_version));
    typed.insert("kind".to_owned(), json!(kind));
    typed.extend(object);
    Ok(Value::Object(typed))
}

enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

impl Wire<'_> {
    fn text(&self) -> Option<String> {
        match self {
            Self::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok(),
            Self::Varint(_) => None,
        }
    }
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(taken)
}

/// The fields of a message in wire order; `None` if the bytes are not a message.
fn fields(mut input: &[u8]) -> Option<Vec<(u32, Wire<'_>)>> {
    let mut found = Vec::new();
    while !input.is_empty() {
        if found.len() >= VALUES {
            return None;
        }
        let tag = varint(&mut input)?;
        let number = u32::try_from(tag >> 3).ok()?;
        match tag & 7 {
            0 => found.push((number, Wire::Varint(varint(&mut input)?))),
            1 => drop(take(&mut input, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut input)?).ok()?;
                found.push((number, Wire::Bytes(take(&mut input, length)?)));
            }
            5 => drop(take(&mut input, 4)?),
            _ => return None,
        }
    }
    Some(found)
}

fn message(table: &[Field], bytes: &[u8]) -> Option<Value> {
    let mut object = Map::new();
    for (number, wire) in fields(bytes)? {
        let Some((_, name, kind)) = table.iter().find(|(one, ..)| *one == number) else { continue };
        add(&mut object, name, *kind, &wire)?;
    }
    Some(Value::Object(object))
}

fn add(object: &mut Map<String, Value>, name: &str, kind: Kind, wire: &Wire<'_>) -> Option<()> {
    match kind {
        Kind::Ignored => {}
        Kind::TextMap | Kind::BytesMap => {
            let Wire::Bytes(entry) = wire else { return None };
            let (mut key, mut value) = (String::new(), json!(""));
            for (number, wire) in fields(entry)? {
                match number {
                    1 => key = wire.text()?,
                    2 => value = scalar(if matches!(kind, Kind::TextMap) { Kind::Text } else { Kind::Bytes }, &wire)?,
                    _ => {}
                }
            }
            object.entry(name).or_insert_with(|| json!({})).as_object_mut()?.insert(key, value);
        }
        Kind::Repeated(kind) => {
            let value = scalar(*kind, wire)?;
            object.entry(name).or_insert_with(|| json!([])).as_array_mut()?.push(value);
        }
        // Go writes empty strings where nothing was set.
        Kind::Text if matches!(wire, Wire::Bytes([])) => {}
        kind => drop(object.insert(name.to_owned(), scalar(kind, wire)?)),
    }
    Some(())
}

fn scalar(kind: Kind, wire: &Wire<'_>) -> Option<Value> {
    Some(match (kind, wire) {
        (Kind::Text, wire) => json!(wire.text()?),
        (Kind::Bool, Wire::Varint(value)) => json!(*value != 0),
        // The wire carries negative numbers as their two's complement.
        (Kind::Int, Wire::Varint(value)) => json!(value.cast_signed()),
        (Kind::Bytes, Wire::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        (Kind::Message(table), Wire::Bytes(bytes)) => message(table, bytes)?,
        (Kind::Time, Wire::Bytes(bytes)) => time(bytes)?,
        _ => return None,
    })
}

fn time(bytes: &[u8]) -> Option<Value> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    for (number, wire) in fields(bytes)? {
        match (number, wire) {
            (1, Wire::Varint(value)) => seconds = value.cast_signed(),
            (2, Wire::Varint(value)) => nanos = i32::try_from(value).ok()?,
            _ => {}
        }
    }
    let at = jiff::Timestamp::new(seconds, nanos).ok()?;
    Some(json!(at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, object)].concat()
    }

    #[test]
    fn a_secret_keeps_its_name_type_and_bytes() {
        let entry = [field(1, b"key"), field(2, &[0, 255])].concat();
        let object = [field(1, &field(1, b"s")), field(2, &entry), field(3, b"Opaque")].concat();
        let secret = decode(&envelope("v1", "Secret", &object)).unwrap();
        assert_eq!(
            secret,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "AP8="}, "type": "Opaque"})
        );
    }

    #[test]
    fn cut_off_and_unknown_messages_are_refused_and_never_panic() {
        let whole = envelope("v1", "ConfigMap", &field(1, &field(1, b"name")));
        for length in 0..whole.len() {
            let _ = decode(&whole[..length]);
        }
        assert_eq!(decode(b"nonsense").unwrap_err().code, 400);
        assert_eq!(decode(&envelope("v1", "Pod", &[])).unwrap_err().code, 415);
    }
}
