//! From the resources' types to the core's.

use std::time::Duration;

use kube::ResourceExt;
use oncelet_api::{ContainerExec, EnvVar, EnvVarSource, OnDelete, RERUN_ANNOTATION};
use oncelet_core::{EndedBy, ExecSpec, OnChange, Program, RunName, RunPolicy, Scope, ValueSource};

/// The name under which the run of `exec` is remembered.
pub(crate) fn run_name(exec: &ContainerExec) -> RunName {
    // A run key that the schema lets through is a valid name; should a server be laxer, the object's own name serves.
    let key = exec.spec.run_key.clone().and_then(|key| RunName::try_from(key).ok());
    key.unwrap_or_else(|| RunName::of_object(&exec.namespace().unwrap_or_default(), &exec.name_any()))
}

/// What `exec` asks for.
pub(crate) fn exec_spec(exec: &ContainerExec) -> ExecSpec {
    let namespace = exec.namespace().unwrap_or_default();
    let spec = &exec.spec;
    ExecSpec {
        uid: exec.uid().unwrap_or_default(),
        name: run_name(exec),
        program: Program {
            command: spec.command.clone(),
            args: spec.args.clone(),
            env: env(&spec.env),
            env_files: spec.env_files.clone(),
            working_directory: spec.working_directory.clone(),
            user: spec.user.clone(),
        },
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
        end: end(exec),
    }
}

fn end(exec: &ContainerExec) -> Option<EndedBy> {
    if exec.metadata.deletion_timestamp.is_some() && kills_on_delete(exec) {
        return Some(EndedBy::Delete);
    }
    exec.spec.stop.unwrap_or_default().then_some(EndedBy::Stop)
}

/// Whether the program is to be over before the object is gone.
pub(crate) fn kills_on_delete(exec: &ContainerExec) -> bool {
    exec.spec.on_delete == Some(OnDelete::Kill)
}

/// How many bytes of each stream are kept; the schema lets no negative number through.
pub(crate) fn log_limit(exec: &ContainerExec) -> Option<u64> {
    exec.spec.log_limit_bytes.and_then(|limit| u64::try_from(limit).ok())
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
