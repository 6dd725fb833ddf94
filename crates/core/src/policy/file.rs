//! The file of a policy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::clean_path;

/// A policy: what is allowed. Without rules that is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub(super) rules: Vec<Rule>,
}

/// A rule that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// The file is of something else.
    #[error("apiVersion and kind must be {API_VERSION} and {KIND}, and are {api_version:?} and {kind:?}")]
    NoPolicy {
        /// What it says.
        api_version: String,
        /// What it says.
        kind: String,
    },
    /// A rule is not.
    #[error("rule {number}: {what}")]
    Rule {
        /// Its number, from 1.
        number: usize,
        /// What is wrong, and what to write.
        what: String,
    },
}

const API_VERSION: &str = "oncelet.dev/v1alpha1";
const KIND: &str = "Policy";

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[allow(dead_code, reason = "for people and tools")]
    metadata: Metadata,
    rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "for people and tools")]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// What some namespaces may use. In lists of names `*` stands for any characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a line of its own in the file")]
pub struct Rule {
    /// The namespaces whose objects it is for.
    pub namespaces: Vec<String>,
    /// The engines that it is for, as objects name them, or `*`.
    #[serde(default = "default_engines")]
    pub engines: Vec<String>,
    /// Everything is allowed.
    #[serde(default)]
    pub everything: bool,
    /// Names of containers that may be made.
    #[serde(default)]
    pub container_names: Vec<String>,
    /// Images that containers may be made from.
    #[serde(default)]
    pub images: Vec<String>,
    /// Directories of the engine's machine that may be mounted, and all below them.
    #[serde(default)]
    pub bind_mounts: Vec<BindPrefix>,
    /// Volumes that may be mounted.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Networks that a container may be in.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Ports of the engine's machine that may be published.
    #[serde(default)]
    pub ports: Vec<HostPorts>,
    /// Keys of labels that containers may get.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Directories of the daemon's machine from which dotenv files may be read, and all below them.
    #[serde(default)]
    pub env_files: Vec<String>,
    /// Users that a program may run as, beside the container's own.
    #[serde(default)]
    pub users: Vec<String>,
    /// Containers of the engine that programs may run in and that may be adopted, beside those that were made for the namespace.
    #[serde(default)]
    pub engine_containers: Vec<ContainerSelector>,
    /// Whether a container may itself name the namespaces that run programs in it.
    #[serde(default)]
    pub honor_container_labels: bool,
    /// Whether the containers of `engine_containers` may be stopped.
    #[serde(default)]
    pub stop_foreign: bool,
    /// Whether they may be removed.
    #[serde(default)]
    pub remove_foreign: bool,
    /// Run keys that are the same in all namespaces that share them.
    #[serde(default)]
    pub shared_run_keys: Vec<String>,
}

fn default_engines() -> Vec<String> {
    vec![super::DEFAULT_ENGINE.to_owned()]
}

/// A directory that may be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindPrefix {
    /// Its path.
    pub path: String,
    /// Whether only so that the container cannot write to it.
    #[serde(default)]
    pub read_only: bool,
}

/// Containers of the engine; all that is set must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerSelector {
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The namespace of the `Container` object that it was made for. Without it, only what was made for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Ports of the engine's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPorts {
    /// The address, or `*`.
    #[serde(rename = "hostIP", default = "loopback")]
    pub host_ip: String,
    /// The lowest port.
    #[serde(default = "lowest")]
    pub min: u16,
    /// The highest port.
    #[serde(default = "highest")]
    pub max: u16,
}

fn loopback() -> String {
    "127.0.0.1".to_owned()
}

fn lowest() -> u16 {
    1
}

fn highest() -> u16 {
    u16::MAX
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let File { api_version, kind, metadata: _, rules } = File::deserialize(deserializer)?;
        if (api_version.as_str(), kind.as_str()) != (API_VERSION, KIND) {
            return Err(serde::de::Error::custom(InvalidPolicy::NoPolicy { api_version, kind }));
        }
        Self::new(rules).map_err(serde::de::Error::custom)
    }
}

impl Policy {
    /// A policy of these rules.
    pub fn new(rules: Vec<Rule>) -> Result<Self, InvalidPolicy> {
        for (at, rule) in rules.iter().enumerate() {
            rule.check().map_err(|what| InvalidPolicy::Rule { number: at + 1, what })?;
        }
        Ok(Self { rules })
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether nothing is allowed to anybody.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        for (field, list) in [("namespaces", &self.namespaces), ("engines", &self.engines)] {
            if list.is_empty() {
                return Err(format!("{field} is empty, so that it allows nothing; write \"*\" for all"));
            }
        }
        for (field, list) in [
            ("namespaces", &self.namespaces),
            ("engines", &self.engines),
            ("containerNames", &self.container_names),
            ("images", &self.images),
            ("volumes", &self.volumes),
            ("networks", &self.networks),
            ("labels", &self.labels),
            ("users", &self.users),
            ("sharedRunKeys", &self.shared_run_keys),
        ] {
            if list.iter().any(String::is_empty) {
                return Err(format!("{field} has an empty text"));
            }
        }
        if let Some(engine) = self.engines.iter().find(|engine| engine.contains('*') && *engine != "*") {
            return Err(format!("engines are named as objects name them, or by \"*\" alone, and not by {engine:?}"));
        }
        if let Some(key) = self.shared_run_keys.iter().find(|key| key.contains('/')) {
            return Err(format!("sharedRunKeys has {key:?}: a run key with a slash cannot be shared"));
        }
        let binds = self.bind_mounts.iter().map(|it| ("bindMounts", &it.path));
        for (field, path) in binds.chain(self.env_files.iter().map(|path| ("envFiles", path))) {
            if clean_path(path).is_none() || path.contains('*') {
                return Err(format!("{field} has {path:?}, which is no absolute path without \"..\" and \"*\""));
            }
        }
        for selector in &self.engine_containers {
            if selector == &ContainerSelector::default() {
                return Err("engineContainers has an entry that names nothing; write {name: \"*\"} for all".to_owned());
            }
        }
        for HostPorts { host_ip, min, max } in &self.ports {
            if host_ip != "*" && host_ip.parse::<std::net::IpAddr>().is_err() {
                return Err(format!("ports has the hostIP {host_ip:?}, which is neither an address nor \"*\""));
            }
            if *min == 0 || min > max {
                return Err(format!("ports has the range {min} to {max}, which has no port"));
            }
        }
        let marks = [self.stop_foreign, self.remove_foreign];
        if marks.contains(&true) && self.engine_containers.is_empty() {
            return Err(
                "stopForeign and removeForeign are about the containers in engineContainers, which is empty".to_owned()
            );
        }
        Ok(())
    }
}
