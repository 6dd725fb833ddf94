//! `ContainerExec`: one program to run inside one container, once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::immutable;
use crate::{EnvVar, Stdin};

/// One program to run inside one container, at most once for each container identity. The outcome is remembered:
/// an object created again gets it back in status instead of running the program again.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "oncelet.dev",
    version = "v1alpha1",
    kind = "ContainerExec",
    plural = "containerexecs",
    shortname = "cexec",
    shortname = "ctrexec",
    category = "oncelet",
    namespaced,
    status = "ContainerExecStatus",
    derive = "PartialEq",
    doc = "A program that runs inside a container at most once, and whose outcome is remembered.",
    printcolumn(
        name = "Container",
        type_ = "string",
        json_path = ".status.containerName",
        description = "The engine's name of the container."
    ),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "Where the run is."),
    printcolumn(
        name = "Exit",
        type_ = "integer",
        json_path = ".status.exitCode",
        description = "The program's exit code."
    ),
    printcolumn(
        name = "Restored",
        type_ = "boolean",
        json_path = ".status.restored",
        description = "Whether the outcome is that of an earlier object's run."
    ),
    printcolumn(
        name = "Duration",
        type_ = "string",
        json_path = ".status.duration",
        description = "How long the program ran."
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
    validation = Rule::new("has(self.containerName) != has(self.engineContainer)")
        .message("set exactly one of containerName and engineContainer"),
    validation = Rule::new("!has(self.scope) || self.scope != 'Name' || has(self.containerName)")
        .message("scope Name needs containerName: only a Container object has a name that outlives its container")
        .field_path(".scope"),
    validation = immutable("containerName"),
    validation = immutable("engineContainer"),
    validation = Rule::new("!has(self.engine) || has(self.engineContainer)")
        .message("engine goes with engineContainer: a Container object has its own")
        .field_path(".engine"),
    validation = immutable("engine"),
    validation = immutable("command"),
    validation = immutable("args"),
    validation = immutable("env"),
    validation = immutable("envFiles"),
    validation = immutable("envFilesVisible"),
    validation = immutable("workingDirectory"),
    validation = immutable("user"),
    validation = immutable("stdin"),
    validation = immutable("runPolicy"),
    validation = immutable("runKey"),
    validation = immutable("onChange"),
    validation = immutable("scope"),
    validation = immutable("logLimitBytes"),
    validation = Rule::new(
        "!has(self.capture) || self.capture != 'Attached' || !(has(self.timeoutSeconds) || has(self.stdin) \
         || has(self.onDelete) && self.onDelete == 'Kill')"
    )
        .message("timeoutSeconds, stdin and onDelete Kill need a supervisor in the container: leave capture out, or set Supervised")
        .field_path(".capture"),
    validation = immutable("capture"),
    validation = immutable("timeoutSeconds"),
    validation = immutable("stopGracePeriodSeconds"),
    validation = immutable("onDelete"),
    validation = immutable("dependsOn"),
    validation = immutable("waitFor"),
    validation = Rule::new("!has(self.capture) || self.capture != 'Attached' || !has(self.waitForPort)")
        .message("waitForPort needs a supervisor in the container, which makes the connections: leave capture out, or set Supervised")
        .field_path(".capture"),
    validation = immutable("waitForPort"),
)]
pub struct ContainerExecSpec {
    /// The name of a Container object in this namespace. Exactly one of containerName and engineContainer is set.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// The name or ID of a container in the engine, without any Container object.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^/?[a-zA-Z0-9][a-zA-Z0-9_.-]*$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_container: Option<String>,
    /// The engine of engineContainer: docker, podman, or a URL such as unix:///run/user/1000/podman/podman.sock; by default the
    /// one that oncelet was started with.
    #[schemars(length(min = 1, max = 512))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The program: a path in the container, or a name found through its PATH. No shell is involved.
    #[schemars(length(min = 1, max = 4096))]
    pub command: String,
    /// The program's arguments. $(NAME) refers to a variable of env or envFiles; $$(NAME) is the text $(NAME). As in Kubernetes,
    /// $$ is a single $ everywhere: write $$$$ where the program is to get $$. A single $ stays as it is.
    #[schemars(length(max = 1000), inner(length(max = 131_072)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables added to the container's own environment, in order.
    #[schemars(length(max = 1000))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Paths of dotenv files on the machine where oncelet runs. Variables of env win over theirs.
    #[schemars(length(max = 100), inner(length(min = 1, max = 4096)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_files: Vec<String>,
    /// Whether values from envFiles are shown in the status and kept in records; by default they are secrets, as those of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_files_visible: Option<bool>,
    /// The directory in the container to start in; by default the container's own.
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// The user in the container to run as: a name or number, or user:group; by default the container's own.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What the program reads from stdin; by default nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Stdin>,
    /// How often the program runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_policy: Option<RunPolicy>,
    /// The name under which the run is remembered, instead of NAMESPACE/NAME. Objects of the namespace with the same key share one
    /// run, and those of other namespaces where the daemon's policy shares the key, or there is none as with oncelet up.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_key: Option<String>,
    /// What happens when the recorded run was of another program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_change: Option<OnChange>,
    /// What the memory is tied to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// How many bytes of stdout and of stderr are kept, from the first on; by default 104857600 (100 MiB). The last 8 KiB are kept
    /// besides, and what is between is counted and dropped. 0 keeps nothing at all.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_limit_bytes: Option<i64>,
    /// Who watches over the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    /// After how many seconds the program is ended; by default never. It needs a supervisor in the container.
    #[schemars(range(min = 1, max = 31_536_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// Set to true to end the program and its children: SIGTERM, then SIGKILL. A program that has not started yet is not
    /// started while this is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<bool>,
    /// How many seconds a program has from SIGTERM to SIGKILL when it is ended; 10 by default.
    #[schemars(range(min = 0, max = 86_400))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_period_seconds: Option<i64>,
    /// What becomes of the program when the object is deleted while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<OnDelete>,
    /// Names of ContainerExec objects in this namespace that must have succeeded before the program is started. What was run
    /// before is restored without them.
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// What the container must be before the program is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for: Option<WaitFor>,
    /// A port that must accept connections before the program is started, beside what waitFor says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for_port: Option<WaitForPort>,
}

