//! Something between the crate and an engine that can fail.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use oncelet_engine::{Endpoint, Engine};
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    task::AbortHandle,
};

pub(crate) struct Proxy {
    upstream: PathBuf,
    directory: tempfile::TempDir,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    listener: Option<AbortHandle>,
}

impl Proxy {
    /// In front of `engine`, which must listen on a unix socket; else `None`, and says so.
    pub(crate) fn before(engine: &Engine) -> Option<Self> {
        let Some(path) = engine.endpoint().strip_prefix("unix://") else {
            eprintln!("SKIPPED: {} is not a unix socket", engine.endpoint());
            return None;
        };
        let mut proxy = Self {
            upstream: path.into(),
            directory: tempfile::tempdir().unwrap(),
            connections: Arc::default(),
            listener: None,
        };
        proxy.up();
        Some(proxy)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("engine.sock")
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::connect(&Endpoint::Url(format!("unix://{}", self.socket().display()))).unwrap()
    }

    pub(crate) fn up(&mut self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let (upstream, connections) = (self.upstream.clone(), Arc::clone(&self.connections));
        let accept = async move {
            while let Ok((client, _)) = listener.accept().await {
                let connection = tokio::spawn(forward(client, upstream.clone()));
                connections.lock().unwrap().push(connection.abort_handle());
            }
        };
        self.listener = Some(tokio::spawn(accept).abort_handle());
    }

    /// Closes every connection, on both sides, and takes new ones.
    pub(crate) fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Closes every connection and takes no new ones.
    pub(crate) fn down(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
        }
        std::fs::remove_file(self.socket()).unwrap();
        self.cut();
    }
}

async fn forward(mut client: UnixStream, upstream: impl AsRef<Path>) {
    if let Ok(mut engine) = UnixStream::connect(upstream).await {
        // How it ends is what the tests look at.
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
}
