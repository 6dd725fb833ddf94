//! Environment variables, shared by both kinds.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// An environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.value) && has(self.valueFrom))").message("set value or valueFrom, not both"))]
pub struct EnvVar {
    /// The variable's name.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^=\s\x00-\x1f\x7f]+$"))]
    pub name: String,
    /// Its value. $(NAME) refers to a variable before this one; $$(NAME) is the text $(NAME). As in Kubernetes, $$ is a single $
    /// everywhere: write $$$$ where the program is to get $$. A single $ stays as it is.
    #[schemars(length(max = 131_072))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where its value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where the value of a variable comes from; exactly one of the fields is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.fieldRef), has(self.containerFieldRef), has(self.configMapKeyRef), has(self.secretKeyRef)]\
     .filter(x, x).size() == 1"
).message("set exactly one of fieldRef, containerFieldRef, configMapKeyRef, secretKeyRef"))]
pub struct EnvVarSource {
    /// A field of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
    /// A field of the container that the program runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_field_ref: Option<ContainerFieldRef>,
    /// A key of a ConfigMap in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret in this namespace. The value reaches the program and is shown nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}

/// A field of the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'] or metadata.annotations['KEY'].
    #[schemars(length(min = 1, max = 512))]
    pub field_path: String,
}

/// A field of the engine's container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerFieldRef {
    /// id, name, image, hostname, address, ports['PORT'] or ports['PORT/PROTOCOL'] (the host port it is published on),
    /// labels['KEY'].
    #[schemars(length(min = 1, max = 512))]
    pub field_path: String,
}

/// A key of a ConfigMap or Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// The name of the ConfigMap or Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in its data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Whether the variable is left out, or stdin empty, where the object or key does not exist, rather than waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}
