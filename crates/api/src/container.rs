//! `Container`: a container of the engine, adopted or created.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::EnvVar;
use crate::rules::immutable;

/// A container of the engine: an existing one, or one that is created and reused.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
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
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the object was created."
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "How far it is, what stands in the way, or what went wrong."
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.mode in ['session', 'persistent']) || has(self.image)")
        .message("modes session and persistent make the container, and need an image")
        .field_path(".mode"),
    validation = Rule::new(
        "!(self.mode in ['existing', 'cleanup']) || !(has(self.image) || has(self.command) || has(self.args) \
         || has(self.env) || has(self.envFiles) || has(self.ports) || has(self.labels) || has(self.volumeMounts) \
         || has(self.networks) || has(self.restartPolicy) || has(self.pullPolicy) || has(self.healthcheck) \
         || has(self.lifecycleKey))"
    )
    .message("modes existing and cleanup take a container as it is: only containerName, start and stop may be set beside them")
    .field_path(".mode"),
    validation = Rule::new(
        "!has(self.env) || self.env.all(e, !has(e.valueFrom) || !has(e.valueFrom.containerFieldRef))"
    )
    .message("containerFieldRef is for ContainerExec: a container that is not there yet has no fields")
    .field_path(".env"),
    validation = immutable("mode"),
    validation = immutable("engine"),
    validation = immutable("containerName"),
    validation = immutable("image"),
    validation = immutable("command"),
    validation = immutable("args"),
    validation = immutable("env"),
    validation = immutable("envFiles"),
    validation = immutable("ports"),
    validation = immutable("volumeMounts"),
    validation = immutable("networks"),
    validation = immutable("labels"),
    validation = immutable("restartPolicy"),
    validation = immutable("healthcheck"),
    validation = immutable("lifecycleKey"),
)]
pub struct ContainerSpec {
    /// Who makes the container, and what becomes of it.
    #[serde(default)]
    pub mode: ContainerMode,
    /// The container engine: docker, podman, or a URL such as unix:///run/user/1000/podman/podman.sock; by default the one that
    /// oncelet was started with.
    #[schemars(length(min = 1, max = 512))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The engine's name of the container; by default the object's name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// The image.
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9_.:@-]*(/[a-zA-Z0-9][a-zA-Z0-9_.:@-]*)*$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What to run instead of the image's entrypoint.
    #[schemars(length(min = 1, max = 4096))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its arguments, instead of the image's. $(NAME) refers to a variable of env; $$(NAME) is the text $(NAME). As in Kubernetes,
    /// $$ is a single $ everywhere: write $$$$ where the program is to get $$. A single $ stays as it is.
    #[schemars(length(max = 1000), inner(length(max = 131_072)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables added to the image's environment, in order.
    #[schemars(length(max = 1000))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Paths of dotenv files on the machine where oncelet runs. Variables of env win over theirs.
    #[schemars(length(max = 100), inner(length(min = 1, max = 4096)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_files: Vec<String>,
    /// Ports to publish.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// Directories, files and volumes to mount.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// The engine's networks that the container is in, which must be there; by default the engine's default network.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<ContainerNetwork>,
    /// Labels for the engine's container.
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<ContainerLabel>,
    /// When the engine starts the container again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// When the image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
    /// How the engine finds out whether the container is well; by default as the image says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// A persistent container is made anew when this text is another one; by default, when anything that is declared of it is.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\x00-\x1f\x7f]*$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle_key: Option<String>,
    /// Set to false to neither make nor start the container yet; one that runs already is taken as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<bool>,
    /// Set to true to stop the container; one that is not there is not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<bool>,
}

/// Who makes the container, and what becomes of it. session (the default): it is made for this object and removed with it, or
/// with the daemon that hosts the API server. persistent: it is made where it is missing, reused and started where it is
/// there, and never removed with the object. existing: somebody else's, taken as it is. cleanup: somebody else's, and
/// removed with the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ContainerMode {
    /// Made for the object and removed with it.
    #[default]
    Session,
    /// Made where it is missing, and reused.
    Persistent,
    /// Somebody else's.
    Existing,
    /// Somebody else's, and removed with the object.
    Cleanup,
}

