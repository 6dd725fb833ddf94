//! The server as a whole: what it is made from, and its life.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use axum::body::Body;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::advice::Advice;
use crate::app::{App, default_namespace};
use crate::auth::Certified;
use crate::connections::{self, Identity};
use crate::credentials::{Credentials, Home};
use crate::files::{private_dir, write_private};
use crate::part::Part;
use crate::storage::{ObjectFile, Store};
use crate::{Error, handlers, housekeeping, meta};

/// Versions set aside for one run: as many writes as a run may make before the next one's could repeat them.
const RESERVED: u64 = 1_000_000_000;

/// What the server is made from.
pub struct Config {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Holds the authority, the serving certificate, the token and the version mark. Only its owner can read it.
    pub state_dir: PathBuf,
    /// Where the kubeconfig is written, for its owner alone; one with other clusters in it keeps them.
    pub kubeconfig: PathBuf,
    /// What else the kubeconfig tells its readers of this server: extensions of the cluster in it, by name.
    pub extensions: Vec<(String, Value)>,
    /// Keep objects across restarts, in a file in the state directory.
    pub persist: bool,
    /// Definitions that are there from the start.
    pub crds: Vec<CustomResourceDefinition>,
    /// Parts of objects that somebody else answers for.
    pub parts: Vec<Part>,
    /// What is hardly meant in objects.
    pub advice: Vec<Advice>,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// A server that listens and is ready to serve.
pub struct Server {
    listener: TcpListener,
    app: Arc<App>,
    address: SocketAddr,
    /// Ends open watches.
    closing: CancellationToken,
}

impl Server {
    /// Listens, prepares certificate and token, and writes the kubeconfig. Clients can connect from here on; they are
    /// answered once [`serve`](Self::serve) runs.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let now = (config.now)();
        private_dir(&config.state_dir).map_err(|source| Error::state(&config.state_dir, source))?;
        let listener = TcpListener::bind(config.listen).await;
        let listener = listener.map_err(|source| Error::Listen { address: config.listen, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?;
        let credentials = Credentials::load(Home {
            state_dir: config.state_dir.clone(),
            listen: address.ip(),
            kubeconfig: config.kubeconfig,
            url: url(address),
            extensions: config.extensions,
            now: config.now,
        })?;
        let first = first_version(&config.state_dir, now)?;
        let store = if config.persist {
            let (file, objects) = ObjectFile::open(&config.state_dir.join("objects.db")).await?;
            Store::kept(first, file, objects)
        } else {
            Store::new(first)
        };
        let closing = CancellationToken::new();
        let app = App::new(store, credentials, config.parts, config.advice, config.now, closing.clone());
        seed(&app, &config.crds)?;
        handlers::resume(&app);
        Ok(Self { listener, app: Arc::new(app), address, closing })
    }

    /// Where it listens, with the port that was found.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What clients connect to, as in the kubeconfig.
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// The way in for this process: no connection, no token, and nothing that could end or be rotated.
    pub fn inside(&self) -> Inside {
        Inside { app: Arc::clone(&self.app), certified: Certified { revoked: CancellationToken::new() } }
    }

    /// Serves until `shutdown`. Open watches end cleanly then, and running requests get a moment to finish.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), Error> {
        tokio::spawn(housekeeping::keep(Arc::clone(&self.app), self.closing.clone()));
        let app = Arc::clone(&self.app);
        let identity = move || {
            let app = Arc::clone(&app);
            async move {
                let credentials = app.credentials.fresh().await;
                let tls = TlsAcceptor::from(credentials.tls()?);
                Some(Identity { tls, revoked: credentials.revoked.clone() })
            }
        };
        let app = Arc::clone(&self.app);
        let answer = move |request| Arc::clone(&app).handle(request);
        connections::serve_tls(self.listener, identity, answer, shutdown, self.closing).await;
        self.app.store.close().await;
        Ok(())
    }
}

/// Asks the server from within its process.
#[derive(Clone)]
pub struct Inside {
    app: Arc<App>,
    certified: Certified,
}

impl Inside {
    /// Answers a request, as the server does over a connection.
    pub async fn handle(self, mut request: http::Request<Body>) -> http::Response<Body> {
        request.extensions_mut().insert(self.certified);
        self.app.handle(request).await
    }
}

fn url(address: SocketAddr) -> String {
    // `0.0.0.0` is where to listen, not where to connect.
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("https://127.0.0.1:{}", v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("https://[::1]:{}", v6.port()),
        other => format!("https://{other}"),
    }
}

/// A version above every one of earlier runs, also when the clock was set back: microseconds since 1970, or the mark
/// that the last run left.
fn first_version(state_dir: &Path, now: Timestamp) -> Result<u64, Error> {
    let path = state_dir.join("version-mark");
    let mark = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(source) => return Err(Error::state(&path, source)),
    };
    let first = mark.max(u64::try_from(now.as_microsecond()).unwrap_or(0));
    write_private(&path, first.saturating_add(RESERVED).to_string().as_bytes())
        .map_err(|source| Error::state(&path, source))?;
    Ok(first)
}

fn seed(app: &App, crds: &[CustomResourceDefinition]) -> Result<(), Error> {
    let refused = |name: &str, why: String| Error::Definition { name: name.to_owned(), why };
    app.seed("", "v1", "namespaces", default_namespace()).map_err(|error| refused("default", error.message))?;
    for crd in crds {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let mut object = serde_json::to_value(crd).map_err(|error| refused(&name, error.to_string()))?;
        meta::put(&mut object, "apiVersion", json!("apiextensions.k8s.io/v1"));
        meta::put(&mut object, "kind", json!("CustomResourceDefinition"));
        app.seed("apiextensions.k8s.io", "v1", "customresourcedefinitions", object)
            .map_err(|error| refused(&name, error.message))?;
    }
    app.reload_definitions();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_on_rising_when_the_clock_was_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = first_version(dir.path(), at(1_800_000_000)).unwrap();
        let second = first_version(dir.path(), at(1_700_000_000)).unwrap();
        assert!(second > first);
    }
}
