//! One stream of one run, as it comes into a run store.

use std::time::Duration;

use oncelet_core::RunId;
use oncelet_store::{Chunk, LogReader, Store, StoreError, Stream};

/// How long between two looks at a log that grows.
const LOOK: Duration = Duration::from_millis(100);

/// Reads a log from its beginning, and stays with its run to the end.
pub(crate) struct StoredLog {
    store: Store,
    run: RunId,
    stream: Stream,
    reader: LogReader,
    /// The try that is read. One that failed to start wrote nothing of the program's.
    attempt: Option<u32>,
    /// All has been written.
    is_over: bool,
}

impl StoredLog {
    pub(crate) async fn open(store: &Store, run: RunId, stream: Stream) -> Result<Self, StoreError> {
        let reader = store.read_log(run, stream).await?;
        Ok(Self { store: store.clone(), run, stream, reader, attempt: None, is_over: false })
    }

    /// What comes next. `None` at the end of the run or, where the log is not to be followed (any more), of what is there.
    /// Dropped half-way it may lose a chunk.
    pub(crate) async fn next(&mut self, follows: impl Fn() -> bool) -> Result<Option<Chunk>, StoreError> {
        loop {
            // Asked before reading: what is written before the end is read after it.
            let is_all = self.is_over || !follows();
            if let Some(chunk) = self.reader.next_chunk().await? {
                return Ok(Some(chunk));
            }
            if is_all {
                return Ok(None);
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
}
