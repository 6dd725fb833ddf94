//! The log endpoint of the embedded API server: `…/containerexecs/NAME/log`, as DCP has it.
//!
//! | parameter | what it does |
//! |---|---|
//! | `source` | `stdout` (the default) or `stderr` |
//! | `follow` | goes on until the run has ended |
//! | `run` | the number of the run; by default the one that the object shows |
//! | `offset` | leaves out so many bytes at the beginning, before lines are counted |
//! | `skip` | leaves out so many lines at the beginning |
//! | `tail` | leaves out all but so many lines at the end, as it is now |
//! | `limit` | ends after so many lines |
//! | `timestamps` | puts before each line when oncelet received its first byte |
//!
//! An answer stays with the run that it began with, whatever becomes of the object.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use oncelet_apiserver::{Part, PartQuery, PartRefusal, PartSource, PartStream};
use oncelet_core::{RunId, RunName, RunRecord};
use oncelet_store::{Chunk, LogReader, Store, StoreError, Stream};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::stamps::Stamps;
use crate::stored_log::StoredLog;

/// Pieces of 256 KiB at most that wait for a slow client.
const AHEAD: usize = 2;

const PARAMETERS: [&str; 8] = ["source", "follow", "run", "offset", "skip", "tail", "limit", "timestamps"];

/// The part that is read from the run store in `store_dir`.
pub(crate) fn part(store_dir: PathBuf) -> Part {
    Part { group: oncelet_api::GROUP, plural: "containerexecs", name: "log", source: Arc::new(Logs { store_dir }) }
}

struct Logs {
    store_dir: PathBuf,
}

impl PartSource for Logs {
    fn open(&self, object: Value, query: PartQuery) -> BoxFuture<'static, Result<PartStream, PartRefusal>> {
        let dir = self.store_dir.clone();
        Box::pin(async move {
            let wanted = Wanted::parse(&query)?;
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let shown = object["status"]["runId"].as_i64();
            let Some(run) = wanted.run.or(shown).map(RunId) else {
                let state = object["status"]["state"].as_str().unwrap_or("not looked at yet");
                return Err(PartRefusal::BadRequest(format!("ContainerExec {name} has not run yet: it is {state}")));
            };
            let unavailable = |error: &dyn std::error::Error| PartRefusal::Unavailable(error.to_string());
            let store = Store::open_reader(&dir).await.map_err(|error| unavailable(&error))?;
            let record = store.run(run).await.map_err(|error| unavailable(&error))?;
            // A run of another object is that object's to show.
            let is_its =
                |record: &RunRecord| Some(record.id.0) == shown || names_of_runs(&object).contains(&record.key.name);
            if !record.as_ref().is_some_and(is_its) {
                return Err(PartRefusal::Gone(format!("no run {run} of ContainerExec {name} is recorded (any more)")));
            }
            wanted.open(store, run).await.map_err(|error| unavailable(&error))
        })
    }
}

/// What the runs of an object are remembered by.
fn names_of_runs(object: &Value) -> Vec<RunName> {
    serde_json::from_value(object.clone()).map(|object| oncelet_controller::run_names(&object)).unwrap_or_default()
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    stream: Stream,
    follow: bool,
    run: Option<i64>,
    offset: u64,
    skip: u64,
    tail: Option<u64>,
    limit: Option<u64>,
    timestamps: bool,
}

impl Wanted {
    fn parse(query: &PartQuery) -> Result<Self, PartRefusal> {
        if let Some(unknown) = query.unknown(&PARAMETERS).next() {
            let known = PARAMETERS.join(", ");
            return Err(PartRefusal::BadRequest(format!("there is no parameter {unknown:?}; there are {known}")));
        }
        let stream = match query.text("source") {
            None | Some("" | "stdout") => Stream::Stdout,
            Some("stderr") => Stream::Stderr,
            Some(other) => {
                return Err(PartRefusal::BadRequest(format!("source is stdout or stderr, not {other:?}")));
            }
        };
        let number = |name: &str| match query.text(name) {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| PartRefusal::BadRequest(format!("{name} is a number{}, not {text:?}", of_what(name)))),
        };
        let run = number("run")?.map(|run| i64::try_from(run).unwrap_or(i64::MAX));
        Ok(Self {
            stream,
            follow: query.flag("follow"),
            run,
            offset: number("offset")?.unwrap_or_default(),
            skip: number("skip")?.unwrap_or_default(),
            tail: number("tail")?,
            limit: number("limit")?,
            timestamps: query.flag("timestamps"),
        })
    }

    async fn open(self, store: Store, run: RunId) -> Result<PartStream, StoreError> {
        let skip = match self.tail {
            None => self.skip,
            Some(tail) => {
                let mut reader = store.read_log(run, self.stream).await?;
                self.skip.max(count_lines(&mut reader).await?.saturating_sub(tail))
            }
        };
        let log = StoredLog::open(&store, run, self.stream).await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let lines = Lines { offset: self.offset, skip, limit: self.limit };
        let stamps = Stamps::new(self.timestamps);
        tokio::spawn(async move {
            // A client that is gone needs nothing any more.
            if let Err(error) = send(log, lines, stamps, self.follow, &sender).await {
                let _ = sender.send(Err(io::Error::other(error))).await;
            }
            store.close().await;
        });
        Ok(futures::stream::unfold(receiver, |mut from| async move { Some((from.recv().await?, from)) }).boxed())
    }
}

