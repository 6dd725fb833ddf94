//! The resources of oncelet: `ContainerExec` and `Container`, group `oncelet.dev`, version `v1alpha1`.
//!
//! The doc comments here are what `kubectl explain` shows, and `crds/` is generated from these types
//! (`cargo xtask crds`). Nothing here talks to a cluster.

// The lint takes two columns or two rules for one attribute written twice.
#![allow(clippy::duplicated_attributes)]
// Here doc comments are what `kubectl explain` prints, as plain text.
#![allow(clippy::doc_markdown, clippy::doc_link_with_quotes)]
// The schema derive repeats each struct inside a function, where its `pub` reaches nobody.
#![allow(unreachable_pub)]
// `fieldRef` and its siblings are Kubernetes' names.
#![allow(clippy::struct_field_names)]

mod container;
mod container_exec;
mod env;
mod rules;
mod stdin;
mod warnings;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

pub use container::{
    Container, ContainerHealth, ContainerLabel, ContainerMode, ContainerNetwork, ContainerPort, ContainerSpec,
    ContainerState, ContainerStatus, Healthcheck, PortProtocol, PublishedPort, PullPolicy, RestartPolicy, VolumeKind,
    VolumeMount,
};
pub use container_exec::{
    Capture, CapturedBy, ContainerExec, ContainerExecSpec, ContainerExecStatus, EffectiveVar, ExecState, OnChange,
    OnDelete, Output, RunPolicy, Scope, WaitFor, WaitForPort,
};
pub use env::{ContainerFieldRef, EnvVar, EnvVarSource, FieldRef, KeyRef};
pub use stdin::{
    NOT_UPLOADED, Stdin, UPLOAD_KEY, UPLOAD_LABEL, UPLOAD_LIMIT, UPLOAD_PART, UPLOAD_TYPE, UPLOADED_ANNOTATION, Upload,
};
pub use warnings::{Warning, admission_warnings, literal};

/// The API group.
pub const GROUP: &str = "oncelet.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// The annotation that asks for one more run: once for each new value.
pub const RERUN_ANNOTATION: &str = "oncelet.dev/rerun";
/// The annotation that asks for another try of a start that failed: one that ended before this time (RFC 3339) is tried again
/// at once.
pub const RETRY_ANNOTATION: &str = "oncelet.dev/retry";

/// The annotation of a `Container` that takes over the container with this ID, which another oncelet made for an object of the same
/// namespace and name: the way back to it for whoever has lost the store of that oncelet.
pub const ADOPT_ANNOTATION: &str = "oncelet.dev/adopt";

/// The finalizer of objects with `onDelete: Kill`: they stay until their program is over.
pub const KILL_FINALIZER: &str = "oncelet.dev/kill-program";

/// The finalizer of `Container` objects whose container is removed with them.
pub const REMOVE_FINALIZER: &str = "oncelet.dev/remove-container";

/// The label of an engine's container that names the namespaces whose execs may run in it, separated by commas, where the daemon's
/// policy heeds it.
pub const ALLOW_NAMESPACES_LABEL: &str = "oncelet.dev/allow-namespaces";

/// The condition types of both kinds, as `kubectl wait --for=condition=…` takes them.
pub mod condition {
    /// The container exists and runs.
    pub const CONTAINER_READY: &str = "ContainerReady";
    /// The program was started, now or in the run that was restored.
    pub const STARTED: &str = "Started";
    /// The run is over, however it ended.
    pub const COMPLETE: &str = "Complete";
    /// The program exited with 0.
    pub const SUCCEEDED: &str = "Succeeded";
    /// The declared program differs from the one that ran.
    pub const SPEC_DRIFTED: &str = "SpecDrifted";
    /// The run store can be used.
    pub const STORE_AVAILABLE: &str = "StoreAvailable";
    /// The daemon's policy allows what the object asks for. Only where there is something that may be refused.
    pub const ALLOWED: &str = "Allowed";
    /// The container of a `Container` object exists and runs.
    pub const READY: &str = "Ready";
    /// Its health check succeeds.
    pub const HEALTHY: &str = "Healthy";
}

/// The CRDs, as `oncelet crds` prints them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![ContainerExec::crd(), Container::crd()];
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            join_lines(schema);
        }
    }
    crds
}

/// Doc comments are broken into lines where the source is full; `kubectl explain` breaks them where the terminal is.
fn join_lines(schema: &mut JSONSchemaProps) {
    if let Some(description) = &mut schema.description {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(join_lines);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        join_lines(items);
    }
}
