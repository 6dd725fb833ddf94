//! Gathers what a program refers to: `ConfigMap`s, `Secret`s, dotenv files, fields of the object and of the container.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client};
use oncelet_core::{Program, Sources, Stdin, ValueSource};
use oncelet_engine::{Container, Protocol};

use crate::exec::Error;

/// How large a dotenv file may be: it becomes arguments of a system call, which takes about 2 MiB.
const ENV_FILE_LIMIT: u64 = 1 << 20;

/// Gathers the sources of `program` for the object with `meta`, and its `container` where there is one.
pub(crate) async fn gather(
    client: &Client,
    meta: &ObjectMeta,
    program: &Program,
    container: Option<&Container>,
) -> Result<Sources, Error> {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let mut sources = Sources {
        fields: object_fields(meta),
        container_fields: container.map(container_fields).unwrap_or_default(),
        ..Sources::default()
    };
    let (config_maps, secrets) = references(program);
    for name in config_maps {
        let found = Api::<ConfigMap>::namespaced(client.clone(), namespace)
            .get_opt(name)
            .await
            .map_err(|source| Error::Inputs { what: format!("ConfigMap {namespace}/{name}"), source })?;
        if let Some(found) = found {
            let text = found.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
            let binary = found.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
            sources.config_maps.insert(name.to_owned(), text.chain(binary).collect());
        }
    }
    for name in secrets {
        let found = Api::<Secret>::namespaced(client.clone(), namespace)
            .get_opt(name)
            .await
            .map_err(|source| Error::Inputs { what: format!("Secret {namespace}/{name}"), source })?;
        if let Some(found) = found {
            let data = found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
            sources.secrets.insert(name.to_owned(), data);
        }
    }
    for path in &program.env_files {
        sources.env_files.insert(path.clone(), read_env_file(path).await);
    }
    Ok(sources)
}

/// The names of the `ConfigMap`s and of the `Secret`s that `program` refers to, each once.
fn references(program: &Program) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let mut config_maps = BTreeSet::new();
    let mut secrets = BTreeSet::new();
    for var in &program.env {
        match &var.source {
            ValueSource::ConfigMapKeyRef { name, .. } => drop(config_maps.insert(name.as_str())),
            ValueSource::SecretKeyRef { name, .. } => drop(secrets.insert(name.as_str())),
            ValueSource::Value(_) | ValueSource::FieldRef(_) | ValueSource::ContainerFieldRef(_) => {}
        }
    }
    match &program.stdin {
        Some(Stdin::ConfigMapKeyRef { name, .. }) => drop(config_maps.insert(name.as_str())),
        Some(Stdin::SecretKeyRef { name, .. }) => drop(secrets.insert(name.as_str())),
        Some(Stdin::Value(_) | Stdin::Upload(_)) | None => {}
    }
    (config_maps, secrets)
}

async fn read_env_file(path: &str) -> Result<String, String> {
    let size = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?.len();
    if size > ENV_FILE_LIMIT {
        return Err(format!("has {size} bytes, and at most {ENV_FILE_LIMIT} are read"));
    }
    tokio::fs::read_to_string(path).await.map_err(|error| error.to_string())
}

fn object_fields(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for (path, value) in
        [("metadata.name", &meta.name), ("metadata.namespace", &meta.namespace), ("metadata.uid", &meta.uid)]
    {
        if let Some(value) = value {
            fields.insert(path.to_owned(), value.clone());
        }
    }
    for (path, map) in [("metadata.labels", &meta.labels), ("metadata.annotations", &meta.annotations)] {
        for (key, value) in map.iter().flatten() {
            fields.insert(format!("{path}['{key}']"), value.clone());
        }
    }
    fields
}

fn container_fields(container: &Container) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::from([
        ("id".to_owned(), container.id.to_string()),
        ("name".to_owned(), container.name.clone()),
        ("image".to_owned(), container.image.clone()),
    ]);
    if !container.hostname.is_empty() {
        fields.insert("hostname".to_owned(), container.hostname.clone());
    }
    if let Some(address) = &container.ip_address {
        fields.insert("address".to_owned(), address.clone());
    }
    for port in &container.ports {
        let host_port = || port.host_port.to_string();
        // A port has an entry for each host address; the first counts, and without a protocol it is TCP's.
        let numbered = format!("ports['{}/{}']", port.container_port, port.protocol.as_str());
        fields.entry(numbered).or_insert_with(host_port);
        if port.protocol == Protocol::Tcp {
            fields.entry(format!("ports['{}']", port.container_port)).or_insert_with(host_port);
        }
    }
    for (key, value) in &container.labels {
        fields.insert(format!("labels['{key}']"), value.clone());
    }
    fields
}
