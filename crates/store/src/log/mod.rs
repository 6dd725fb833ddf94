//! What runs write: bytes in files, summaries in the database.
//!
//! A log is a file of whole zstd frames, appended one by one. A crash leaves at most one incomplete frame at its end,
//! which readers do not see; so a reader in another process can follow a file that grows.

mod frame;
mod reader;
mod writer;

use std::fmt;
use std::io;
use std::path::Path;

use oncelet_core::RunId;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, SqliteConnection};

use crate::StoreError;

pub use reader::{Chunk, LogReader};
pub use writer::LogWriter;

/// How much of the end of a log stands in its summary where not all of it is kept: as much as a supervisor's record has.
pub(crate) const TAIL: usize = 8 * 1024;
/// The same where all is kept.
const SHORT_TAIL: usize = 2 * 1024;

/// One of the two streams that a program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The stream's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is to be known of one stream without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct LogSummary {
    /// How many bytes the program wrote.
    #[sqlx(try_from = "i64")]
    pub bytes: u64,
    /// How many of them, from the first on, are kept.
    #[sqlx(try_from = "i64")]
    pub kept: u64,
    /// Whether not all bytes were kept: because of the limit, or because there was no room for them.
    pub truncated: bool,
    /// Whether processes that the program left behind still held the stream open when it ended.
    pub held_open: bool,
    /// The last bytes that the program wrote, whether or not they are kept: 2 KiB at most, and 8 KiB where the log is truncated.
    /// Nothing, where no output is wanted, or where the last bytes are not known.
    pub tail: Vec<u8>,
    /// CRC-32C of the kept bytes.
    pub crc32c: u32,
}

impl LogSummary {
    /// Accounts for bytes that came, of which the first `kept` are kept.
    pub(crate) fn add(&mut self, bytes: &[u8], kept: usize) {
        self.bytes += bytes.len() as u64;
        self.kept += kept as u64;
        self.truncated |= kept < bytes.len();
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes[..kept]);
        if bytes.len() >= TAIL {
            self.tail.clear();
        } else {
            self.tail.drain(..(self.tail.len() + bytes.len()).saturating_sub(TAIL));
        }
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
    }

    /// Accounts for `bytes` that were written and are not kept; `tail` has the last of them, where that is known.
    pub(crate) fn skip(&mut self, bytes: u64, tail: &[u8]) {
        if bytes > 0 {
            self.bytes = self.bytes.saturating_add(bytes);
            self.truncated = true;
            self.tail.clear();
        }
        if !tail.is_empty() {
            self.tail = tail[tail.len().saturating_sub(TAIL)..].to_vec();
        }
    }

    /// Where not all is kept: how many bytes are missing after the kept ones, and the last bytes that follow these.
    pub fn cut(&self) -> Option<(u64, &[u8])> {
        let beyond = self.bytes.saturating_sub(self.kept);
        let known = self.tail.len().min(usize::try_from(beyond).unwrap_or(usize::MAX));
        let tail = &self.tail[self.tail.len() - known..];
        (beyond > 0).then_some((beyond - known as u64, tail))
    }

    /// The summary with no more of the tail than it is to have.
    fn trimmed(mut self) -> Self {
        if !self.truncated {
            self.tail.drain(..self.tail.len().saturating_sub(SHORT_TAIL));
        }
        self
    }
}

/// The summaries of both streams of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// Of the standard output.
    pub stdout: LogSummary,
    /// Of the standard error.
    pub stderr: LogSummary,
}

impl Logs {
    /// The summary of one stream.
    pub fn get(&self, stream: Stream) -> &LogSummary {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    /// Stores the summaries, once.
    pub(crate) async fn insert(&self, conn: &mut SqliteConnection, run: RunId) -> Result<(), StoreError> {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        // One question: each costs more to ask than to answer.
        let mut query = sqlx::query(
            "INSERT INTO log (run_id, stream, bytes, kept, truncated, held_open, tail, crc32c) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8), (?1, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )
        .bind(run.0);
        for stream in Stream::ALL {
            let log = self.get(stream);
            query = query
                .bind(stream.as_str())
                .bind(number(log.bytes))
                .bind(number(log.kept))
                .bind(log.truncated)
                .bind(log.held_open)
                .bind(&log.tail)
                .bind(log.crc32c);
        }
        query.execute(conn).await?;
        Ok(())
    }

    pub(crate) fn get_mut(&mut self, stream: Stream) -> &mut LogSummary {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// Reads a whole log file for its summary. Gives back also where its last whole frame ends.
pub(crate) fn scan(path: &Path) -> Result<(LogSummary, u64), StoreError> {
    let mut frames = frame::Frames::new(path.to_owned());
    let mut summary = LogSummary::default();
    while let Some(frame::Frame { bytes, .. }) = frames.next_frame()? {
        summary.add(&bytes, bytes.len());
    }
    Ok((summary, frames.position()))
}

/// Runs file work where it does not hold up the runtime.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::file(path)(io::Error::other(error))),
    }
}

/// [`scan`], for async callers.
pub(crate) async fn summarize(path: std::path::PathBuf) -> Result<LogSummary, StoreError> {
    let file = path.clone();
    blocking(&path, move || scan(&file).map(|(summary, _)| summary.trimmed())).await
}

/// Makes what a log file holds durable, if there is one.
pub(crate) async fn sync(path: std::path::PathBuf) -> Result<(), StoreError> {
    let file = path.clone();
    blocking(&path, move || match std::fs::File::open(&file) {
        Ok(open) => open
            .sync_data()
            // The file itself may be new in its directory.
            .and_then(|()| crate::dir::sync_parent(&file))
            .map_err(StoreError::file(&file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::file(&file)(error)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_missing_lies_between_the_kept_bytes_and_the_tail() {
        let summary =
            |bytes, kept, tail: &[u8]| LogSummary { bytes, kept, tail: tail.to_vec(), ..LogSummary::default() };
        assert_eq!(summary(4, 4, b"abcd").cut(), None);
        assert_eq!(summary(100, 10, b"abcd").cut(), Some((86, &b"abcd"[..])));
        assert_eq!(summary(12, 10, b"abcd").cut(), Some((0, &b"cd"[..])), "the rest of the tail is kept already");
        assert_eq!(summary(100, 10, b"").cut(), Some((90, &b""[..])));
    }

    proptest! {
        #[test]
        fn a_summary_does_not_depend_on_how_the_bytes_came(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..5),
            limit in 0_usize..9000,
        ) {
            let all = parts.concat();
            let mut summary = LogSummary::default();
            for part in &parts {
                let room = limit - usize::try_from(summary.kept).unwrap();
                summary.add(part, room.min(part.len()));
            }
            let kept = &all[..limit.min(all.len())];
            prop_assert_eq!(summary, LogSummary {
                bytes: all.len() as u64,
                kept: kept.len() as u64,
                truncated: kept.len() < all.len(),
                held_open: false,
                tail: all[all.len().saturating_sub(TAIL)..].to_vec(),
                crc32c: crc32c::crc32c(kept),
            });
        }
    }
}
