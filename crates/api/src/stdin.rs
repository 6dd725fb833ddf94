//! What a program reads from stdin, shared by the resource, the daemon that delivers it and the client that uploads it.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::KeyRef;

/// What the program reads from stdin, to its last byte; exactly one of the fields is set. It arrives as written: $(NAME) is
/// no reference here. It needs a supervisor in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.value), has(self.configMapKeyRef), has(self.secretKeyRef), has(self.upload)].filter(x, x).size() == 1"
).message("set exactly one of value, configMapKeyRef, secretKeyRef, upload"))]
pub struct Stdin {
    /// The text itself, of up to 1 MiB. kubectl apply takes up to 256 KiB; kubectl create and apply --server-side take all of it.
    #[schemars(length(max = 1_048_576))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// A key of a ConfigMap in this namespace, of its data or its binaryData.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret in this namespace. Its bytes reach the program and are shown nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// Bytes that are uploaded beside the object, as oncelet exec -i does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
}

/// Bytes that are uploaded as Secrets owned by the object, and removed once the outcome is recorded. They are uploaded only
/// when the object waits for them, with the reason StdinNotUploaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upload {
    /// How many bytes.
    #[schemars(range(min = 0, max = UPLOAD_LIMIT))]
    pub bytes: i64,
    /// Their SHA-256 in lower-case hex.
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: String,
}

/// How many bytes can be uploaded at most. They pass through the API server's database, whose own limit is a few GiB for
/// all there is, the objects of the last minutes included.
pub const UPLOAD_LIMIT: i64 = 256 << 20;
/// How many bytes each part holds, the last one aside. A Secret holds 1 MiB, and a request to etcd 1.5 MiB.
pub const UPLOAD_PART: usize = 1_000_000;
/// The label of the parts; its value is the object's UID.
pub const UPLOAD_LABEL: &str = "oncelet.dev/stdin";
/// The type of the Secrets that are parts.
pub const UPLOAD_TYPE: &str = "oncelet.dev/stdin";
/// The annotation by which a client says that the parts are there, so that the object is looked at at once.
pub const UPLOADED_ANNOTATION: &str = "oncelet.dev/stdin-uploaded";
/// The key in a part's data.
pub const UPLOAD_KEY: &str = "stdin";

/// The reason for which an object waits for its upload.
pub const NOT_UPLOADED: &str = "StdinNotUploaded";

impl Upload {
    /// How many parts there are. Nothing at all has none.
    pub fn parts(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or_default().div_ceil(UPLOAD_PART)
    }

    /// The name of a part, for the object with this UID: an object that is created again never gets what was meant for an
    /// earlier one.
    pub fn part_name(uid: &str, index: usize) -> String {
        format!("oncelet-stdin-{uid}-{index}")
    }

    /// One part as a Secret. It is immutable, and owned by the object.
    pub fn part(uid: &str, index: usize, owner: OwnerReference, bytes: Vec<u8>) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(Self::part_name(uid, index)),
                labels: Some([(UPLOAD_LABEL.to_owned(), uid.to_owned())].into()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some(UPLOAD_TYPE.to_owned()),
            immutable: Some(true),
            data: Some([(UPLOAD_KEY.to_owned(), k8s_openapi::ByteString(bytes))].into()),
            ..Secret::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_holds_what_is_left() {
        let parts = |bytes| Upload { bytes, sha256: String::new() }.parts();
        let part = i64::try_from(UPLOAD_PART).unwrap();
        assert_eq!([0, 1, part - 1, part, part + 1, 100_000_000].map(parts), [0, 1, 1, 1, 2, 100]);
    }

    #[test]
    fn a_part_of_an_object_with_the_longest_name_has_a_valid_name() {
        let name = Upload::part_name("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", 268);
        assert_eq!(name, "oncelet-stdin-f81d4fae-7dec-11d0-a765-00a0c91e6bf6-268");
    }
}
