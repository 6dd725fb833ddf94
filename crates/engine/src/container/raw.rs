//! The engine's JSON of a container, as far as it is used. Everything but the ID may be absent.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Container, ContainerState, Health, Port, Protocol};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspection {
    id: String,
    #[serde(default)]
    name: String,
    image: Option<String>,
    created: Timestamp,
    state: State,
    config: Config,
    #[serde(default)]
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    #[serde(default)]
    exit_code: i64,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    health: Option<HealthState>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthState {
    #[serde(default)]
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    image: String,
    #[serde(default)]
    hostname: String,
    env: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
    networks: Option<BTreeMap<String, Network>>,
    // No longer in newer engines.
    #[serde(default, rename = "IPAddress")]
    ip_address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

#[derive(Deserialize)]
struct Network {
    #[serde(default, rename = "IPAddress")]
    ip_address: String,
}

/// The engine's description makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Id(#[from] super::InvalidContainerId),
    #[error("the container state {0:?} is not known")]
    State(String),
}

impl Inspection {
    pub(super) fn into_container(self) -> Result<Container, Unreadable> {
        let health = self.state.health.as_ref().and_then(|health| match health.status.as_str() {
            "starting" => Some(Health::Starting),
            "healthy" => Some(Health::Healthy),
            "unhealthy" => Some(Health::Unhealthy),
            // Docker says "none" and Podman "" where there is no check.
            _ => None,
        });
        Ok(Container {
            health,
            id: self.id.parse()?,
            name: self.name.trim_start_matches('/').to_owned(),
            image: self.config.image,
            image_id: self.image,
            created: self.created,
            state: self.state.into_state()?,
            env: self.config.env.unwrap_or_default(),
            labels: self.config.labels.unwrap_or_default(),
            ip_address: self.network_settings.address(),
            ports: self.network_settings.ports(),
            hostname: self.config.hostname,
        })
    }
}

impl State {
    fn into_state(self) -> Result<ContainerState, Unreadable> {
        Ok(match self.status.as_str() {
            // The last two are Podman's.
            "created" | "configured" | "initialized" => ContainerState::Created,
            // Podman: a stop was asked for and the main program still runs.
            "running" | "stopping" => ContainerState::Running { started_at: known(self.started_at) },
            "paused" => ContainerState::Paused,
            "restarting" => ContainerState::Restarting,
            // Podman: `stopped` until it has cleaned up.
            "exited" | "stopped" => {
                ContainerState::Exited { exit_code: self.exit_code, finished_at: known(self.finished_at) }
            }
            "removing" => ContainerState::Removing,
            "dead" => ContainerState::Dead,
            _ => return Err(Unreadable::State(self.status)),
        })
    }
}

/// Engines write the year 1 for "never".
fn known(time: Option<Timestamp>) -> Option<Timestamp> {
    time.filter(|time| *time > Timestamp::UNIX_EPOCH)
}

impl NetworkSettings {
    fn address(&self) -> Option<String> {
        let networks = self.networks.iter().flatten().map(|(_, network)| &network.ip_address);
        std::iter::once(&self.ip_address).chain(networks).find(|address| !address.is_empty()).cloned()
    }

    fn ports(self) -> Vec<Port> {
        let port = |key: &str, binding: Binding| {
            let (container_port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
            Some(Port {
                container_port: container_port.parse().ok()?,
                protocol: match protocol {
                    "tcp" => Protocol::Tcp,
                    "udp" => Protocol::Udp,
                    "sctp" => Protocol::Sctp,
                    _ => return None,
                },
                host_ip: binding.host_ip,
                host_port: binding.host_port.parse().ok()?,
            })
        };
        let bindings = self.ports.into_iter().flatten();
        bindings
            .flat_map(|(key, bindings)| {
                bindings.into_iter().flatten().filter_map(move |binding| port(&key, binding)).collect::<Vec<_>>()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(status: &str, more: &serde_json::Value) -> Result<Container, Unreadable> {
        let document = json!({
            "Id": "ab".repeat(32), "Name": "/web", "Image": "sha256:1", "Created": "2026-11-25T02:31:10.85246296Z",
            "State": {"Status": status, "ExitCode": 137, "StartedAt": "2026-11-25T02:31:13.21175443Z",
                      "FinishedAt": "0001-01-01T00:00:00Z"},
            "Config": {"Image": "busybox:1", "Hostname": "h", "Env": null, "Labels": null},
            "NetworkSettings": more,
        });
        serde_json::from_value::<Inspection>(document).unwrap().into_container()
    }

    #[test]
    fn a_running_container_is_read_and_absent_lists_are_empty() {
        let container = read("running", &json!({})).unwrap();
        assert_eq!((container.name.as_str(), container.env.len(), container.labels.len()), ("web", 0, 0));
        let ContainerState::Running { started_at: Some(at) } = container.state else { panic!("{:?}", container.state) };
        assert_eq!(at.to_string(), "2026-11-25T02:31:13.21175443Z");
    }

    #[test]
    fn podmans_stopped_is_exited_and_the_year_one_is_no_time() {
        let expected = ContainerState::Exited { exit_code: 137, finished_at: None };
        assert_eq!(read("stopped", &json!({})).unwrap().state, expected);
        assert_eq!(read("exited", &json!({})).unwrap().state, expected);
    }

    #[test]
    fn an_unknown_state_is_an_error_and_not_a_guess() {
        assert!(read("melting", &json!({})).unwrap_err().to_string().contains("melting"));
    }

    #[test]
    fn ports_and_the_address_are_found_where_new_engines_put_them() {
        let container = read(
            "running",
            &json!({
                "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}, {"HostIp": "::", "HostPort": "32769"}],
                          "53/udp": null},
                "Networks": {"bridge": {"IPAddress": "172.17.0.2"}},
            }),
        )
        .unwrap();
        assert_eq!(container.ip_address.as_deref(), Some("172.17.0.2"));
        assert_eq!(container.ports.iter().map(|port| port.host_port).collect::<Vec<_>>(), [32768, 32769]);
    }
}
