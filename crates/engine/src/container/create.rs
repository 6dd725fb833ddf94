//! Making a container.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bollard::{
    models::{
        self, ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, NetworkConnectRequest, NetworkingConfig,
        PortBinding, RestartPolicyNameEnum,
    },
    query_parameters::CreateContainerOptionsBuilder,
};

use super::{ContainerId, InvalidContainerId, Protocol};
use crate::{
    Engine, Error,
    engine::{CALL, SLOW_CALL},
    limits,
};

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
    /// What is mounted into it.
    pub mounts: Vec<Mount>,
    /// The networks that it is in; the engine's default network where there are none.
    pub networks: Vec<NetworkRequest>,
    /// Whether the engine starts it again when it ends.
    pub restart: RestartPolicy,
    /// How the engine finds out whether it is well; the image's own check where there is none.
    pub healthcheck: Option<Healthcheck>,
}

/// Something of the host that is mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What `source` is.
    pub kind: MountKind,
    /// A path on the engine's machine, or the name of a volume; a volume of its own where a volume has no name.
    pub source: Option<String>,
    /// Where it is mounted.
    pub target: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A file or a directory of the engine's machine, which must be there.
    Bind,
    /// A volume of the engine, which is made where it is missing.
    Volume,
}

/// A network that a container is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Its name; it must be there.
    pub name: String,
    /// Names, beside its own, under which others in the network find the container.
    pub aliases: Vec<String>,
}

/// When the engine starts a container again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it ends with another exit code than 0.
    OnFailure,
    /// When it ends, and when the engine starts, unless somebody stopped it.
    UnlessStopped,
    /// When it ends, and when the engine starts.
    Always,
}

/// How the engine finds out whether a container is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// A program and its arguments, run inside; it is well when that ends with exit code 0.
    pub command: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// How long one check may take.
    pub timeout: Duration,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
    /// How long failures do not count after the start.
    pub start_period: Duration,
}

impl Engine {
    /// Creates a container; it does not start it.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] where the image is not in the engine, [`Error::Conflict`] where the name is taken, and
    /// [`Error::NotFound`] where a network is missing.
    pub async fn create_container(&self, new: &NewContainer) -> Result<ContainerId, Error> {
        check(new)?;
        let options = CreateContainerOptionsBuilder::default().name(&new.name).build();
        let created = self
            .call("container_create", SLOW_CALL, |docker| async move {
                docker.create_container(Some(options), body(new)).await
            })
            .await
            .map_err(|error| refusal_to_create(new, error))?;
        let id: ContainerId =
            created.id.parse().map_err(|error: InvalidContainerId| Error::protocol(self.endpoint(), error))?;
        // Engines before Docker 25 take one network at creation.
        for network in new.networks.iter().skip(1) {
            if let Err(error) = self.join_network(&id, network).await {
                // Half a container would be found under its name, and taken for a whole one.
                let _ = self.remove_container(&id, true).await;
                return Err(error);
            }
        }
        Ok(id)
    }

    async fn join_network(&self, id: &ContainerId, network: &NetworkRequest) -> Result<(), Error> {
        let request =
            NetworkConnectRequest { container: id.to_string(), endpoint_config: Some(endpoint_settings(network)) };
        self.call("network_connect", CALL, |docker| async move { docker.connect_network(&network.name, request).await })
            .await
            .map_err(|error| missing_network(&error).unwrap_or(error))
    }
}

/// Whether every name is one.
fn check(new: &NewContainer) -> Result<(), Error> {
    limits::check_reference(&new.name)?;
    limits::check_image(&new.image)?;
    for network in &new.networks {
        limits::check_network(&network.name)?;
        network.aliases.iter().try_for_each(|alias| limits::check_host_name(alias))?;
    }
    for mount in &new.mounts {
        limits::check_path(&mount.target)?;
        match (mount.kind, &mount.source) {
            (MountKind::Volume, Some(volume)) => limits::check_volume(volume)?,
            (MountKind::Bind, Some(path)) => limits::check_path(path)?,
            (_, None) => {}
        }
    }
    new.ports.iter().filter_map(|port| port.host_ip.as_deref()).try_for_each(limits::check_address)?;
    new.labels.iter().try_for_each(|(key, value)| limits::check_label(key, value))?;
    let command: Vec<_> = new.command.iter().chain(&new.args).cloned().collect();
    limits::check(&command, &new.env)?;
    limits::check(new.healthcheck.as_ref().map(|check| check.command.as_slice()).unwrap_or_default(), &[])
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
        healthcheck: new.healthcheck.as_ref().map(health_config),
        networking_config: new.networks.first().map(|network| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.name.clone(), endpoint_settings(network))])),
        }),
        host_config: Some(HostConfig {
            port_bindings: Some(bindings),
            mounts: Some(new.mounts.iter().map(mount).collect()),
            network_mode: new.networks.first().map(|network| network.name.clone()),
            restart_policy: Some(restart_policy(new.restart)),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn mount(mount: &Mount) -> models::Mount {
    models::Mount {
        typ: Some(match mount.kind {
            MountKind::Bind => models::MountType::BIND,
            MountKind::Volume => models::MountType::VOLUME,
        }),
        source: mount.source.clone(),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..models::Mount::default()
    }
}

fn endpoint_settings(network: &NetworkRequest) -> EndpointSettings {
    EndpointSettings { aliases: Some(network.aliases.clone()), ..EndpointSettings::default() }
}

fn restart_policy(policy: RestartPolicy) -> models::RestartPolicy {
    let name = match policy {
        RestartPolicy::No => RestartPolicyNameEnum::NO,
        RestartPolicy::OnFailure => RestartPolicyNameEnum::ON_FAILURE,
        RestartPolicy::UnlessStopped => RestartPolicyNameEnum::UNLESS_STOPPED,
        RestartPolicy::Always => RestartPolicyNameEnum::ALWAYS,
    };
    models::RestartPolicy { name: Some(name), maximum_retry_count: None }
}

fn health_config(check: &Healthcheck) -> HealthConfig {
    let nanoseconds = |time: Duration| Some(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    HealthConfig {
        test: Some(std::iter::once("CMD".to_owned()).chain(check.command.iter().cloned()).collect()),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        retries: Some(i64::from(check.retries)),
        start_period: nanoseconds(check.start_period),
        ..HealthConfig::default()
    }
}

/// The error that a network is missing, where `error` says so: at the creation, or when the container is started. Docker
/// answers 404 and Podman 500.
pub(super) fn missing_network(error: &Error) -> Option<Error> {
    let Error::Rejected { status: 404 | 500, message } = error else { return None };
    let named = |before: &str, after: &str| {
        let (_, rest) = message.split_once(before)?;
        let (name, _) = rest.split_once(after)?;
        (!name.contains(' ')).then(|| Error::NotFound { what: format!("network {name}") })
    };
    named("find network with name or ID ", ": network not found").or_else(|| named("network ", " not found"))
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
        other => missing_network(&other).unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_missing_network_is_named_from_both_engines_messages() {
        for (status, message) in [
            (404, "network backend not found"),
            (500, "container create: unable to find network with name or ID backend: network not found"),
        ] {
            let error = missing_network(&Error::Rejected { status, message: message.to_owned() });
            assert!(matches!(&error, Some(Error::NotFound { what }) if what == "network backend"), "{error:?}");
        }
        assert!(missing_network(&Error::Rejected { status: 404, message: "No such container: x".into() }).is_none());
    }
}
