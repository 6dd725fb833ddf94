//! The lock that writers of one store take in turn, across processes.
//!
//! SQLite's own waiting sleeps and is unfair: with four writing processes the worst wait is seconds. The kernel's file
//! lock wakes the next in line.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::OpenError;
use crate::dir::{self, StoreDir};

/// How long to wait for another writer before calling it stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct WriteLock(File);

impl WriteLock {
    /// Waits for the lock, for [`PATIENCE`] at most.
    pub(crate) async fn acquire(dir: &StoreDir) -> Result<Self, OpenError> {
        loop {
            let lock = Self::acquire_within(dir, PATIENCE).await?;
            // While it was waited for, another store may have taken the place of this one.
            if lock.is_of(dir) {
                return Ok(lock);
            }
        }
    }

    fn is_of(&self, dir: &StoreDir) -> bool {
        match (self.0.metadata(), std::fs::metadata(dir.write_lock())) {
            (Ok(held), Ok(found)) => (held.dev(), held.ino()) == (found.dev(), found.ino()),
            _ => false,
        }
    }

    async fn acquire_within(dir: &StoreDir, patience: Duration) -> Result<Self, OpenError> {
        let path = dir.write_lock();
        let wrong = |source| dir.file_error(&path, source);
        // A file of its own each time: a wait that was given up may still get its lock, and must not share it.
        let file = dir::private().read(true).write(true).create(true).truncate(false).open(&path).map_err(wrong)?;
        match file.try_lock() {
            Ok(()) => return Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(wrong(error)),
        }
        let (sender, receiver) = oneshot::channel();
        // A thread, not a task for blocking work: the end of a runtime waits for those.
        std::thread::Builder::new()
            .name("oncelet-lock".into())
            .spawn(move || {
                let locked = loop {
                    match file.lock() {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        other => break other,
                    }
                };
                // Nobody waits any more: the file closes, which unlocks it.
                let _ = sender.send(locked.map(|()| Self(file)));
            })
            .map_err(wrong)?;
        match tokio::time::timeout(patience, receiver).await {
            Ok(Ok(locked)) => locked.map_err(wrong),
            Ok(Err(_)) => Err(wrong(io::Error::other("the thread that waited for the lock has died"))),
            Err(_) => Err(OpenError::Busy { path, seconds: patience.as_secs() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_lock_goes_to_the_next_in_line_and_a_stuck_holder_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let dir = StoreDir::new(dir.path()).unwrap();
        let held = WriteLock::acquire(&dir).await.unwrap();
        let refused = WriteLock::acquire_within(&dir, Duration::from_millis(20)).await;
        assert!(matches!(refused, Err(OpenError::Busy { .. })), "{refused:?}");
        let next = tokio::spawn({
            let dir = dir.clone();
            async move { WriteLock::acquire(&dir).await }
        });
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        drop(held);
        next.await.unwrap().unwrap();
    }
}
