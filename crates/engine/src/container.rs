//! Containers: what an engine says of one, and the calls that change one.

mod create;
mod raw;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    time::Duration,
};

use bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
    StopContainerOptionsBuilder,
};
use jiff::Timestamp;

use crate::{
    Engine, Error, Product,
    engine::{CALL, SLOW_CALL},
    limits, patience,
};

pub use create::{Healthcheck, Mount, MountKind, NetworkRequest, NewContainer, PortRequest, RestartPolicy};

/// A container's full ID: 64 lowercase hexadecimal digits. It survives a restart, a rename and the engine's own
/// restart; a container created again under the same name has another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// The text is not a full container ID.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is not a full container ID (64 hexadecimal digits)")]
pub struct InvalidContainerId(String);

impl ContainerId {
    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidContainerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidContainerId(text.to_owned())) }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container as the engine describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Full ID.
    pub id: ContainerId,
    /// Without the leading `/` of the engine's answer.
    pub name: String,
    /// The image's name as it was given at creation.
    pub image: String,
    /// The image's ID, `sha256:…`.
    pub image_id: Option<String>,
    /// When it was created, by the engine's clock.
    pub created: Timestamp,
    /// What it is doing.
    pub state: ContainerState,
    /// `NAME=value` as configured: the image's and the container's. What a program inside sees may differ.
    pub env: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports published on the host: one entry for each host address. Empty unless it runs.
    pub ports: Vec<Port>,
    /// The address in its first network (by name, the default network before others), if it runs.
    pub ip_address: Option<String>,
    /// The host name inside.
    pub hostname: String,
    /// What its health check says, where it has one.
    pub health: Option<Health>,
}

/// What a container's health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It has not succeeded yet, and has not failed for long enough.
    Starting,
    /// It succeeds.
    Healthy,
    /// It fails.
    Unhealthy,
}

/// What a container is doing, with what the engine says of it. Times are by the engine's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Never started.
    Created,
    /// Its main program runs.
    Running {
        /// Since when.
        started_at: Option<Timestamp>,
    },
    /// Frozen; nothing can be started in it.
    Paused,
    /// Ended and about to be started again by its restart policy.
    Restarting,
    /// Its main program has ended.
    Exited {
        /// Of the main program.
        exit_code: i64,
        /// When.
        finished_at: Option<Timestamp>,
    },
    /// Being removed.
    Removing,
    /// Could not be removed.
    Dead,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "names of protocols")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of a container that is published on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Inside.
    pub container_port: u16,
    /// Of both.
    pub protocol: Protocol,
    /// Address on the host; `0.0.0.0` or empty for all.
    pub host_ip: String,
    /// On the host.
    pub host_port: u16,
}

impl Engine {
    /// Finds a container by its name or its ID (whole or a prefix); a leading `/` is ignored. A whole ID always wins
    /// over a name. `None` if there is none.
    ///
    /// The engine says what is true after this was called. Whoever asks for the same while the engine is being asked waits
    /// for the next answer together with all others who do.
    pub async fn container(&self, name_or_id: &str) -> Result<Option<Container>, Error> {
        let reference = name_or_id.trim_start_matches('/');
        limits::check_reference(reference)?;
        let _waits = patience::wait();
        self.inspections().ask(reference, || self.container_now(reference)).await
    }

    async fn container_now(&self, reference: &str) -> Result<Option<Container>, Error> {
        match self.get::<raw::Inspection>(&format!("/containers/{reference}/json")).await {
            Ok(found) => found.into_container().map(Some).map_err(|error| Error::protocol(self.endpoint(), error)),
            Err(error) => match error.about_container(reference) {
                Error::NotFound { .. } => Ok(None),
                other => Err(other),
            },
        }
    }

    /// The containers that have this label, or this label with this value, whether they run or not: their IDs and the label's
    /// values.
    pub async fn labelled(&self, label: &str, value: Option<&str>) -> Result<Vec<(ContainerId, String)>, Error> {
        let wanted = value.map_or_else(|| label.to_owned(), |value| format!("{label}={value}"));
        let filters = HashMap::from([("label", vec![wanted])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self
            .call("container_list", CALL, |docker| async move { docker.list_containers(Some(options)).await })
            .await?;
        let read = |summary: bollard::models::ContainerSummary| {
            let value = summary.labels?.remove(label)?;
            Some((summary.id?.parse().ok()?, value))
        };
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// Starts a container; does nothing if it runs. A network that is missing may show only here.
    pub async fn start_container(&self, id: &ContainerId) -> Result<(), Error> {
        self.call("container_start", SLOW_CALL, |docker| async move { docker.start_container(id.as_str(), None).await })
            .await
            .map_err(|error| create::missing_network(&error).unwrap_or_else(|| error.about_container(id.as_str())))
    }

    /// Makes one health check in a container, where the engine does not make them by itself: then the answer is true, and what
    /// the check says comes as an event. Docker makes them; Podman leaves them to timers of systemd, which are not everywhere.
    pub async fn check_health(&self, id: &ContainerId) -> Result<bool, Error> {
        if self.product().await? == Product::Docker {
            return Ok(false);
        }
        let path = format!("/v4.0.0/libpod/containers/{id}/healthcheck");
        match self.get::<serde::de::IgnoredAny>(&path).await {
            Ok(_) => Ok(true),
            Err(error) => Err(error.about_container(id.as_str())),
        }
    }

    /// Stops a container: TERM to its main program, KILL after `grace` (whole seconds, rounded up). Every exec in it
    /// gets KILL only. Does nothing if it does not run.
    pub async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), Error> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options = StopContainerOptionsBuilder::default().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build();
        self.call("container_stop", SLOW_CALL + grace, |docker| async move {
            docker.stop_container(id.as_str(), Some(options)).await
        })
        .await
        .map_err(|error| error.about_container(id.as_str()))
    }

    /// Gives a container another name. That it has it already is no error.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the name is taken.
    pub async fn rename_container(&self, id: &ContainerId, name: &str) -> Result<(), Error> {
        limits::check_reference(name)?;
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        let renamed = self
            .call("container_rename", CALL, |docker| async move { docker.rename_container(id.as_str(), options).await })
            .await;
        match renamed {
            // Docker's way to say so; Podman does nothing.
            Err(Error::Rejected { message, .. }) if message.contains("same name as its current name") => Ok(()),
            Err(Error::Rejected { message, .. }) if message.contains("already in use") => {
                Err(Error::Conflict { name: name.to_owned(), holder: None })
            }
            other => other.map_err(|error| error.about_container(id.as_str())),
        }
    }

    /// Removes a container and its anonymous volumes. A running one only with `force`, which kills it.
    pub async fn remove_container(&self, id: &ContainerId, force: bool) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default().force(force).v(true).build();
        self.call("container_remove", SLOW_CALL, |docker| async move {
            docker.remove_container(id.as_str(), Some(options)).await
        })
        .await
        .map_err(|error| match error {
            // "cannot remove … as it is running" is no reason to say that nothing can run in it.
            Error::Rejected { status: 404, .. } => error.about_container(id.as_str()),
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_lowercase_id_is_an_id() {
        assert!("0123456789abcdef".repeat(4).parse::<ContainerId>().is_ok());
        for bad in ["", "0123456789ab", &"0123456789ABCDEF".repeat(4), &"g".repeat(64)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }
}
