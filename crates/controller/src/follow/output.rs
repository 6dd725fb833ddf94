//! Where the output of a run goes.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use oncelet_engine::supervise::Written;
use oncelet_store::{LogSummary, LogWriter, Logs, Store, StoreError, Stream};

use super::Run;
use crate::context::one_line;

/// How long output may wait before followers of the log see it.
pub(super) const FLUSH: Duration = Duration::from_millis(200);

/// Both streams of a run.
pub(super) struct Outputs {
    stdout: Sink,
    stderr: Sink,
}

impl Outputs {
    /// Begins, or goes on where the store has them.
    pub(super) async fn open(store: &Store, run: &Run, now: fn() -> Timestamp) -> Self {
        Self {
            stdout: Sink::open(store, run, now, Stream::Stdout).await,
            stderr: Sink::open(store, run, now, Stream::Stderr).await,
        }
    }

    pub(super) fn get_mut(&mut self, stream: Stream) -> &mut Sink {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Makes what came so far visible to followers of the log.
    pub(super) async fn flush(&mut self) {
        self.stdout.flush().await;
        self.stderr.flush().await;
    }

    /// How much of both streams came.
    pub(super) fn offsets(&self) -> [u64; 2] {
        [self.stdout.offset(), self.stderr.offset()]
    }

    /// Makes what came durable, and gives back how much of both streams that is; `None` where something went wrong.
    pub(super) async fn sync(&mut self) -> Option<[u64; 2]> {
        Some([self.stdout.sync().await?, self.stderr.sync().await?])
    }

    /// Whether something that came was not kept, though the limit did not ask for it.
    pub(super) fn failed(&self) -> bool {
        self.stdout.failed || self.stderr.failed
    }

    pub(super) async fn finish(self) -> Logs {
        Logs { stdout: self.stdout.finish().await, stderr: self.stderr.finish().await }
    }
}

/// Where one stream goes. A log that cannot be written must not block the program: its output is then dropped,
/// and the summary says so.
pub(super) struct Sink {
    writer: Option<LogWriter>,
    now: fn() -> Timestamp,
    dirty: bool,
    failed: bool,
}

impl Sink {
    async fn open(store: &Store, run: &Run, now: fn() -> Timestamp, stream: Stream) -> Self {
        let writer = store.log_writer(&run.lease, stream, run.log_limit).await.map_err(complain).ok();
        Self { failed: writer.is_none(), writer, now, dirty: false }
    }

    /// How many bytes of the stream are accounted for.
    pub(super) fn offset(&self) -> u64 {
        self.writer.as_ref().map_or(0, LogWriter::offset)
    }

    /// Takes what follows.
    pub(super) async fn write(&mut self, bytes: Bytes) {
        let Some(writer) = &mut self.writer else { return };
        self.dirty = true;
        if let Err(error) = writer.write((self.now)(), bytes).await {
            self.failed = true;
            complain(error);
        }
    }

    /// Accounts for what the program wrote and nobody has kept.
    pub(super) fn close(&mut self, written: &Written) {
        if let Some(writer) = &mut self.writer {
            writer.skip(written.bytes.saturating_sub(writer.offset()), &written.tail());
            writer.set_held_open(written.held_open);
        }
    }

    async fn sync(&mut self) -> Option<u64> {
        self.dirty = false;
        let synced = self.writer.as_mut()?.sync().await;
        self.failed |= synced.is_err();
        synced.map_err(complain).ok().filter(|_| !self.failed)
    }

    /// Takes what begins at `offset` of the stream, as far as it is new.
    pub(super) async fn write_at(&mut self, offset: u64, bytes: Bytes) {
        let known = self.offset();
        if offset > known {
            // Never a byte after a gap: what is missing is read from the container's disk at the end.
            self.failed = true;
            return;
        }
        let skip = usize::try_from(known - offset).unwrap_or(usize::MAX);
        if skip < bytes.len() {
            self.write(bytes.slice(skip..)).await;
        }
    }

    async fn flush(&mut self) {
        if let (true, Some(writer)) = (std::mem::take(&mut self.dirty), &mut self.writer)
            && let Err(error) = writer.flush().await
        {
            self.failed = true;
            complain(error);
        }
    }

    async fn finish(self) -> LogSummary {
        match self.writer {
            Some(writer) => writer.finish().await.map_err(complain).unwrap_or_default(),
            None => LogSummary::default(),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "to be called by map_err")]
fn complain(error: StoreError) {
    tracing::error!("output is lost: {}", one_line(&error));
}
