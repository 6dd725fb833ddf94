//! From the resources' types to the core's.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt;
use oncelet_api::{
    ContainerExec, ContainerPort, ContainerSpec, EnvVar, EnvVarSource, OnDelete, PortProtocol, RERUN_ANNOTATION,
    RETRY_ANNOTATION, VolumeKind, VolumeMount,
};
use oncelet_core::{
    DEFAULT_LOG_LIMIT, EndedBy, ExecSpec, OnChange, Program, RunId, RunName, RunPolicy, Scope, Stdin, StdinDigest,
    ValueSource, WantedPort,
};
use oncelet_engine::{
    Healthcheck, Mount, MountKind, NetworkRequest, NewContainer, PortRequest, Protocol, RestartPolicy,
};

/// The names under which the run of `exec` may be remembered: its object's name, or its run key, shared with other namespaces and
/// as its own namespace's.
pub fn run_names(exec: &ContainerExec) -> Vec<RunName> {
    match run_key_names(exec) {
        Some((shared, own)) => vec![shared, own],
        None => vec![object_name(exec)],
    }
}

/// The names for the run key of `exec`, where it has one: shared with all namespaces, and its own namespace's.
pub(crate) fn run_key_names(exec: &ContainerExec) -> Option<(RunName, RunName)> {
    let key = exec.spec.run_key.as_ref()?;
    // A run key that the schema lets through is a valid name; should a server be laxer, the object's own name serves.
    let shared = RunName::try_from(key.clone()).ok()?;
    Some((shared, RunName::of_run_key(&exec.namespace().unwrap_or_default(), key)))
}

fn object_name(exec: &ContainerExec) -> RunName {
    RunName::of_object(&exec.namespace().unwrap_or_default(), &exec.name_any())
}

/// The program that `exec` declares.
pub fn program(exec: &ContainerExec) -> Program {
    let spec = &exec.spec;
    Program {
        command: spec.command.clone(),
        args: spec.args.clone(),
        env: env(&spec.env),
        env_files: spec.env_files.clone(),
        working_directory: spec.working_directory.clone(),
        user: spec.user.clone(),
        stdin: spec.stdin.as_ref().map(stdin),
    }
}

fn stdin(stdin: &oncelet_api::Stdin) -> Stdin {
    match stdin.clone() {
        oncelet_api::Stdin { config_map_key_ref: Some(at), .. } => {
            Stdin::ConfigMapKeyRef { name: at.name, key: at.key, optional: at.optional.unwrap_or_default() }
        }
        oncelet_api::Stdin { secret_key_ref: Some(at), .. } => {
            Stdin::SecretKeyRef { name: at.name, key: at.key, optional: at.optional.unwrap_or_default() }
        }
        // The schema lets no negative number through.
        oncelet_api::Stdin { upload: Some(upload), .. } => {
            Stdin::Upload(StdinDigest { bytes: u64::try_from(upload.bytes).unwrap_or_default(), sha256: upload.sha256 })
        }
        oncelet_api::Stdin { value, .. } => Stdin::Value(StdinDigest::of(value.unwrap_or_default().as_bytes())),
    }
}

/// What `exec` asks for.
pub(crate) fn exec_spec(exec: &ContainerExec) -> ExecSpec {
    let namespace = exec.namespace().unwrap_or_default();
    let spec = &exec.spec;
    ExecSpec {
        uid: exec.uid().unwrap_or_default(),
        // With a run key, until it is known which of its names counts, see `crate::names`.
        name: run_key_names(exec).map_or_else(|| object_name(exec), |(_, own)| own),
        program: program(exec),
        run_policy: match spec.run_policy.unwrap_or_default() {
            oncelet_api::RunPolicy::Once => RunPolicy::Once,
            oncelet_api::RunPolicy::Always => RunPolicy::Always,
        },
        on_change: match spec.on_change.unwrap_or_default() {
            oncelet_api::OnChange::Keep => OnChange::Keep,
            oncelet_api::OnChange::Rerun => OnChange::Rerun,
            oncelet_api::OnChange::Fail => OnChange::Fail,
        },
        scope: match (spec.scope.unwrap_or_default(), &spec.container_name) {
            (oncelet_api::Scope::Name, Some(container)) => Scope::Name(format!("{namespace}/{container}")),
            _ => Scope::Container,
        },
        rerun: exec.annotations().get(RERUN_ANNOTATION).cloned(),
        retry: exec.annotations().get(RETRY_ANNOTATION).and_then(|at| at.parse().ok()),
        shown: exec.status.as_ref().and_then(|status| status.run_id).map(RunId),
        end: end(exec),
    }
}

fn end(exec: &ContainerExec) -> Option<EndedBy> {
    if exec.metadata.deletion_timestamp.is_some() && kills_on_delete(exec) {
        return Some(EndedBy::Delete);
    }
    exec.spec.stop.unwrap_or_default().then_some(EndedBy::Stop)
}

/// Whether the end of the program is asked for, so that it is not started any more.
pub(crate) fn is_to_end(exec: &ContainerExec) -> bool {
    end(exec).is_some()
}

