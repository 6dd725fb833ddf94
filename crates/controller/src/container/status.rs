//! From the engine's container to the status of a `Container`: pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use oncelet_api::{
    Container, ContainerHealth, ContainerState, ContainerStatus, PortProtocol, PublishedPort, condition,
};
use oncelet_core::{Blocked, MissingInput};
use oncelet_engine::{Container as EngineContainer, ContainerState as EngineState, Error, ErrorKind, Health, Protocol};

use super::engine_name;
use super::whose::LABEL_KEY;
use crate::context::one_line;

/// Why a container does not run that could: `spec.stop` asks for it.
pub(crate) const STOP_REQUESTED: &str = "StopRequested";
/// Why a container is not made yet: `spec.start` is false.
pub(crate) const START_DELAYED: &str = "StartDelayed";

/// Why there is no container as the object wants it: the new one could not be started, and the old one is back.
pub(crate) const RECREATE_FAILED: &str = "RecreateFailed";

/// Why there is no usable container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// For programs.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
}

impl Trouble {
    /// The reason of what the policy does not allow.
    pub(crate) const NOT_ALLOWED: &str = "NotAllowed";
    /// The same, where there is no policy.
    pub(crate) const NO_POLICY: &str = "NoPolicy";

    /// Whether the policy is why.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.reason, Self::NOT_ALLOWED | Self::NO_POLICY)
    }

    pub(crate) fn engine(error: &Error) -> Self {
        let reason = match error.kind() {
            ErrorKind::NoSuchImage => "ImageNotFound",
            ErrorKind::NotFound => "NotFound",
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
            MissingInput::TooLong { .. } => "EngineRefused",
        };
        Self { reason, message: Blocked::from(missing).message }
    }

    /// Whether it is as the object asks.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self.reason, STOP_REQUESTED | START_DELAYED)
    }

    /// Whether the status of `container` says this already.
    pub(crate) fn is_shown_by(&self, container: &Container) -> bool {
        container.status.as_ref().is_some_and(|status| status.message.as_ref() == Some(&self.message))
    }
}

/// The status of `container`. `is_guarded` is whether there is a policy that may refuse something.
pub(crate) fn project(
    container: &Container,
    engine: &str,
    result: &Result<EngineContainer, Trouble>,
    is_guarded: bool,
    now: Timestamp,
) -> ContainerStatus {
    let mut status = match result {
        Ok(found) => of(found, engine),
        // Nobody has looked at it: what was known of it stays.
        Err(trouble) if trouble.is_refusal() => {
            let old = container.status.clone().unwrap_or_default();
            let state = old.state.or(Some(ContainerState::Pending));
            ContainerStatus { state, message: Some(trouble.message.clone()), ..old }
        }
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
    let name = engine_name(container);
    if let Ok(found) = result {
        status.lifecycle_key = found.labels.get(LABEL_KEY).cloned();
    }
    let (ready, reason, message) = match (result, status.state) {
        (Ok(_), Some(ContainerState::Running)) => (true, "Running".to_owned(), String::new()),
        (Ok(_), _) if container.spec.stop.unwrap_or_default() => {
            (false, STOP_REQUESTED.to_owned(), format!("container {name} is stopped, since spec.stop is true"))
        }
        (Ok(_), state) => {
            let state = state.map_or_else(String::new, |state| format!("{state:?}"));
            (false, state, format!("container {name} is not running"))
        }
        (Err(trouble), _) => (false, trouble.reason.to_owned(), trouble.message.clone()),
    };
    let old = container.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let condition = |kind: &str, holds: bool, reason: String, message: String| {
        let status = if holds { "True" } else { "False" };
        let same = old.iter().find(|old| old.type_ == kind && old.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: same.map_or(Time(now), |old| old.last_transition_time.clone()),
            observed_generation: container.metadata.generation,
        }
    };
    status.conditions = vec![condition(condition::READY, ready, reason, message)];
    if is_guarded {
        let refused = result.as_ref().err().filter(|trouble| trouble.is_refusal());
        let (reason, message) = refused.map_or(("Policy", String::new()), |it| (it.reason, it.message.clone()));
        status.conditions.push(condition(condition::ALLOWED, refused.is_none(), reason.to_owned(), message));
    }
    if let Some(health) = status.health {
        let healthy = health == ContainerHealth::Healthy;
        let message =
            if healthy { String::new() } else { format!("the health check of container {name} does not succeed") };
        status.conditions.push(condition(condition::HEALTHY, healthy, format!("{health:?}"), message));
    }
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
    if matches!(found.state, EngineState::Running { .. }) {
        status.health = found.health.map(|health| match health {
            Health::Starting => ContainerHealth::Starting,
            Health::Healthy => ContainerHealth::Healthy,
            Health::Unhealthy => ContainerHealth::Unhealthy,
        });
    }
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
