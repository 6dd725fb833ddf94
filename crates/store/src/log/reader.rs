//! Reading a log.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;

use super::frame::{Frame, Frames, Mark};
use super::{LogSummary, blocking};
use crate::StoreError;

/// A piece of output, 256 KiB at most.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// What the program wrote.
    pub bytes: Bytes,
    marks: Vec<Mark>,
}

impl From<Bytes> for Chunk {
    /// Bytes of which it is not known when they came.
    fn from(bytes: Bytes) -> Self {
        Self { bytes, marks: Vec::new() }
    }
}

impl Chunk {
    /// When the byte at `offset` came from the engine, to the millisecond; `None` in a log from before that was kept.
    pub fn received(&self, offset: usize) -> Option<Timestamp> {
        let later = self.marks.partition_point(|mark| mark.offset <= offset);
        Some(self.marks.get(later.checked_sub(1)?)?.at)
    }
}

/// Reads the output of one stream of one run, while it is written or later.
pub struct LogReader {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

struct State {
    frames: Frames,
    crc32c: u32,
    /// What the log must hold; known once the run is over.
    expected: Option<LogSummary>,
}

impl LogReader {
    pub(crate) fn new(path: PathBuf, expected: Option<LogSummary>) -> Self {
        let frames = Frames::new(path.clone());
        Self { path, state: Arc::new(Mutex::new(State { frames, crc32c: 0, expected })) }
    }

    /// The next output; `None` where there is none now. The position is kept: of a run that goes on,
    /// a later call gives what came since.
    pub async fn next_chunk(&mut self) -> Result<Option<Chunk>, StoreError> {
        let state = self.state.clone();
        let next = move || state.lock().unwrap_or_else(PoisonError::into_inner).next();
        blocking(&self.path, next).await
    }
}

impl State {
    fn next(&mut self) -> Result<Option<Chunk>, StoreError> {
        let Some(Frame { bytes, marks }) = self.frames.next_frame()? else {
            let complete = self
                .expected
                .as_ref()
                .is_none_or(|expected| expected.kept == self.frames.good() && expected.crc32c == self.crc32c);
            return if complete { Ok(None) } else { Err(self.frames.damaged()) };
        };
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        Ok(Some(Chunk { bytes: bytes.into(), marks }))
    }
}
