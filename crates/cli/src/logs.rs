//! `oncelet logs`: what a program wrote, byte for byte.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use oncelet_store::{LogReader, Store, Stream};

use crate::args::Logs;
use crate::runs;
use crate::stamps::Stamps;

/// How long between two looks at a log that grows.
const LOOK: Duration = Duration::from_millis(100);

/// Prints the log, and goes on until the run has ended where that is asked for.
pub(crate) async fn run(args: Logs) -> Result<()> {
    let store = runs::open(args.data).await?;
    let record = runs::find(&store, &args.run).await?;
    let open = async |stream, leave_out| -> Result<Option<Log>> {
        if leave_out {
            return Ok(None);
        }
        Ok(Some(Log { reader: store.read_log(record.id, stream).await?, stamps: Stamps::new(args.timestamps) }))
    };
    let mut stdout = open(Stream::Stdout, args.stderr).await?;
    let mut stderr = open(Stream::Stderr, args.stdout).await?;
    loop {
        // Asked before reading: what is written before the end is read after it.
        let over = !args.follow || has_ended(&store, record.id).await?;
        copy(stdout.as_mut(), &mut std::io::stdout()).await?;
        // With one stream asked for, it goes where a pipe finds it.
        if args.stderr {
            copy(stderr.as_mut(), &mut std::io::stdout()).await?;
        } else {
            copy(stderr.as_mut(), &mut std::io::stderr()).await?;
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

async fn has_ended(store: &Store, run: oncelet_core::RunId) -> Result<bool> {
    let record = store.run(run).await?.with_context(|| format!("run {run} is no longer recorded"))?;
    Ok(record.state.is_ended())
}

async fn copy(log: Option<&mut Log>, to: &mut impl Write) -> Result<()> {
    let Some(Log { reader, stamps }) = log else { return Ok(()) };
    while let Some(chunk) = reader.next_chunk().await? {
        to.write_all(&stamps.stamp(&chunk, 0..chunk.bytes.len()))?;
    }
    to.flush()?;
    Ok(())
}