/// Something to mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.target.matches('/[.][.](/|$)')")
    .message("target is a path without ..").field_path(".target"))]
#[x_kube(validation = Rule::new(
    "!has(self.source) || self.source.matches(self.type == 'bind' ? '^/' : '^[a-zA-Z0-9][a-zA-Z0-9_.-]*$')"
).message("source is an absolute path where type is bind, and the name of a volume where it is volume").field_path(".source"))]
pub struct VolumeMount {
    /// What source is.
    #[serde(rename = "type")]
    pub kind: VolumeKind,
    /// A path on the engine's machine, or the name of a volume; without it, a volume of the container's own.
    #[schemars(length(min = 1, max = 4096))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The path in the container.
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^/[^\x00-\x1f\x7f]*$"))]
    pub target: String,
    /// Whether the container cannot write to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// What is mounted. bind: a file or directory of the engine's machine, which must be there. volume: a volume of the engine,
/// which is made where it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum VolumeKind {
    /// A file or directory.
    Bind,
    /// A volume.
    Volume,
}

/// A network of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerNetwork {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$"))]
    pub name: String,
    /// Names under which others in the network find the container, beside its own.
    #[schemars(length(max = 100), inner(length(min = 1, max = 253), regex(pattern = "^[a-zA-Z0-9_][a-zA-Z0-9_.-]*$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// When the engine starts the container again by itself. no (the default): never. on-failure: when it ends with another exit
/// code than 0. unless-stopped: when it ends, and with the engine, unless somebody stopped it. always: when it ends, and
/// with the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it fails.
    OnFailure,
    /// Unless somebody stopped it.
    UnlessStopped,
    /// Always.
    Always,
}

/// When the image is pulled. missing (the default): when the engine does not have it. always: before each creation of the
/// container. never: it must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PullPolicy {
    /// When it is not there.
    #[default]
    Missing,
    /// Before each creation.
    Always,
    /// It must be there.
    Never,
}

/// A check that the engine makes again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Healthcheck {
    /// A program in the container and its arguments: the container is well when it exits with 0. No shell is involved.
    #[schemars(length(min = 1, max = 100), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Seconds between two checks; 30 by default.
    #[schemars(range(min = 1, max = 86_400))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<i32>,
    /// Seconds that one check may take; 30 by default.
    #[schemars(range(min = 1, max = 86_400))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
    /// How many failures in a row make the container unhealthy; 3 by default.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<i32>,
    /// For how many seconds after the start failures do not count; 0 by default.
    #[schemars(range(min = 0, max = 86_400))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period_seconds: Option<i32>,
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
    #[schemars(length(max = 64), regex(pattern = "^[0-9a-fA-F.:]*$"))]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.key.startsWith('oncelet.dev/') || self.key == 'oncelet.dev/allow-namespaces'")
    .message("labels that begin with oncelet.dev/ are oncelet's own").field_path(".key"))]
pub struct ContainerLabel {
    /// Its key: letters, digits and signs of ASCII but for = and the space. Those that begin with oncelet.dev/ are oncelet's own,
    /// but for oncelet.dev/allow-namespaces, which names the namespaces that may enter the container where a policy honors it.
    #[schemars(length(min = 1, max = 512), regex(pattern = "^[!-<>-~]+$"))]
    pub key: String,
    /// Its value, on one line.
    #[schemars(length(max = 4096), regex(pattern = r"^[^\x00-\x1f\x7f]*$"))]
    pub value: String,
}

/// What the engine says of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ContainerState {
    /// It is not there, or not made yet: see the conditions.
    Pending,
    /// Its image is being pulled.
    Pulling,
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

/// What a container's health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ContainerHealth {
    /// It has not succeeded yet.
    Starting,
    /// It succeeds.
    Healthy,
    /// It fails.
    Unhealthy,
}

/// What is known of the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// What the engine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ContainerState>,
    /// What its health check says, where it runs and has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<ContainerHealth>,
    /// How far it is, what stands in the way, or what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Ready, Healthy, where there is a health check, and Allowed, where the daemon has a policy.
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
    /// The declared lifecycle key, or the hash of what is declared of the container.
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
