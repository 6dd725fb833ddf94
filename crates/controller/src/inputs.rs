//! Gathers what a program refers to: `ConfigMap`s, `Secret`s, dotenv files, fields of the object and of the container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client};
use oncelet_core::{Program, Sources, Stdin, ValueSource};
use oncelet_engine::{Container, Protocol};
use rustix::fs::OFlags;

use crate::exec::Error;
use crate::policy::places;

/// How large a dotenv file may be: it becomes arguments of a system call, which takes about 2 MiB.
const ENV_FILE_LIMIT: u64 = 1 << 20;

/// Gathers the sources of `program` for the object with `meta`, and its `container` where there is one. Dotenv files are read from
/// the directories `env_file_dirs`; without any, from anywhere.
pub(crate) async fn gather(
    client: &Client,
    meta: &ObjectMeta,
    program: &Program,
    container: Option<&Container>,
    env_file_dirs: Option<&[String]>,
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
        sources.env_files.insert(path.clone(), read_allowed(path, env_file_dirs).await);
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

/// Reads a dotenv file that is below one of `dirs`, wherever links lead. Without any, from anywhere.
async fn read_allowed(path: &str, dirs: Option<&[String]>) -> Result<String, String> {
    let Some(dirs) = dirs else { return read_env_file(path).await };
    let (asked, dirs) = (path.to_owned(), dirs.to_vec());
    let real = tokio::task::spawn_blocking(move || places::real_path(&asked, &dirs)).await;
    match real.map_err(|error| error.to_string())?? {
        Some(real) => read(&real.to_string_lossy(), true).await,
        None => Err("is not there".to_owned()),
    }
}

/// Reads a dotenv file, whose path comes from a client: a device, a FIFO or a file that grows must neither block the daemon nor
/// fill its memory.
async fn read_env_file(path: &str) -> Result<String, String> {
    read(path, false).await
}

/// The same; where `is_real` the file must be at this very path, which has been looked up before and may have become a link since.
async fn read(path: &str, is_real: bool) -> Result<String, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        // To open a FIFO without a writer would wait for one.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY | if is_real { OFlags::NOFOLLOW } else { OFlags::empty() };
        let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(&path)?;
        if is_real && std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?.as_os_str() != path.as_str() {
            return Ok(Err("has become a link".to_owned()));
        }
        if !file.metadata()?.is_file() {
            return Ok(Err("is not a regular file".to_owned()));
        }
        let mut text = Vec::new();
        file.take(ENV_FILE_LIMIT + 1).read_to_end(&mut text)?;
        if text.len() as u64 > ENV_FILE_LIMIT {
            return Ok(Err(format!("is longer than {ENV_FILE_LIMIT} bytes")));
        }
        Ok(String::from_utf8(text).map_err(|_| "is not UTF-8 text".to_owned()))
    });
    match read.await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => Err(std::io::Error::to_string(&error)),
        Err(error) => Err(error.to_string()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_regular_files_of_a_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("good"), "A=1\n").unwrap();
        assert_eq!(read_env_file(&path("good")).await.as_deref(), Ok("A=1\n"));

        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("link")).unwrap();
        for endless in ["/dev/zero", "/dev/tty", "/proc", &path("fifo"), &path("link")] {
            assert!(read_env_file(endless).await.is_err(), "{endless}");
        }

        // Its size says nothing: it is read in pieces.
        let sparse = File::create(path("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert!(read_env_file(&path("sparse")).await.unwrap_err().contains("longer than"));
        std::fs::write(path("binary"), [0xff, 0xfe]).unwrap();
        assert!(read_env_file(&path("binary")).await.unwrap_err().contains("UTF-8"));
    }
}
