//! Writing a log.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;

use super::frame::{Encoder, FRAME, Frame, MARKS, Mark};
use super::{LogSummary, blocking, scan};
use crate::StoreError;
use crate::dir;

/// Writes the output of one stream of one run.
///
/// # Guarantees
/// - Memory stays at about two frames (512 KiB), however much is written.
/// - What was written before a [`flush`](Self::flush) is visible to readers, in this process and others.
/// - Dropping a call half-way loses nothing that an earlier call took.
/// - After a failure the log ends there; what comes later is counted and dropped, as past the limit.
/// - What is written is made durable by [`crate::Store::finish`], before the outcome is.
pub struct LogWriter {
    path: PathBuf,
    limit: u64,
    /// Whether no output is wanted, not even its end.
    silent: bool,
    summary: LogSummary,
    /// Kept bytes that are in no frame yet; fewer than [`FRAME`].
    pending: Frame,
    file: Arc<Mutex<Appender>>,
}

impl LogWriter {
    /// Goes on with the log at `path`, where there is one: its daemon may have died after it had made the file.
    pub(crate) async fn open(path: PathBuf, limit: Option<u64>) -> Result<Self, StoreError> {
        let file = path.clone();
        // Of a run that begins there is none, and to find that out takes less time than to have it found out.
        let (summary, end) = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => (LogSummary::default(), 0),
            _ => blocking(&path, move || scan(&file)).await?,
        };
        let encoder = Encoder::new().map_err(StoreError::file(&path))?;
        let appender =
            Appender { path: path.clone(), file: None, end, kept: summary.kept, crc32c: summary.crc32c, encoder };
        let file = Arc::new(Mutex::new(appender));
        let silent = limit == Some(0);
        Ok(Self { path, limit: limit.unwrap_or(u64::MAX), silent, summary, pending: Frame::default(), file })
    }

    /// How many bytes of the stream are accounted for: whoever goes on with the log after a crash begins there.
    ///
    /// Of a log that was cut off at its limit, what was dropped in an earlier life is not known, and is to be given again.
    pub fn offset(&self) -> u64 {
        self.summary.bytes
    }

    /// Takes output that came at `at`. Bytes past the limit are counted and dropped, but for the last ones, which the summary has.
    pub async fn write(&mut self, at: Timestamp, bytes: Bytes) -> Result<(), StoreError> {
        let room = usize::try_from(self.limit.saturating_sub(self.summary.kept)).unwrap_or(usize::MAX);
        let kept = room.min(bytes.len());
        self.summary.add(&bytes, kept);
        let mut kept = &bytes[..kept];
        while !kept.is_empty() {
            self.mark(at);
            let (now, later) = kept.split_at(kept.len().min(FRAME - self.pending.bytes.len()));
            self.pending.bytes.extend_from_slice(now);
            kept = later;
            if self.pending.bytes.len() == FRAME || self.pending.marks.len() == MARKS {
                self.append().await?;
            }
        }
        Ok(())
    }

    /// Accounts for `bytes` that the program wrote after what came, and that nobody has kept. `tail` has the last bytes of the
    /// stream, where they are known. Nothing may follow.
    pub fn skip(&mut self, bytes: u64, tail: &[u8]) {
        self.summary.skip(bytes, tail);
        if bytes > 0 {
            self.limit = 0;
        }
    }

    /// Notes whether processes that the program left behind hold the stream open.
    pub fn set_held_open(&mut self, held_open: bool) {
        self.summary.held_open = held_open;
    }

    /// Makes all output so far durable, and gives back how much of the stream that is.
    pub async fn sync(&mut self) -> Result<u64, StoreError> {
        self.flush().await?;
        super::sync(self.path.clone()).await?;
        Ok(self.summary.bytes)
    }

    /// Remembers that what follows came at `at`, unless it came within a millisecond of what is before it.
    fn mark(&mut self, at: Timestamp) {
        let near = |last: &Mark| at.as_millisecond() == last.at.as_millisecond();
        if !self.pending.marks.last().is_some_and(near) {
            self.pending.marks.push(Mark { offset: self.pending.bytes.len(), at });
        }
    }

    /// Makes all output so far visible to readers, as a frame of its own. Call it when output pauses, not for each
    /// piece: small frames compress badly.
    pub async fn flush(&mut self) -> Result<(), StoreError> {
        if self.pending.bytes.is_empty() { Ok(()) } else { self.append().await }
    }

    /// Writes what is left, and sums up. Output that could not be written is in the summary as dropped.
    pub async fn finish(mut self) -> Result<LogSummary, StoreError> {
        if let Err(error) = self.flush().await {
            tracing::error!("the end of a log is lost: {error}");
        }
        let written = |file: &Appender| (file.kept, file.crc32c);
        let at_once = self.file.try_lock().ok().map(|file| written(&file));
        let (kept, crc32c) = if let Some(written) = at_once {
            written
        } else {
            // Behind a write whose caller went away.
            let file = self.file.clone();
            blocking(&self.path, move || Ok(written(&file.lock().unwrap_or_else(PoisonError::into_inner)))).await?
        };
        let truncated = self.summary.truncated || kept < self.summary.kept;
        let tail = if self.silent { Vec::new() } else { self.summary.tail };
        Ok(LogSummary { kept, truncated, tail, crc32c, ..self.summary }.trimmed())
    }

    async fn append(&mut self) -> Result<(), StoreError> {
        let frame = std::mem::take(&mut self.pending);
        let file = self.file.clone();
        // A caller that goes away does not stop the work, and the next frame waits for this one.
        let done =
            blocking(&self.path, move || file.lock().unwrap_or_else(PoisonError::into_inner).append(&frame)).await;
        if done.is_err() {
            // What is kept is always the beginning: nothing may follow a gap.
            self.limit = 0;
        }
        done
    }
}

/// The file, only ever longer by whole frames.
struct Appender {
    path: PathBuf,
    /// Made with the first frame.
    file: Option<File>,
    /// Where the last whole frame ends.
    end: u64,
    /// How many bytes of output the frames hold, and their checksum.
    kept: u64,
    crc32c: u32,
    encoder: Encoder,
}

impl Appender {
    fn append(&mut self, frame: &Frame) -> Result<(), StoreError> {
        let wrong = StoreError::file(&self.path);
        let encoded = match self.encoder.encode(frame) {
            Ok(encoded) => encoded,
            Err(error) => return Err(wrong(error)),
        };
        let written = self.file().and_then(|(file, end)| {
            file.write_all_at(&encoded, end)?;
            Ok(end + encoded.len() as u64)
        });
        match written {
            Ok(end) => {
                self.end = end;
                self.kept += frame.bytes.len() as u64;
                self.crc32c = crc32c::crc32c_append(self.crc32c, &frame.bytes);
                Ok(())
            }
            Err(error) => {
                // What a frame left half-written is never taken for output, but on a full disk it is in the way.
                let _ = self.file.as_ref().map(|file| file.set_len(self.end));
                Err(wrong(error))
            }
        }
    }

    fn file(&mut self) -> std::io::Result<(&File, u64)> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = dir::private().write(true).create(true).truncate(false).open(&self.path)?;
                // Cuts off the incomplete frame that a crash may have left.
                file.set_len(self.end)?;
                none.insert(file)
            }
        };
        Ok((file, self.end))
    }
}