// The doc of an enum stands in the schema for that of the field that has it.

/// How often the program runs. Once (the default): once for each container identity. Always: once for each object, also
/// in the same container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunPolicy {
    /// Once for each container identity.
    #[default]
    Once,
    /// Once for each object.
    Always,
}

/// What happens when the recorded run was of another program. Keep (the default): its outcome stays, and the condition
/// SpecDrifted names what differs. Rerun: each distinct program runs once. Fail: nothing runs or is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnChange {
    /// The old outcome stays.
    #[default]
    Keep,
    /// Each distinct program runs once.
    Rerun,
    /// Nothing runs and nothing is restored.
    Fail,
}

/// What the memory is tied to. Container (the default): the engine's container ID, so that a recreated container runs the
/// program again. Name: the name of the Container object, across recreates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// The engine's container ID.
    #[default]
    Container,
    /// The name of the `Container` object.
    Name,
}

/// Who watches over the program. Auto (the default): a supervisor in the container, or the daemon where none can be put
/// there. Supervised: a supervisor, or the program does not run. Attached: the daemon, through the engine; when it is
/// killed in the middle, the outcome cannot be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Capture {
    /// A supervisor where that is possible.
    #[default]
    Auto,
    /// A supervisor in the container.
    Supervised,
    /// The daemon.
    Attached,
}

/// What the container must be before the program is started. Running (the default): it runs. Healthy: its health check
/// succeeds. What was run before is restored either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaitFor {
    /// It runs.
    #[default]
    Running,
    /// Its health check succeeds.
    Healthy,
}

/// A port that must accept connections before the program is started. They are made inside the container, by the supervisor, to
/// the container's own addresses and never to 127.0.0.1, where the temporary servers of database images listen. What was run
/// before is restored without them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitForPort {
    /// The TCP port, as the server in the container has it; it need not be published.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// For how many seconds connections must succeed without a failure in between; 1 by default.
    #[schemars(range(min = 0, max = 60))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_seconds: Option<i32>,
    /// After how many seconds the condition says PortTimeout instead of PortNotReady; by default never. The program has not run
    /// then, and is still started when the port opens.
    #[schemars(range(min = 1, max = 86_400))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
}

/// What becomes of the program when the object is deleted while it runs. Detach (the default): it goes on, and its outcome
/// is recorded. Kill: it is ended, and the object stays until it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDelete {
    /// It goes on.
    #[default]
    Detach,
    /// It is ended.
    Kill,
}

/// Who watched over the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CapturedBy {
    /// A supervisor in the container.
    Supervised,
    /// The daemon, through the engine.
    Attached,
}

/// Where the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExecState {
    /// Something stands in the way: see the conditions.
    Waiting,
    /// The right to run is ours; nothing was started.
    Claimed,
    /// The engine is being asked to start the program.
    Starting,
    /// The program was started.
    Running,
    /// The program exited by itself.
    Finished,
    /// Something else ended it.
    Interrupted,
    /// It could not be started, and is tried again.
    FailedToStart,
    /// What happened cannot be known.
    Unknown,
}

/// What is known of the run. Every field of an outcome is the recorded one, however often the object is created again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerExecStatus {
    /// Where the run is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ExecState>,
    /// What stands in the way, or went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// ContainerReady, Started, Complete, Succeeded, SpecDrifted, StoreAvailable, and Allowed, where the daemon has a policy.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Whether the outcome is that of a run for an earlier object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
    /// When the program was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_timestamp: Option<MicroTime>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_timestamp: Option<MicroTime>,
    /// How long the program ran, for people; set when the run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The program's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The arguments that the program got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_args: Option<Vec<String>>,
    /// The variables that were added to the container's own environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_env: Option<Vec<EffectiveVar>>,
    /// The engine's full ID of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The engine's name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// The run's number in the store, as oncelet runs show takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<i64>,
    /// Who watched over the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CapturedBy>,
    /// Why there was no supervisor in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_reason: Option<String>,
    /// What the program wrote to stdout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Output>,
    /// What the program wrote to stderr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Output>,
    /// The generation of the object that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// A variable that the program got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveVar {
    /// Its name.
    pub name: String,
    /// Its value; what came from a Secret stands as <from secret NAME/KEY>, from envFiles as <from env file PATH/NAME>.
    pub value: String,
}

/// What a program wrote to one stream. The whole of it: oncelet logs NAME.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// How many bytes it wrote.
    pub bytes: i64,
    /// Whether it is longer than what was kept from its beginning: because of logLimitBytes, or because the container's disk had
    /// no room for it.
    pub truncated: bool,
    /// How many bytes are missing between what was kept of its beginning and of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_bytes: Option<i64>,
    /// Whether processes that the program left behind still held it open when the program ended. What they write is discarded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held_open: bool,
    /// Its last 2 KiB as text, with U+FFFD for control characters.
    pub tail: String,
}
