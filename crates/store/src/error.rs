//! What can go wrong, in words for people.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oncelet_core::{IllegalEvent, RunId};

/// Why a store does not open. A store is never made anew in place of one that cannot be used: everything would run
/// again.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no store, and a reader makes none.
    #[error("there is no run store in {dir}; has the daemon run with this data directory?", dir = dir.display())]
    NotFound {
        /// The directory.
        dir: PathBuf,
    },
    /// File locks or syncs cannot be trusted there.
    #[error(
        "the run store cannot be kept in {dir}: it is on {filesystem}, where file locks and syncs cannot be trusted; \
         choose a data directory on a local disk", dir = dir.display()
    )]
    Filesystem {
        /// The directory.
        dir: PathBuf,
        /// The kind of file system.
        filesystem: &'static str,
    },
    /// The database file is gone, while the rest of the store is there.
    #[error("the run database {path} is missing, but the store it belongs to is there; {RESTORE}", path = path.display())]
    DatabaseMissing {
        /// The database.
        path: PathBuf,
    },
    /// The file that tells which store the database must be is gone.
    #[error(
        "{path} is missing, so it cannot be told whether the run database beside it is the right one; {RESTORE}",
        path = path.display()
    )]
    SidecarMissing {
        /// The sidecar.
        path: PathBuf,
    },
    /// The file that tells which store the database must be cannot be read.
    #[error("{path} is damaged; {RESTORE}", path = path.display())]
    SidecarDamaged {
        /// The sidecar.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The database file has no byte.
    #[error("the run database {path} is empty (0 bytes): what it remembered is lost; {RESTORE}", path = path.display())]
    Empty {
        /// The database.
        path: PathBuf,
    },
    /// The database file is damaged.
    #[error("the run database {path} is damaged; {RESTORE}", path = path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: sqlx::Error,
    },
    /// A database, but not one of ours.
    #[error("{path} is a database, but not a run store of oncelet; {RESTORE}", path = path.display())]
    NotAStore {
        /// The database.
        path: PathBuf,
    },
    /// A run store, but another one.
    #[error(
        "the run database {path} is that of another store ({found}, expected {expected}), so it does not know what ran \
         here; {RESTORE}", path = path.display()
    )]
    OtherStore {
        /// The database.
        path: PathBuf,
        /// The UUID in the sidecar.
        expected: String,
        /// The UUID in the database.
        found: String,
    },
    /// A newer release wrote it.
    #[error(
        "the run database {path} was written by a newer release of oncelet (it asks for schema {needed}, this release \
         knows {known}); use that release or a later one", path = path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The lowest schema that may write there.
        needed: i64,
        /// The schema of this release.
        known: i64,
    },
    /// Nothing can be written there.
    #[error(
        "the run store in {dir} cannot be written: it is read-only for this user; make it writable, or choose another \
         data directory", dir = dir.display()
    )]
    ReadOnly {
        /// The directory.
        dir: PathBuf,
    },
    /// The disk is full.
    #[error("the disk that holds the run store in {dir} is full; make room on it", dir = dir.display())]
    DiskFull {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process holds the write lock and does not let go.
    #[error(
        "another process has held {path} for {seconds} s; look for an oncelet that is stopped or stuck",
        path = path.display()
    )]
    Busy {
        /// The lock.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The database file was removed or replaced while it was in use.
    #[error(
        "the run database {path} was removed or replaced while oncelet used it; put the right one back and restart \
         oncelet", path = path.display()
    )]
    Replaced {
        /// The database.
        path: PathBuf,
    },
    /// The SQLite library has a defect that corrupts stores.
    #[error(
        "this oncelet was built with SQLite {found}, which can corrupt the run store; build it with {needed} or later"
    )]
    Library {
        /// Its version.
        found: String,
        /// The first good version.
        needed: &'static str,
    },
    /// A file of the store cannot be used.
    #[error("{path} cannot be used for the run store", path = path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SQLite fails.
    #[error("the run database {path} cannot be opened", path = path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: sqlx::Error,
    },
    /// The schema cannot be brought up to date.
    #[error("the run database {path} cannot be brought to the schema of this release", path = path.display())]
    Migrate {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// What to do about a store that lost its memory.
const RESTORE: &str = "restore it from a backup with oncelet store restore --force FILE, or move its directory away to \
                       begin anew: what the containers remember is taken back, the rest runs once more";

/// Why an open store cannot do what it was asked. Nothing may be started after any of these.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite fails. What was to be written may or may not have been: ask the store again.
    #[error("the run database fails")]
    Database(#[from] sqlx::Error),
    /// The database cannot be opened again after a failure, or another process keeps it. Nothing was written.
    #[error("the run store cannot be used now")]
    Unavailable(#[source] Arc<OpenError>),
    /// The run's state does not allow the event.
    #[error("run {run} refuses an event")]
    Illegal {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: IllegalEvent,
    },
    /// Only a claim can be released.
    #[error("run {run} is {state} and cannot be released: its program may have started")]
    NotReleasable {
        /// The run.
        run: RunId,
        /// Its state.
        state: &'static str,
    },
    /// Only an end that nobody saw can be marked.
    #[error("run {run} is {state}: only the end of an Unknown or Interrupted run can be said by a person")]
    NotMarkable {
        /// The run.
        run: RunId,
        /// Its state.
        state: &'static str,
    },
    /// Only a run that is over can be forgotten.
    #[error("run {run} is {state} and cannot be forgotten before it is over")]
    StillOpen {
        /// The run.
        run: RunId,
        /// Its state.
        state: &'static str,
    },
    /// A row holds what no release of ours writes.
    #[error("run {run}, table {table}, column {column}: the value cannot be understood")]
    Decode {
        /// The row's run.
        run: i64,
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A value cannot be stored.
    #[error("the {what} of a run cannot be written as JSON")]
    Encode {
        /// The value.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No such run.
    #[error("there is no run {0}")]
    NoSuchRun(RunId),
    /// Opened for reading.
    #[error("the run store was opened for reading only")]
    Reader,
    /// Closed by [`crate::Store::close`], or its runtime has ended.
    #[error("the run store is closed")]
    Closed,
    /// So little room is left that the outcome of a new run might not fit.
    #[error(
        "only {free_mib} MiB are free on the disk that holds the run store in {dir}, and {needed_mib} MiB are needed \
         before a program is started; make room on it", dir = dir.display()
    )]
    DiskAlmostFull {
        /// The store's directory.
        dir: PathBuf,
        /// What is free.
        free_mib: u64,
        /// What is needed.
        needed_mib: u64,
    },
    /// A file of the store cannot be used.
    #[error("{path} cannot be used", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A log does not hold what was written.
    #[error("the log {path} is damaged after {good} good bytes of output", path = path.display())]
    DamagedLog {
        /// The file.
        path: PathBuf,
        /// How many bytes before the damage were handed out.
        good: u64,
    },
}

impl StoreError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }
}

/// The primary result code of SQLite, where the error is one of SQLite's.
pub(crate) fn sqlite_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// `SQLITE_READONLY`.
pub(crate) const READONLY: i32 = 8;
/// `SQLITE_CORRUPT`.
pub(crate) const CORRUPT: i32 = 11;
/// `SQLITE_FULL`.
pub(crate) const FULL: i32 = 13;
/// `SQLITE_NOTADB`.
pub(crate) const NOTADB: i32 = 26;
