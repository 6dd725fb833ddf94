//! From the engine's container to the status of a `Container`: pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use oncelet_api::{Container, ContainerState, ContainerStatus, PortProtocol, PublishedPort, condition};
use oncelet_core::{Blocked, MissingInput};
use oncelet_engine::{Container as EngineContainer, ContainerState as EngineState, Error, ErrorKind, Protocol};

use super::{engine_name, is_ours_to_make, plan::lifecycle_key};
use crate::context::one_line;

/// Why there is no usable container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// For programs.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
}

impl Trouble {
    pub(crate) fn engine(error: &Error) -> Self {
        let reason = match error.kind() {
            ErrorKind::NoSuchImage => "ImageNotFound",
            ErrorKind::Unreachable | ErrorKind::InvalidEndpoint => "EngineUnreachable",
            _ => "EngineRefused",
        };
        Self { reason, message: one_line(error) }
    }

    pub(crate) fn input(missing: &MissingInput) -> Self {
        let reason = match missing {
            MissingInput::ConfigMap { .. } => "ConfigMapNotFound",
            MissingInput::Secret { .. } => "SecretNotFound",
            MissingInput::Field { .. } => "FieldNotFound",
            MissingInput::EnvFile { .. } => "EnvFileNotUsable",
        };
        Self { reason, message: Blocked::from(missing).message }
    }

    /// Whether the status of `container` says this already.
    pub(crate) fn is_shown_by(&self, container: &Container) -> bool {
        container.status.as_ref().is_some_and(|status| status.message.as_ref() == Some(&self.message))
    }
}

/// The status of `container`.
pub(crate) fn project(
    container: &Container,
    engine: &str,
    result: &Result<EngineContainer, Trouble>,
    now: Timestamp,
) -> ContainerStatus {
    let mut status = match result {
        Ok(found) => of(found, engine),
        Err(trouble) => ContainerStatus {
            state: Some(ContainerState::Pending),
            message: Some(trouble.message.clone()),
            ..ContainerStatus::default()
        },
    };
    // The engine tells the start of a running container only; that it was started is remembered, see `plan`.
    if let Some(old) = &container.status
        && old.container_id == status.container_id
        && status.startup_timestamp.is_none()
    {
        status.startup_timestamp.clone_from(&old.startup_timestamp);
    }
    if result.is_ok() && is_ours_to_make(container) {
        status.lifecycle_key = Some(lifecycle_key(&container.spec));
    }
    let (ready, reason, message) = match (result, status.state) {
        (Ok(_), Some(ContainerState::Running)) => ("True", "Running".to_owned(), String::new()),
        (Ok(_), state) => {
            let state = state.map_or_else(String::new, |state| format!("{state:?}"));
            let message = format!("container {} is not running", engine_name(container));
            ("False", state, message)
        }
        (Err(trouble), _) => ("False", trouble.reason.to_owned(), trouble.message.clone()),
    };
    let old = container.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let since = old
        .iter()
        .find(|old| old.type_ == condition::READY && old.status == ready)
        .map_or(Time(now), |old| old.last_transition_time.clone());
    status.conditions = vec![Condition {
        type_: condition::READY.to_owned(),
        status: ready.to_owned(),
        reason,
        message,
        last_transition_time: since,
        observed_generation: container.metadata.generation,
    }];
    status.observed_generation = container.metadata.generation;
    status
}

fn of(found: &EngineContainer, engine: &str) -> ContainerStatus {
    let mut status = ContainerStatus {
        container_id: Some(found.id.to_string()),
        short_id: Some(found.id.as_str().chars().take(12).collect()),
        container_name: Some(found.name.clone()),
        engine: Some(engine.to_owned()),
        address: found.ip_address.clone(),
        ports: Some(found.ports.iter().map(published).collect()),
        ..ContainerStatus::default()
    };
    status.state = Some(match &found.state {
        EngineState::Created => ContainerState::Created,
        EngineState::Running { started_at } => {
            status.startup_timestamp = started_at.map(micro);
            ContainerState::Running
        }
        EngineState::Paused => ContainerState::Paused,
        EngineState::Restarting => ContainerState::Restarting,
        EngineState::Exited { exit_code, finished_at } => {
            status.exit_code = Some(*exit_code);
            status.finish_timestamp = finished_at.map(micro);
            ContainerState::Exited
        }
        EngineState::Removing | EngineState::Dead => ContainerState::Dead,
    });
    status
}

/// The engine tells nanoseconds, of which a status keeps microseconds: what is compared must have been cut alike.
fn micro(at: Timestamp) -> MicroTime {
    MicroTime(Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at))
}

fn published(port: &oncelet_engine::Port) -> PublishedPort {
    PublishedPort {
        container_port: i32::from(port.container_port),
        host_port: i32::from(port.host_port),
        host_ip: port.host_ip.clone(),
        protocol: match port.protocol {
            Protocol::Udp => PortProtocol::Udp,
            Protocol::Tcp | Protocol::Sctp => PortProtocol::Tcp,
        },
    }
}
