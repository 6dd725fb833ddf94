//! The session of one `oncelet up`: what the containers are made for that go with it.
//!
//! A session is a file that its process keeps locked. Where the lock can be had, the process is gone, and its containers are
//! nobody's: the next `oncelet up` with the same data directory removes them. In the file are the engines, beside the usual
//! one, where it may have some.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use oncelet_controller::remove_sessions;
use oncelet_engine::Engine;
use uuid::Uuid;

/// How long between two tries to remove what earlier sessions left.
const AGAIN: Duration = Duration::from_secs(5);
/// Where an engine stays away, the time grows to this.
const SELDOM: Duration = Duration::from_mins(5);

/// A session that is going on.
pub(crate) struct Session {
    id: String,
    dir: PathBuf,
    /// Locked as long as this lives.
    _lock: File,
}

impl Session {
    /// Begins one in `dir`, which is made where it is missing.
    pub(crate) fn begin(dir: &Path) -> Result<Self> {
        let cannot = || format!("a session cannot be begun in {}", dir.display());
        DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(cannot)?;
        let id = Uuid::new_v4().to_string();
        // Made under another name: nobody may find it before it is locked.
        let new = dir.join(format!("{id}.new"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).with_context(cannot)?;
        file.lock().with_context(cannot)?;
        std::fs::rename(new, dir.join(&id)).with_context(cannot)?;
        Ok(Self { id, dir: dir.to_owned(), _lock: file })
    }

    /// As the controller is to know it.
    pub(crate) fn for_controller(&self) -> oncelet_controller::Session {
        oncelet_controller::Session { id: self.id.clone(), engines: self.dir.join(&self.id) }
    }

    /// Removes what earlier sessions left behind, as soon as the engine answers.
    pub(crate) async fn clear_earlier(dir: PathBuf, engine: Engine) {
        let mut pause = AGAIN;
        loop {
            let ended = match ended(&dir) {
                Ok(ended) if ended.is_empty() => return,
                Ok(ended) => ended,
                Err(error) => return tracing::warn!(dir = %dir.display(), %error, "earlier sessions cannot be listed"),
            };
            match remove_all(&dir, &ended, &engine).await {
                Ok(count) => {
                    if count > 0 {
                        tracing::info!("removed {count} containers of earlier sessions");
                    }
                    return ended.iter().for_each(|id| forget(&dir, id));
                }
                Err(error) => tracing::warn!(%error, "containers of earlier sessions cannot be removed yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SELDOM);
        }
    }

    /// Ends it: its containers are removed. What cannot be removed now is left to the next session.
    pub(crate) async fn end(self, engine: &Engine) {
        match remove_all(&self.dir, std::slice::from_ref(&self.id), engine).await {
            Ok(count) => {
                if count > 0 {
                    tracing::info!("removed {count} containers of this session");
                }
                forget(&self.dir, &self.id);
            }
            Err(error) => tracing::warn!(%error, "containers of this session are left to the next one"),
        }
    }
}

/// Removes the containers of sessions, wherever they are. Returns how many there were, or the first error: an engine that does not
/// answer holds up no other.
async fn remove_all(dir: &Path, sessions: &[String], usual: &Engine) -> Result<usize> {
    let mut removed = vec![remove_sessions(usual, sessions).await.map_err(anyhow::Error::from)];
    for session in sessions {
        for name in std::fs::read_to_string(dir.join(session)).unwrap_or_default().lines() {
            let remove = async {
                let engine = Engine::connect(&name.parse()?)?;
                Ok(remove_sessions(&engine, std::slice::from_ref(session)).await?)
            };
            removed.push(remove.await);
        }
    }
    removed.into_iter().sum()
}

/// The sessions whose processes are gone.
fn ended(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut ended = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if Path::new(&name).extension().is_some() {
            // It is about to be locked, or died before it had made anything.
            continue;
        }
        let file = match File::open(entry.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => ended.push(name),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(ended)
}

fn forget(dir: &Path, id: &str) {
    if let Err(error) = std::fs::remove_file(dir.join(id)) {
        tracing::debug!(%error, "the file of session {id} was not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session that goes on is never taken for one that has ended, and its end shows at once, however it came.
    #[test]
    fn a_session_has_ended_when_its_process_has() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Session::begin(dir.path()).unwrap(), Session::begin(dir.path()).unwrap());
        assert_eq!(ended(dir.path()).unwrap(), Vec::<String>::new());
        let id = one.id.clone();
        drop(one);
        assert_eq!(ended(dir.path()).unwrap(), [id]);
        drop(two);
        assert_eq!(ended(dir.path()).unwrap().len(), 2);
    }
}
