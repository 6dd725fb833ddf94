//! The objects on the API server that a command is about.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result, bail};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use oncelet_api::{Container, ContainerExec};
use oncelet_engine::Endpoint;

use crate::args::Cluster;
use crate::paths::Paths;

/// The extension of the cluster in the kubeconfig of `oncelet up` that names the engine of its daemon.
pub(crate) const ENGINE_EXTENSION: &str = "oncelet.dev/engine";

/// An API server, a namespace on it, and the run store of this machine. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Objects {
    connection: Arc<RwLock<Client>>,
    pub(crate) namespace: String,
    pub(crate) paths: Arc<Paths>,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    /// The engine of the daemon that serves the objects, as far as that is known here.
    pub(crate) engine: DaemonEngine,
}

/// What a client knows of the daemon's engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DaemonEngine {
    /// The daemon said which.
    Known(Endpoint),
    /// The API server is on this machine: most likely the daemon, and so the engine.
    LikelyHere,
    /// The API server is elsewhere, and the daemon may be anywhere.
    Anywhere,
}

impl Objects {
    /// The kubeconfig is the one that was asked for, that of KUBECONFIG, that of an `oncelet up` with this data directory, or
    /// kubectl's own, in this order.
    pub(crate) async fn new(args: Cluster) -> Result<Self> {
        let paths = Paths::new(args.data)?;
        let (config, engine) = find_config(args.kubeconfig.as_deref(), args.context.clone(), &paths).await?;
        let namespace = args.namespace.unwrap_or_else(|| config.default_namespace.clone());
        let connection = Arc::new(RwLock::new(Client::try_from(config)?));
        let (kubeconfig, context) = (args.kubeconfig, args.context);
        Ok(Self { connection, namespace, paths: Arc::new(paths), kubeconfig, context, engine })
    }

    /// The connection as it is now.
    pub(crate) fn client(&self) -> Client {
        self.connection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects anew, as the kubeconfig says now: a daemon that was started again may be at another address.
    pub(crate) async fn renew(&self) -> Result<()> {
        let (config, _) = find_config(self.kubeconfig.as_deref(), self.context.clone(), &self.paths).await?;
        let client = Client::try_from(config)?;
        *self.connection.write().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(())
    }

    pub(crate) fn execs(&self) -> Api<ContainerExec> {
        Api::namespaced(self.client(), &self.namespace)
    }

    pub(crate) fn containers(&self) -> Api<Container> {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// The object of this name.
    pub(crate) async fn exec(&self, name: &str) -> Result<ContainerExec> {
        let Some(found) = self.execs().get_opt(name).await.context("the API server does not answer")? else {
            bail!("there is no ContainerExec {}/{name}; see: kubectl get cexec --all-namespaces", self.namespace);
        };
        Ok(found)
    }
}

async fn find_config(asked: Option<&Path>, context: Option<String>, paths: &Paths) -> Result<(Config, DaemonEngine)> {
    let ours = paths.kubeconfig();
    let from_environment = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    let file = asked.map(Path::to_owned).or_else(|| (!from_environment && ours.exists()).then_some(ours));
    let (kubeconfig, origin) = if let Some(file) = &file {
        (read(file)?, format!("the kubeconfig {}", file.display()))
    } else if let Ok(kubeconfig) = Kubeconfig::read() {
        (kubeconfig, "the kubeconfig".to_owned())
    } else {
        // In a pod there is none.
        let config = Config::infer().await;
        let config = config.context("no kubeconfig was found; say where with --kubeconfig, or start oncelet up")?;
        return Ok((config, DaemonEngine::Anywhere));
    };
    let named = engine_in(&kubeconfig, context.as_deref());
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let config = config.with_context(|| format!("{origin} cannot be used"))?;
    let is_here = config.cluster_url.host().is_some_and(is_this_machine);
    let engine = named.unwrap_or(if is_here { DaemonEngine::LikelyHere } else { DaemonEngine::Anywhere });
    Ok((config, engine))
}

/// The engine that the cluster of a context of a kubeconfig names, by default of the current one.
fn engine_in(kubeconfig: &Kubeconfig, context: Option<&str>) -> Option<DaemonEngine> {
    let wanted = context.or(kubeconfig.current_context.as_deref())?;
    let context = kubeconfig.contexts.iter().find(|it| it.name == wanted)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|it| it.name == context.cluster)?.cluster.as_ref()?;
    let extension = cluster.extensions.as_ref()?.iter().find(|it| it.name == ENGINE_EXTENSION)?;
    Some(DaemonEngine::Known(extension.extension.as_str()?.parse().ok()?))
}

fn is_this_machine(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

fn read(file: &Path) -> Result<Kubeconfig> {
    Kubeconfig::read_from(file).with_context(|| format!("the kubeconfig {} cannot be used", file.display()))
}

/// What a kubeconfig file says.
pub(crate) async fn config_from(file: &Path) -> Result<Config> {
    let config = Config::from_custom_kubeconfig(read(file)?, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("the kubeconfig {} cannot be used", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(extensions: &str) -> Kubeconfig {
        Kubeconfig::from_yaml(&format!(
            r#"{{"current-context": "a", "contexts": [{{"name": "a", "context": {{"cluster": "c"}}}}], "clusters": [
                {{"name": "other", "cluster": {{"server": "https://x"}}}},
                {{"name": "c", "cluster": {{"server": "https://127.0.0.1:1", "extensions": [{extensions}]}}}}]}}"#
        ))
        .unwrap()
    }

    #[test]
    fn a_kubeconfig_says_which_engine_its_daemon_uses() {
        let named =
            kubeconfig(r#"{"name": "x", "extension": 1}, {"name": "oncelet.dev/engine", "extension": "podman"}"#);
        assert_eq!(engine_in(&named, Some("another")), None);
        assert_eq!(engine_in(&named, None), Some(DaemonEngine::Known(Endpoint::Podman)));
        assert_eq!(engine_in(&kubeconfig(""), None), None);
        assert_eq!(engine_in(&kubeconfig(r#"{"name": "oncelet.dev/engine", "extension": "nonsense"}"#), None), None);
    }
}
