//! Daemons that own runs, and whether they live.
//!
//! A daemon holds a lock on `owners/<uuid>.lock` for life. The kernel drops it when the process ends, however it
//! ends, and never before: no clock is asked, so a daemon that was paused is never taken for dead.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::dir;
use crate::row;

/// One life of one daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerId(Uuid);

impl OwnerId {
    pub(crate) fn new() -> Self {
        Self(Uuid::new_v4())
    }

    fn lock_file(self, owners: &Path) -> PathBuf {
        owners.join(format!("{self}.lock"))
    }

    /// Whether the daemon lives. A daemon without a lock file does not: it makes the file before it is known.
    pub(crate) fn is_alive(self, owners: &Path) -> io::Result<bool> {
        match File::open(self.lock_file(owners)) {
            Ok(file) => is_locked(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for OwnerId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// The daemons that live, of those that have a lock in `owners`.
pub(crate) fn alive(owners: &Path) -> io::Result<Vec<OwnerId>> {
    let mut alive = Vec::new();
    let entries = match fs::read_dir(owners) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(alive),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(owner) = name.strip_suffix(".lock").and_then(|id| id.parse::<OwnerId>().ok()) else { continue };
        if owner.is_alive(owners)? {
            alive.push(owner);
        }
    }
    Ok(alive)
}

/// Asks with a shared lock, so that two who ask at once do not take each other for the owner.
fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The sign of life of a daemon, until dropped.
#[derive(Debug)]
pub(crate) struct SignOfLife {
    _file: File,
    path: PathBuf,
}

impl SignOfLife {
    /// Makes and locks the file of `id`.
    pub(crate) fn create(owners: &Path, id: OwnerId) -> io::Result<Self> {
        let path = id.lock_file(owners);
        let file = dir::private().read(true).write(true).create_new(true).open(&path)?;
        file.lock()?;
        Ok(Self { _file: file, path })
    }
}

impl Drop for SignOfLife {
    fn drop(&mut self) {
        // A file that stays is swept by the next daemon.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes `id` known to the store, and gives back the number of its row.
pub(crate) async fn register(conn: &mut SqliteConnection, id: OwnerId, now: Timestamp) -> Result<i64, sqlx::Error> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let done = sqlx::query("INSERT INTO owner (uuid, host, pid, version, started_at) VALUES (?1, ?2, ?3, ?4, ?5)")
        .bind(id.to_string())
        .bind(host)
        .bind(i64::from(std::process::id()))
        .bind(env!("CARGO_PKG_VERSION"))
        .bind(row::nanos(now))
        .execute(conn)
        .await?;
    Ok(done.last_insert_rowid())
}

/// Forgets the daemons that are gone and left no open run. Only under the write lock, under which daemons are made.
pub(crate) async fn sweep(conn: &mut SqliteConnection, owners: &Path) -> Result<(), sqlx::Error> {
    let idle: Vec<(i64, String)> = sqlx::query_as(
        "SELECT id, uuid FROM owner WHERE id NOT IN (SELECT owner_id FROM run WHERE owner_id IS NOT NULL)",
    )
    .fetch_all(&mut *conn)
    .await?;
    for (id, uuid) in idle {
        // What cannot be told is left alone.
        let gone = uuid.parse::<OwnerId>().is_ok_and(|owner| matches!(owner.is_alive(owners), Ok(false)));
        if gone {
            sqlx::query("DELETE FROM owner WHERE id = ?1").bind(id).execute(&mut *conn).await?;
        }
    }
    for entry in fs::read_dir(owners)?.flatten() {
        if matches!(File::open(entry.path()).and_then(|file| is_locked(&file)), Ok(false)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_lives_exactly_as_long_as_its_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let id = OwnerId::new();
        assert!(!id.is_alive(dir.path()).unwrap());
        let life = SignOfLife::create(dir.path(), id).unwrap();
        assert!(id.is_alive(dir.path()).unwrap());
        drop(life);
        assert!(!id.is_alive(dir.path()).unwrap());
    }

    #[test]
    fn a_lock_file_left_by_a_crash_does_not_keep_its_owner_alive() {
        let dir = tempfile::tempdir().unwrap();
        let id = OwnerId::new();
        File::create(id.lock_file(dir.path())).unwrap();
        assert!(!id.is_alive(dir.path()).unwrap());
    }
}
