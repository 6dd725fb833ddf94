//! Copies of a store in one file, and how a store comes back from one.
//!
//! ```text
//! FILE = zstd( tar(
//!   oncelet-backup.json    version, schema and UUID: `Header`
//!   runs.db                a snapshot of the database
//!   logs/<run>-<attempt>.{stdout,stderr}.zst
//!   forgotten.json         runs of the snapshot that were forgotten while their logs were copied
//!   sha256                 of every byte of the tar before this line
//! ) )
//! ```
//!
//! The database is copied before the logs: what it says is complete is in the logs already.

mod error;
mod read;
mod restore;
mod write;

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use oncelet_core::RunId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use error::BackupError;
pub use restore::{Restored, restore};

use crate::log::Stream;

/// The version of the archive that this release writes and reads.
const FORMAT: u32 = 1;

/// The names of what is in an archive, in their order, with the logs between [`DATABASE`] and [`FORGOTTEN`].
const HEADER: &str = "oncelet-backup.json";
const DATABASE: &str = "runs.db";
const FORGOTTEN: &str = "forgotten.json";
const SHA256: &str = "sha256";

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: u32,
    /// The release that wrote it, for people.
    oncelet: String,
    /// The schema of the database.
    schema: i64,
    /// The UUID of the store.
    store: Uuid,
    created_at: Timestamp,
}

/// A backup that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// How many runs are in it.
    pub runs: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// One log file of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct LogFile {
    run: RunId,
    attempt: u32,
    stream: Stream,
}

impl LogFile {
    /// Its name below `logs`.
    fn name(self) -> String {
        format!("{}-{}.{}.zst", self.run, self.attempt, self.stream)
    }

    /// The log file of this name in an archive, if that is exactly how one is called.
    fn parse(path: &str) -> Option<Self> {
        let (numbers, stream) = path.strip_prefix("logs/")?.strip_suffix(".zst")?.split_once('.')?;
        let (run, attempt) = numbers.split_once('-')?;
        let stream = Stream::ALL.into_iter().find(|it| it.as_str() == stream)?;
        let file = Self { run: RunId(run.parse().ok()?), attempt: attempt.parse().ok()?, stream };
        (file.run.0 > 0 && format!("logs/{}", file.name()) == path).then_some(file)
    }
}

/// What was taken out of an archive.
struct Unpacked {
    header: Header,
    database: PathBuf,
    logs: BTreeSet<LogFile>,
    forgotten: BTreeSet<RunId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_store_gives_its_logs_are_names_of_logs() {
        let file = LogFile { run: RunId(42), attempt: 2, stream: Stream::Stderr };
        assert_eq!(LogFile::parse(&format!("logs/{}", file.name())), Some(file));
        for other in [
            "logs/../../.ssh/authorized_keys",
            "logs/42-2.stderr.zst/..",
            "/logs/42-2.stderr.zst",
            "logs//42-2.stderr.zst",
            "logs/+42-2.stderr.zst",
            "logs/042-2.stderr.zst",
            "logs/-42-2.stderr.zst",
            "logs/42-2.stdout",
            "logs/42-2.other.zst",
            "logs/42.stdout.zst",
            "logs/99999999999999999999-1.stdout.zst",
            "logs/",
        ] {
            assert_eq!(LogFile::parse(other), None, "{other}");
        }
    }
}
