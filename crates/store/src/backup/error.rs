//! Why a backup is not made, or not taken.

use std::io;
use std::path::{Path, PathBuf};

use crate::{OpenError, StoreError};

/// Why a store is not copied to a file, or not restored from one. Nothing was replaced.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file is there, and was not to be replaced.
    #[error("{file} exists; name another file, or replace it with --force", file = file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// Two at once would fill the disk twice.
    #[error("another backup of this store, or a restore of it, is being made: {lock} is held", lock = lock.display())]
    Busy {
        /// The lock.
        lock: PathBuf,
    },
    /// The copy would leave no room for outcomes.
    #[error(
        "{needed_mib} MiB are needed in {dir} and {free_mib} MiB are free; make room on that disk", dir = dir.display()
    )]
    NoRoom {
        /// Where.
        dir: PathBuf,
        /// What is needed, with the room that is kept for outcomes.
        needed_mib: u64,
        /// What is free.
        free_mib: u64,
    },
    /// A daemon, or a command that changes runs, uses the store.
    #[error(
        "an oncelet daemon uses the run store in {dir} (process {pid} on {host}); stop it, then restore again",
        dir = dir.display()
    )]
    InUse {
        /// The store.
        dir: PathBuf,
        /// Its process.
        pid: String,
        /// Its machine.
        host: String,
    },
    /// There is a store with runs, and it was not to be replaced.
    #[error(
        "the run store in {dir} {what}; with --force it is moved aside and the backup takes its place",
        dir = dir.display()
    )]
    NotEmpty {
        /// The store.
        dir: PathBuf,
        /// Why it is not empty.
        what: String,
    },
    /// Not an archive that a backup could be.
    #[error("{file} is no backup of a run store: {why}", file = file.display())]
    NotABackup {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is not as it was written.
    #[error("the backup {file} is damaged: {why}", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A later release wrote it.
    #[error(
        "the backup {file} was written by oncelet {release}, with {what} {found}; this release knows {known}. Restore it \
         with that release or a later one", file = file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// The release that wrote it.
        release: String,
        /// What this release does not know.
        what: &'static str,
        /// Which it has.
        found: i64,
        /// Which are known.
        known: i64,
    },
    /// The file system has no such step.
    #[error(
        "{dir} cannot be exchanged with another directory in one step on this file system; move it away yourself, then \
         restore again", dir = dir.display()
    )]
    NoExchange {
        /// The store.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file cannot be used.
    #[error("{path} cannot be used", path = path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl BackupError {
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }
}

impl From<sqlx::Error> for BackupError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