/// The lines of a log as it is now; an unfinished one counts.
async fn count_lines(reader: &mut LogReader) -> Result<u64, StoreError> {
    let (mut lines, mut unfinished) = (0, false);
    while let Some(Chunk { bytes, .. }) = reader.next_chunk().await? {
        lines += bytes.split(|byte| *byte == b'\n').count() as u64 - 1;
        unfinished = bytes.last() != Some(&b'\n');
    }
    Ok(lines + u64::from(unfinished))
}

async fn send(
    mut log: StoredLog,
    mut lines: Lines,
    mut stamps: Stamps,
    follow: bool,
    to: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), StoreError> {
    loop {
        let chunk = tokio::select! {
            chunk = log.next(|| follow) => chunk?,
            // What may be lost is for nobody then.
            () = to.closed() => return Ok(()),
        };
        let Some(chunk) = chunk else { return Ok(()) };
        let wanted = lines.take(&chunk.bytes);
        let bytes = stamps.stamp(&chunk, wanted);
        if !bytes.is_empty() && to.send(Ok(bytes)).await.is_err() {
            return Ok(());
        }
        if lines.limit == Some(0) {
            return Ok(());
        }
    }
}

/// What a numeric parameter counts, for people.
fn of_what(parameter: &str) -> &'static str {
    match parameter {
        "run" => "",
        "offset" => " of bytes",
        _ => " of lines",
    }
}

/// Which lines pass, of bytes that come cut anywhere.
struct Lines {
    /// How many bytes are left out still, before lines are counted.
    offset: u64,
    /// How many are left out still.
    skip: u64,
    /// How many pass still.
    limit: Option<u64>,
}

impl Lines {
    /// Which part of `bytes` passes.
    fn take(&mut self, bytes: &[u8]) -> Range<usize> {
        let after_line = |begin: usize| Some(begin + bytes[begin..].iter().position(|byte| *byte == b'\n')? + 1);
        // What does not fit is more than there is.
        let mut begin = usize::try_from(self.offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
        self.offset -= begin as u64;
        while self.skip > 0 {
            let Some(next) = after_line(begin) else { return 0..0 };
            begin = next;
            self.skip -= 1;
        }
        let Some(limit) = &mut self.limit else { return begin..bytes.len() };
        let mut end = begin;
        while *limit > 0 {
            let Some(next) = after_line(end) else { return begin..bytes.len() };
            end = next;
            *limit -= 1;
        }
        begin..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(skip: u64, limit: Option<u64>, size: usize) -> String {
        passed_from(0, skip, limit, size)
    }

    fn passed_from(offset: u64, skip: u64, limit: Option<u64>, size: usize) -> String {
        let mut lines = Lines { offset, skip, limit };
        let text = b"one\ntwo\nthree\nfour";
        let bytes = text.chunks(size).flat_map(|piece| piece[lines.take(piece)].to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_pass_however_they_are_cut() {
        for size in 1..20 {
            assert_eq!(passed(0, None, size), "one\ntwo\nthree\nfour");
            assert_eq!(passed(1, Some(2), size), "two\nthree\n");
            assert_eq!(passed(3, None, size), "four");
            assert_eq!(passed(9, None, size), "");
            assert_eq!(passed(0, Some(0), size), "");
            assert_eq!(passed(2, Some(9), size), "three\nfour");
            assert_eq!(passed_from(5, 0, None, size), "wo\nthree\nfour");
            assert_eq!(passed_from(5, 1, Some(1), size), "three\n");
            assert_eq!(passed_from(99, 0, None, size), "");
        }
    }
}
