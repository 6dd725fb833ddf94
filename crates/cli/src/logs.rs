//! `oncelet logs`: what a program wrote, byte for byte.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use oncelet_core::RunId;
use oncelet_store::{LogReader, Store, Stream};

use crate::args::Logs;
use crate::progress::Line;
use crate::runs;
use crate::stamps::Stamps;

/// How long between two looks at a log that grows.
const LOOK: Duration = Duration::from_millis(100);

/// Prints the log, and goes on until the run has ended where that is asked for.
pub(crate) async fn run(args: Logs) -> Result<()> {
    let store = runs::open(args.data).await?;
    let record = runs::find(&store, &args.run).await?;
    let open = async |stream, leave_out| -> Result<Option<Log>> {
        if leave_out { Ok(None) } else { Log::open(&store, record.id, stream, args.timestamps).await.map(Some) }
    };
    let stdout = open(Stream::Stdout, args.stderr).await?;
    let stderr = open(Stream::Stderr, args.stdout).await?;
    print(&store, record.id, stdout, stderr, args.follow, None).await
}

/// Prints both streams of a run until it is over, above `line`.
pub(crate) async fn follow(store_dir: PathBuf, run: RunId, line: Line) -> Result<()> {
    let store = Store::open_reader(&store_dir).await?;
    let stdout = Log::open(&store, run, Stream::Stdout, false).await?;
    let stderr = Log::open(&store, run, Stream::Stderr, false).await?;
    print(&store, run, Some(stdout), Some(stderr), true, Some(&line)).await
}

async fn print(
    store: &Store,
    run: RunId,
    mut stdout: Option<Log>,
    mut stderr: Option<Log>,
    follow: bool,
    line: Option<&Line>,
) -> Result<()> {
    loop {
        // Asked before reading: what is written before the end is read after it.
        let over = !follow || has_ended(store, run).await?;
        copy(stdout.as_mut(), &mut std::io::stdout(), line).await?;
        // With one stream asked for, it goes where a pipe finds it.
        if stdout.is_none() {
            copy(stderr.as_mut(), &mut std::io::stdout(), line).await?;
        } else {
            copy(stderr.as_mut(), &mut std::io::stderr(), line).await?;
        }
        if over {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Log {
    reader: LogReader,
    stamps: Stamps,
}

impl Log {
    async fn open(store: &Store, run: RunId, stream: Stream, timestamps: bool) -> Result<Self> {
        Ok(Self { reader: store.read_log(run, stream).await?, stamps: Stamps::new(timestamps) })
    }
}

async fn has_ended(store: &Store, run: RunId) -> Result<bool> {
    let record = store.run(run).await?.with_context(|| format!("run {run} is no longer recorded"))?;
    Ok(record.state.is_ended())
}

async fn copy(log: Option<&mut Log>, to: &mut impl Write, line: Option<&Line>) -> Result<()> {
    let Some(Log { reader, stamps }) = log else { return Ok(()) };
    while let Some(chunk) = reader.next_chunk().await? {
        let bytes = stamps.stamp(&chunk, 0..chunk.bytes.len());
        match line {
            Some(line) => line.write(to, &bytes)?,
            None => to.write_all(&bytes)?,
        }
    }
    to.flush()?;
    Ok(())
}
