//! What a run wrote and writes, a JSON object a line:
//!
//! - `{"stream": "stdout", "at": TIME, "text": "…"}`: output, in the order in which it was received as far as that is known.
//! - `{"stream": "stdout", "skipped": BYTES}`: so much before it is not shown.
//! - `{"stream": "stdout", "missing": BYTES}`: so much was not kept, and what follows is the end of the output.
//! - `{"end": true}`: the run is over, and this was all.
//! - `{"trouble": "…"}`: the log cannot be read any further.

use std::time::Duration;

use anyhow::Result;
use axum::extract::{self, State};
use axum::response::Response;
use futures::stream;
use jiff::Timestamp;
use oncelet_core::RunId;
use oncelet_store::{Chunk, LogReader, LogSummary, Store, StoreError, Stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Answer, Shared};

/// How long between two looks at a log that grows.
const LOOK: Duration = Duration::from_millis(200);
/// How much of each stream is shown of what is there already: the end of it.
const SHOWN: u64 = 2 * 1024 * 1024;
/// Pieces that wait for a slow browser.
const AHEAD: usize = 4;

pub(super) async fn log(State(page): Shared, extract::Path(run): extract::Path<i64>) -> Answer<Response> {
    let store = Store::open_reader(&page.store_dir).await?;
    let run = RunId(run);
    let logs = store.logs(run).await?;
    let mut streams = Vec::new();
    for stream in Stream::ALL {
        let skip = logs.get(stream).kept.saturating_sub(SHOWN);
        streams.push(Output { stream, reader: store.read_log(run, stream).await?, skip, decoder: Text::default() });
    }
    let (to, from) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        if let Err(error) = send(&store, run, streams, &to).await {
            let _ = to.send(json!({"trouble": error.to_string()})).await;
        }
        store.close().await;
    });
    Ok(super::lines(stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) }), &page))
}

struct Output {
    stream: Stream,
    reader: LogReader,
    /// How much is left out still.
    skip: u64,
    decoder: Text,
}

async fn send(store: &Store, run: RunId, mut streams: Vec<Output>, to: &mpsc::Sender<Value>) -> Result<(), StoreError> {
    for output in &mut streams {
        if output.skip > 0 {
            let _ = to.send(json!({"stream": output.stream.as_str(), "skipped": output.skip})).await;
        }
    }
    loop {
        // Asked before reading: what is written before the end is read after it.
        let over = store.run(run).await?.is_none_or(|record| record.state.is_ended());
        let mut pieces = Vec::new();
        for output in &mut streams {
            // A look at a long log goes on with the next one, so that nothing big waits here.
            let mut budget = SHOWN;
            while budget > 0
                && let Some(chunk) = output.reader.next_chunk().await?
            {
                budget = budget.saturating_sub(if output.skip > 0 { 0 } else { chunk.bytes.len() as u64 });
                pieces.extend(output.pieces(&chunk));
            }
        }
        let idle = pieces.is_empty();
        pieces.sort_by_key(|piece| piece.0);
        for (_, piece) in pieces {
            if to.send(piece).await.is_err() {
                return Ok(());
            }
        }
        if over && idle {
            let logs = store.logs(run).await?;
            for output in &mut streams {
                for piece in output.rest(logs.get(output.stream)) {
                    let _ = to.send(piece).await;
                }
            }
            let _ = to.send(json!({"end": true})).await;
            return Ok(());
        }
        if idle {
            tokio::select! {
                // Both arms only wait.
                () = to.closed() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

impl Output {
    /// The end of an output that is not kept as a whole.
    fn rest(&mut self, log: &LogSummary) -> Vec<Value> {
        let Some((missing, tail)) = log.cut() else { return Vec::new() };
        let stream = self.stream.as_str();
        let gap = (missing > 0).then(|| json!({"stream": stream, "missing": missing}));
        let text = self.decoder.push(tail);
        let text = (!text.is_empty()).then(|| json!({"stream": stream, "at": null, "text": text}));
        gap.into_iter().chain(text).collect()
    }

    /// A chunk as what is sent, cut where the time of receipt changes.
    fn pieces(&mut self, chunk: &Chunk) -> Vec<(Option<Timestamp>, Value)> {
        let length = chunk.bytes.len() as u64;
        let left_out = self.skip.min(length);
        self.skip -= left_out;
        let mut begin = usize::try_from(left_out).unwrap_or(usize::MAX);
        let mut pieces = Vec::new();
        while begin < chunk.bytes.len() {
            let at = chunk.received(begin);
            let end = same_time(chunk, begin, at);
            let text = self.decoder.push(&chunk.bytes[begin..end]);
            if !text.is_empty() {
                pieces.push((at, json!({"stream": self.stream.as_str(), "at": at, "text": text})));
            }
            begin = end;
        }
        pieces
    }
}

/// Where the bytes end that came at the same time as the one at `begin`: times only grow.
fn same_time(chunk: &Chunk, begin: usize, at: Option<Timestamp>) -> usize {
    let (mut same, mut later) = (begin, chunk.bytes.len());
    while later - same > 1 {
        let middle = usize::midpoint(same, later);
        if chunk.received(middle) == at {
            same = middle;
        } else {
            later = middle;
        }
    }
    later
}

/// Bytes cut anywhere as text; what is no UTF-8 is shown as such.
#[derive(Default)]
struct Text {
    /// The beginning of a character.
    begun: Vec<u8>,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.begun.extend_from_slice(bytes);
        let mut text = String::new();
        let taken = std::mem::take(&mut self.begun);
        let mut chunks = taken.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let is_last = chunks.peek().is_none();
            if is_last && is_begun(chunk.invalid()) {
                self.begun = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

/// Whether more bytes could make a character of it.
fn is_begun(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_however_it_is_cut() {
        let bytes = "größer ≤ 🐘 x".as_bytes();
        for size in 1..=bytes.len() {
            let mut text = Text::default();
            let shown: String = bytes.chunks(size).map(|piece| text.push(piece)).collect();
            assert_eq!(shown, "größer ≤ 🐘 x");
        }
        assert_eq!(Text::default().push(b"a\xffb\xc3"), "a\u{fffd}b");
    }
}
