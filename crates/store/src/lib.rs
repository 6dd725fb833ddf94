//! The durable memory of runs: who claimed which run key, how the run went, and what it wrote.
//!
//! ```text
//! <dir>/            0700, files 0600
//!   runs.db         metadata: SQLite, WAL, synchronous=FULL (runs.db-wal and runs.db-shm beside it)
//!   runs.lock       writers of all processes take turns
//!   store.json      which store runs.db must be
//!   owners/<uuid>.lock    locked by each daemon for life
//!   logs/<run>-<attempt>.{stdout,stderr}.zst    output, as zstd frames
//!   reserve         room for outcomes on a full disk
//!   backup.db, backup.lock    while a backup is made
//! ```
//!
//! # Guarantees
//! - Of any number of claims of one key, in any number of processes, one wins, and what was acknowledged survives
//!   kill -9 and power loss.
//! - Only the holder of the newest [`Lease`] moves a run; whoever held an older one learns [`Advance::Lost`].
//! - An error means: start nothing. It never means that nothing was written; every operation may be repeated.
//!
//! # Assumptions
//! A local file system, whose locks end with the process and whose syncs reach the disk.

mod backup;
mod change;
mod collect;
mod connect;
mod dir;
mod error;
mod lock;
mod log;
mod open;
mod owner;
mod reserve;
mod retention;
mod row;
mod secrets;
mod sidecar;
mod store;
mod writer;

pub use backup::{Backup, BackupError, Restored, restore};
pub use change::{Lease, NewRun};
pub use collect::{ABSENT_FOR, KnownContainer};
pub use error::{OpenError, StoreError};
pub use log::{Chunk, LogReader, LogSummary, LogWriter, Logs, Stream};
pub use owner::OwnerId;
pub use retention::ObjectRun;
pub use store::{Advance, Claim, Exclusive, Filter, Store};
