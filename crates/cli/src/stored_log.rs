//! One stream of one run, as it comes into a run store.

use std::time::Duration;

use bytes::Bytes;
use oncelet_core::{RunId, RunRecord};
use oncelet_store::{Chunk, LogReader, Store, StoreError, Stream};

/// How long between two looks at a log that grows.
const LOOK: Duration = Duration::from_millis(100);

/// Reads a log from its beginning, and stays with its run to the end. Where not all of it is kept, a line between its beginning and its
/// end says how much is missing.
pub(crate) struct StoredLog {
    store: Store,
    run: RunId,
    stream: Stream,
    reader: LogReader,
    /// The try that is read. One that failed to start wrote nothing of the program's.
    attempt: Option<u32>,
    /// All has been written.
    is_over: bool,
    /// The last byte did not end its line.
    inside: bool,
    /// What is missing was told.
    is_complete: bool,
}

/// What stands in a log where a part of the output is missing.
pub(crate) fn gap(missing: u64) -> String {
    format!(
        "[oncelet: {missing} bytes are missing here: the output is longer than logLimitBytes, or there was no room for it]"
    )
}

impl StoredLog {
    pub(crate) async fn open(store: &Store, run: RunId, stream: Stream) -> Result<Self, StoreError> {
        let reader = store.read_log(run, stream).await?;
        let (store, attempt) = (store.clone(), None);
        Ok(Self { store, run, stream, reader, attempt, is_over: false, inside: false, is_complete: false })
    }

    /// What comes next. `None` at the end of the run or, where the log is not to be followed (any more), of what is there.
    /// Dropped half-way it may lose a chunk.
    pub(crate) async fn next(&mut self, follows: impl Fn() -> bool) -> Result<Option<Chunk>, StoreError> {
        loop {
            // Asked before reading: what is written before the end is read after it.
            let is_all = self.is_over || !follows();
            if let Some(chunk) = self.reader.next_chunk().await? {
                self.inside = chunk.bytes.last() != Some(&b'\n');
                return Ok(Some(chunk));
            }
            if is_all {
                return self.rest().await;
            }
            let record = self.store.run(self.run).await?;
            let attempt = record.as_ref().map(|record| record.attempt);
            if self.attempt.is_some() && self.attempt != attempt && attempt.is_some() {
                self.reader = self.store.read_log(self.run, self.stream).await?;
            }
            self.attempt = attempt;
            self.is_over = record.is_none_or(|record| record.state.is_ended());
            if !self.is_over {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Of an output that is not kept as a whole: how much is missing, and its end. It begins on a line of its own.
    async fn rest(&mut self) -> Result<Option<Chunk>, StoreError> {
        if std::mem::replace(&mut self.is_complete, true) {
            return Ok(None);
        }
        let is_this_one =
            |it: &RunRecord| it.state.is_ended() && self.attempt.is_none_or(|attempt| attempt == it.attempt);
        if !self.store.run(self.run).await?.is_some_and(|record| is_this_one(&record)) {
            return Ok(None);
        }
        let logs = self.store.logs(self.run).await?;
        let Some((missing, tail)) = logs.get(self.stream).cut() else { return Ok(None) };
        let mut rest = Vec::with_capacity(tail.len() + 128);
        if missing > 0 {
            let line_end = if self.inside { "\n" } else { "" };
            rest.extend(format!("{line_end}{}\n", gap(missing)).into_bytes());
        }
        rest.extend_from_slice(tail);
        Ok((!rest.is_empty()).then(|| Bytes::from(rest).into()))
    }
}
