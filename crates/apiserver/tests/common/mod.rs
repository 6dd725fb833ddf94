//! A server for tests: on a free port, with a definition of widgets, ended with the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, reason = "a module of several test binaries")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::config::{KubeConfigOptions, Kubeconfig};
use oncelet_apiserver::{Config, Server};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct TestServer {
    pub dir: TempDir,
    pub url: String,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), oncelet_apiserver::Error>>,
}

pub fn widgets() -> CustomResourceDefinition {
    serde_saphyr::from_str(include_str!("widgets.yaml")).unwrap()
}

#[allow(clippy::disallowed_methods, reason = "a test has the real clock")]
pub fn config(dir: &TempDir) -> Config {
    Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        state_dir: dir.path().join("state"),
        kubeconfig: dir.path().join("kubeconfig"),
        crds: vec![widgets()],
        parts: Vec::new(),
        advice: Vec::new(),
        persist: false,
        extensions: Vec::new(),
        now: jiff::Timestamp::now,
    }
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub async fn start_in(dir: TempDir) -> Self {
        let config = config(&dir);
        Self::start_with(dir, config).await
    }

    /// One whose objects outlast it.
    pub async fn start_kept(dir: TempDir) -> Self {
        let config = Config { persist: true, ..config(&dir) };
        Self::start_with(dir, config).await
    }

    pub async fn start_with(dir: TempDir, config: Config) -> Self {
        let server = Server::bind(config).await.unwrap();
        let url = server.url();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.serve(shutdown.clone()));
        Self { dir, url, shutdown, serving }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    pub async fn client(&self) -> kube::Client {
        self.client_of(&KubeConfigOptions::default()).await
    }

    /// A client of another context than the default.
    pub async fn client_of(&self, options: &KubeConfigOptions) -> kube::Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, options).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// Ends the server and returns its directory, to start another one in it.
    pub async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        self.serving.await.unwrap().unwrap();
        self.dir
    }
}
