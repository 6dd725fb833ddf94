//! The objects on the API server that a command is about.

use std::path::Path;

use anyhow::{Context, Result, bail};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use oncelet_api::ContainerExec;

use crate::args::Cluster;
use crate::paths::Paths;

/// An API server, a namespace on it, and the run store of this machine.
pub(crate) struct Objects {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) paths: Paths,
}

impl Objects {
    /// The kubeconfig is the one that was asked for, that of KUBECONFIG, that of an `oncelet up` with this data directory, or
    /// kubectl's own, in this order.
    pub(crate) async fn new(args: Cluster) -> Result<Self> {
        let paths = Paths::new(args.data)?;
        let ours = paths.kubeconfig();
        let from_environment = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
        let file = args.kubeconfig.or_else(|| (!from_environment && ours.exists()).then_some(ours));
        let config = match file {
            Some(file) => config_from(&file).await?,
            None => Config::infer()
                .await
                .context("no kubeconfig was found; say where with --kubeconfig, or start oncelet up")?,
        };
        let namespace = args.namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config)?, namespace, paths })
    }

    pub(crate) fn execs(&self) -> Api<ContainerExec> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The object of this name.
    pub(crate) async fn exec(&self, name: &str) -> Result<ContainerExec> {
        let Some(found) = self.execs().get_opt(name).await.context("the API server does not answer")? else {
            bail!("there is no ContainerExec {}/{name}; see: kubectl get cexec --all-namespaces", self.namespace);
        };
        Ok(found)
    }
}

/// What a kubeconfig file says.
pub(crate) async fn config_from(file: &Path) -> Result<Config> {
    let wrong = || format!("the kubeconfig {} cannot be used", file.display());
    let kubeconfig = Kubeconfig::read_from(file).with_context(wrong)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.with_context(wrong)
}