/// The port that must accept connections before the program is started.
pub(crate) fn wanted_port(exec: &ContainerExec) -> Option<WantedPort> {
    let wanted = exec.spec.wait_for_port.as_ref()?;
    Some(WantedPort {
        // The schema keeps it within 1 to 65535.
        number: u16::try_from(wanted.port).unwrap_or_default(),
        stable: seconds(wanted.stable_seconds, 1),
        timeout: wanted.timeout_seconds.map(|limit| seconds(Some(limit), 0)),
    })
}

/// Whether the program is to be over before the object is gone.
pub(crate) fn kills_on_delete(exec: &ContainerExec) -> bool {
    exec.spec.on_delete == Some(OnDelete::Kill)
}

/// How many bytes of each stream are kept; the schema lets no negative number through.
pub(crate) fn log_limit(exec: &ContainerExec) -> u64 {
    exec.spec.log_limit_bytes.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(DEFAULT_LOG_LIMIT)
}

/// After how long the program is ended.
pub(crate) fn timeout(exec: &ContainerExec) -> Option<Duration> {
    exec.spec.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// How long a program has from SIGTERM to SIGKILL.
pub(crate) fn grace(exec: &ContainerExec) -> Duration {
    const DEFAULT: u64 = 10;
    let seconds = exec.spec.stop_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Duration::from_secs(seconds.unwrap_or(DEFAULT))
}

/// The container to make for `spec`, with what was resolved of it.
pub(crate) fn new_container(
    spec: &ContainerSpec,
    name: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    labels: BTreeMap<String, String>,
) -> NewContainer {
    NewContainer {
        name,
        image: spec.image.clone().unwrap_or_default(),
        command: spec.command.clone(),
        args,
        env,
        ports: spec.ports.iter().map(port).collect(),
        labels,
        mounts: spec.volume_mounts.iter().map(mount).collect(),
        networks: spec
            .networks
            .iter()
            .map(|network| NetworkRequest { name: network.name.clone(), aliases: network.aliases.clone() })
            .collect(),
        restart: match spec.restart_policy.unwrap_or_default() {
            oncelet_api::RestartPolicy::No => RestartPolicy::No,
            oncelet_api::RestartPolicy::OnFailure => RestartPolicy::OnFailure,
            oncelet_api::RestartPolicy::UnlessStopped => RestartPolicy::UnlessStopped,
            oncelet_api::RestartPolicy::Always => RestartPolicy::Always,
        },
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
    }
}

fn port(port: &ContainerPort) -> PortRequest {
    // The schema keeps ports within 1 to 65535.
    let number = |port: i32| u16::try_from(port).unwrap_or_default();
    PortRequest {
        container_port: number(port.container_port),
        host_port: port.host_port.map(number),
        host_ip: Some(port.host_ip.clone().unwrap_or_else(|| "127.0.0.1".to_owned())),
        protocol: match port.protocol.unwrap_or_default() {
            PortProtocol::Tcp => Protocol::Tcp,
            PortProtocol::Udp => Protocol::Udp,
        },
    }
}

fn mount(mount: &VolumeMount) -> Mount {
    Mount {
        kind: match mount.kind {
            VolumeKind::Bind => MountKind::Bind,
            VolumeKind::Volume => MountKind::Volume,
        },
        source: mount.source.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only.unwrap_or_default(),
    }
}

/// How long between two health checks; engines have the same default.
pub(crate) fn check_interval(check: Option<&oncelet_api::Healthcheck>) -> Duration {
    seconds(check.and_then(|check| check.interval_seconds), 30)
}

fn seconds(value: Option<i32>, default: u32) -> Duration {
    Duration::from_secs(value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).into())
}

fn healthcheck(check: &oncelet_api::Healthcheck) -> Healthcheck {
    Healthcheck {
        command: check.command.clone(),
        interval: check_interval(Some(check)),
        timeout: seconds(check.timeout_seconds, 30),
        retries: check.retries.and_then(|retries| u32::try_from(retries).ok()).unwrap_or(3),
        start_period: seconds(check.start_period_seconds, 0),
    }
}

/// Declared variables.
pub(crate) fn env(vars: &[EnvVar]) -> Vec<oncelet_core::EnvVar> {
    vars.iter().map(|var| oncelet_core::EnvVar { name: var.name.clone(), source: source(var) }).collect()
}

fn source(var: &EnvVar) -> ValueSource {
    match var.value_from.clone().unwrap_or_default() {
        EnvVarSource { field_ref: Some(field), .. } => ValueSource::FieldRef(field.field_path),
        EnvVarSource { container_field_ref: Some(field), .. } => ValueSource::ContainerFieldRef(field.field_path),
        EnvVarSource { config_map_key_ref: Some(at), .. } => {
            ValueSource::ConfigMapKeyRef { name: at.name, key: at.key, optional: at.optional.unwrap_or_default() }
        }
        EnvVarSource { secret_key_ref: Some(at), .. } => {
            ValueSource::SecretKeyRef { name: at.name, key: at.key, optional: at.optional.unwrap_or_default() }
        }
        // A variable without a value is an empty one, as in Kubernetes.
        EnvVarSource { .. } => ValueSource::Value(var.value.clone().unwrap_or_default()),
    }
}
