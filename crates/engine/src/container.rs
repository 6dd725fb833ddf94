//! Containers: what an engine says of one, and the calls that change one.

mod raw;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    time::Duration,
};

use bollard::{
    models::{ContainerCreateBody, HostConfig, PortBinding},
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder},
};
use jiff::Timestamp;

use crate::{Engine, Error, engine::SLOW_CALL, limits};

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

/// A port to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRequest {
    /// Inside.
    pub container_port: u16,
    /// On the host; the engine chooses where it is not given.
    pub host_port: Option<u16>,
    /// Address on the host; all of them where it is not given.
    pub host_ip: Option<String>,
    /// Of both.
    pub protocol: Protocol,
}

/// A container to create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewContainer {
    /// Its name, unique in the engine.
    pub name: String,
    /// Must be in the engine's local storage already.
    pub image: String,
    /// Replaces the image's entrypoint.
    pub command: Option<String>,
    /// Replace the image's arguments; empty leaves them, unless `command` is given.
    pub args: Vec<String>,
    /// Added to the image's environment.
    pub env: Vec<(String, String)>,
    /// Published ports.
    pub ports: Vec<PortRequest>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Engine {
    /// Finds a container by its name or its ID (whole or a prefix); a leading `/` is ignored. A whole ID always wins
    /// over a name. `None` if there is none.
    pub async fn container(&self, name_or_id: &str) -> Result<Option<Container>, Error> {
        let reference = name_or_id.trim_start_matches('/');
        limits::check_reference(reference)?;
        match self.get::<raw::Inspection>(&format!("/containers/{reference}/json")).await {
            Ok(found) => found.into_container().map(Some).map_err(|error| Error::protocol(self.endpoint(), error)),
            Err(error) => match error.about_container(reference) {
                Error::NotFound { .. } => Ok(None),
                other => Err(other),
            },
        }
    }

    /// Creates a container; it does not start it.
    pub async fn create_container(&self, new: &NewContainer) -> Result<ContainerId, Error> {
        limits::check_reference(&new.name)?;
        let command: Vec<_> = new.command.iter().chain(&new.args).cloned().collect();
        limits::check(&command, &new.env)?;
        let options = CreateContainerOptionsBuilder::default().name(&new.name).build();
        let created = self
            .call(SLOW_CALL, |docker| async move { docker.create_container(Some(options), body(new)).await })
            .await
            .map_err(|error| refusal_to_create(new, error))?;
        created.id.parse().map_err(|error: InvalidContainerId| Error::protocol(self.endpoint(), error))
    }

    /// Starts a container; does nothing if it runs.
    pub async fn start_container(&self, id: &ContainerId) -> Result<(), Error> {
        self.call(SLOW_CALL, |docker| async move { docker.start_container(id.as_str(), None).await })
            .await
            .map_err(|error| error.about_container(id.as_str()))
    }

    /// Stops a container: TERM to its main program, KILL after `grace` (whole seconds, rounded up). Every exec in it
    /// gets KILL only. Does nothing if it does not run.
    pub async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), Error> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options = StopContainerOptionsBuilder::default().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build();
        self.call(SLOW_CALL + grace, |docker| async move { docker.stop_container(id.as_str(), Some(options)).await })
            .await
            .map_err(|error| error.about_container(id.as_str()))
    }

    /// Removes a container and its anonymous volumes. A running one only with `force`, which kills it.
    pub async fn remove_container(&self, id: &ContainerId, force: bool) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default().force(force).v(true).build();
        self.call(SLOW_CALL, |docker| async move { docker.remove_container(id.as_str(), Some(options)).await })
            .await
            .map_err(|error| match error {
                // "cannot remove … as it is running" is no reason to say that nothing can run in it.
                Error::Rejected { status: 404, .. } => error.about_container(id.as_str()),
                other => other,
            })
    }
}

fn body(new: &NewContainer) -> ContainerCreateBody {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &new.ports {
        let binding = PortBinding {
            host_ip: port.host_ip.clone(),
            // Empty means that the engine chooses; Podman takes an absent one for "not published".
            host_port: Some(port.host_port.map(|port| port.to_string()).unwrap_or_default()),
        };
        let key = format!("{}/{}", port.container_port, port.protocol.as_str());
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    ContainerCreateBody {
        image: Some(new.image.clone()),
        entrypoint: new.command.clone().map(|command| vec![command]),
        cmd: (!new.args.is_empty()).then(|| new.args.clone()),
        env: Some(limits::joined(&new.env)),
        labels: Some(new.labels.clone().into_iter().collect()),
        exposed_ports: Some(bindings.keys().cloned().collect()),
        host_config: Some(HostConfig { port_bindings: Some(bindings), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    }
}

/// Docker answers 409 where the name is taken, Podman 500; both name the holder in the text only.
fn refusal_to_create(new: &NewContainer, error: Error) -> Error {
    match error {
        Error::Rejected { status: 409 | 500, message } if message.contains("already in use") => {
            let holder = message.split(|c: char| !c.is_ascii_hexdigit()).find_map(|word| word.parse().ok());
            Error::Conflict { name: new.name.clone(), holder }
        }
        Error::Rejected { status: 404, message } if message.to_lowercase().contains("no such image") => {
            Error::NoSuchImage { image: new.image.clone() }
        }
        other => other,
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

    #[test]
    fn the_holder_of_a_name_is_read_from_both_engines_messages() {
        let id = "d2a2e7798c7a430db368da2d51a21569e422a80fb0c8f4353e43df130c54af49";
        for (status, message) in [
            (
                409,
                format!("Conflict. The container name \"/x\" is already in use by container \"{id}\". You have to …"),
            ),
            (
                500,
                format!("creating container storage: the container name \"x\" is already in use by {id}. You have …"),
            ),
        ] {
            let new = NewContainer { name: "x".into(), ..NewContainer::default() };
            let Error::Conflict { holder, name } = refusal_to_create(&new, Error::Rejected { status, message }) else {
                panic!("expected a conflict");
            };
            assert_eq!((holder.unwrap().as_str(), name.as_str()), (id, "x"));
        }
    }
}
