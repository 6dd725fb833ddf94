//! `Container`: a container of the engine, adopted or created.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::EnvVar;
use crate::rules::immutable;

/// A container of the engine: an existing one, or one that is created and reused.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "oncelet.dev",
    version = "v1alpha1",
    kind = "Container",
    plural = "containers",
    shortname = "ctr",
    category = "oncelet",
    namespaced,
    status = "ContainerStatus",
    derive = "PartialEq",
    doc = "A container of the engine: an existing one, or one that is created and reused.",
    printcolumn(
        name = "Container",
        type_ = "string",
        json_path = ".status.containerName",
        description = "The engine's name of the container."
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", description = "Who makes the container."),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "What the engine says."),
    printcolumn(
        name = "ID",
        type_ = "string",
        json_path = ".status.shortId",
        description = "The first 12 digits of the container's ID."
    ),
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".status.address",
        description = "The container's IP address.",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "What stands in the way, or went wrong.",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the object was created."
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode != 'persistent' || has(self.image)")
        .message("mode persistent needs an image")
        .field_path(".mode"),
    validation = Rule::new(
        "self.mode != 'existing' || !(has(self.image) || has(self.command) || has(self.args) || has(self.env) \
         || has(self.ports) || has(self.labels))"
    )
    .message("mode existing takes a container as it is: only containerName may be set beside it")
    .field_path(".mode"),
    validation = Rule::new(
        "!has(self.env) || self.env.all(e, !has(e.valueFrom) || !has(e.valueFrom.containerFieldRef))"
    )
    .message("containerFieldRef is for ContainerExec: a container that is not there yet has no fields")
    .field_path(".env"),
    validation = immutable("mode"),
    validation = immutable("containerName"),
    validation = immutable("image"),
    validation = immutable("command"),
    validation = immutable("args"),
    validation = immutable("env"),
    validation = immutable("ports"),
    validation = immutable("labels"),
)]
pub struct ContainerSpec {
    /// Who makes the container.
    pub mode: ContainerMode,
    /// The engine's name of the container; by default the object's name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// The image. It must be in the engine already.
    #[schemars(length(min = 1, max = 512))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What to run instead of the image's entrypoint.
    #[schemars(length(min = 1, max = 4096))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its arguments, instead of the image's. $(NAME) refers to a variable of env.
    #[schemars(length(max = 1000), inner(length(max = 131_072)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables added to the image's environment, in order.
    #[schemars(length(max = 1000))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Ports to publish.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// Labels for the engine's container.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<ContainerLabel>,
}

/// Who makes the container. persistent: oncelet creates it where it is missing, reuses and starts it where it is there,
/// and never removes it with the object. existing: somebody else's container, taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ContainerMode {
    /// Created and reused by oncelet.
    Persistent,
    /// Somebody else's.
    Existing,
}

/// A port to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// The port in the container.
    #[schemars(range(min = 1, max = 65535))]
    pub container_port: i32,
    /// The port on the engine's machine; by default a free one that the engine picks.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<i32>,
    /// The address on the engine's machine; by default 127.0.0.1.
    #[schemars(length(max = 64))]
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// The protocol; TCP by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<PortProtocol>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PortProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A label of the engine's container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerLabel {
    /// Its key.
    #[schemars(length(min = 1, max = 512))]
    pub key: String,
    /// Its value.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// What the engine says of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ContainerState {
    /// It is not there, or not made yet: see the conditions.
    Pending,
    /// It is there and was not started.
    Created,
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// It is being started again.
    Restarting,
    /// Its program has ended.
    Exited,
    /// It is being removed, or is broken.
    Dead,
}

/// What is known of the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// What the engine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ContainerState>,
    /// What stands in the way, or went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Ready.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The engine's full ID of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The first 12 digits of the ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_id: Option<String>,
    /// The engine's name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// The engine's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The hash of the declared spec that the container was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle_key: Option<String>,
    /// The published ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PublishedPort>>,
    /// The container's IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_timestamp: Option<MicroTime>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_timestamp: Option<MicroTime>,
    /// Its exit code, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The generation of the object that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// The port in the container.
    pub container_port: i32,
    /// The port on the engine's machine.
    pub host_port: i32,
    /// The address on the engine's machine.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    /// The protocol.
    pub protocol: PortProtocol,
}
