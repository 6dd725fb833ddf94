//! The store, or why it cannot be used.
//!
//! A store that does not open must not keep the daemon from telling people so: objects are watched, nothing starts,
//! and each shows `StoreAvailable=False` with the reason. The store is tried again until it opens.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use oncelet_store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::one_line;

/// How long between two tries to open the store.
const PAUSE: Duration = Duration::from_secs(2);

/// The store of a daemon, opened as soon as that is possible.
#[derive(Clone)]
pub struct StoreGate(watch::Receiver<Result<Store, String>>);

impl StoreGate {
    /// Opens the store in `dir`, and goes on trying in the background until `shutdown` where that fails.
    pub async fn open(dir: PathBuf, now: fn() -> Timestamp, shutdown: CancellationToken) -> Self {
        let first = try_open(&dir, now).await;
        let is_open = first.is_ok();
        let (sender, receiver) = watch::channel(first);
        if !is_open {
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        // Both arms only wait, so either may be dropped.
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                    let result = try_open(&dir, now).await;
                    let is_open = result.is_ok();
                    sender.send_if_modified(|current| {
                        let changed = is_open || current.as_ref().err() != result.as_ref().err();
                        *current = result;
                        changed
                    });
                    if is_open {
                        return;
                    }
                }
            });
        }
        Self(receiver)
    }

    /// One that stays shut.
    #[cfg(test)]
    pub(crate) fn shut(why: &str) -> Self {
        Self(watch::channel(Err(why.to_owned())).1)
    }

    /// The store, or why it cannot be used.
    pub fn get(&self) -> Result<Store, String> {
        self.0.borrow().clone()
    }

    /// The UUID of the store, where it can be used.
    pub(crate) fn uuid(&self) -> Option<String> {
        self.get().ok().map(|store| store.uuid().to_string())
    }

    /// Waits until the answer of [`StoreGate::get`] changes; for ever where it cannot change any more.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn try_open(dir: &std::path::Path, now: fn() -> Timestamp) -> Result<Store, String> {
    match Store::open(dir, now()).await {
        Ok(store) => {
            tracing::info!(dir = %dir.display(), "the run store is open");
            Ok(store)
        }
        Err(error) => {
            let message = one_line(&error);
            tracing::error!("no program will be started: {message}");
            Err(message)
        }
    }
}
