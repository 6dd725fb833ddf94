//! `oncelet wait` and `oncelet rerun`.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::args::{Rerun, Wait};
use crate::ask;
use crate::follow::Follow;
use crate::objects::Objects;
use crate::progress::Line;

/// Waits for the object's run, and ends as its program did.
pub(crate) async fn wait(args: Wait) -> Result<ExitCode> {
    let objects = Objects::new(args.cluster).await?;
    objects.exec(&args.name).await?;
    Follow::object(&objects, &args.name, &Line::begin()).within(args.timeout, false).run().await
}

/// Asks for one more run.
pub(crate) async fn rerun(args: Rerun) -> Result<ExitCode> {
    let objects = Objects::new(args.cluster).await?;
    let object = objects.exec(&args.name).await?;
    let before = object.status.and_then(|status| status.run_id);
    ask::rerun(&objects.execs(), &args.name).await.context("the API server did not take it")?;
    if object.spec.stdin.is_some_and(|stdin| stdin.upload.is_some()) {
        eprintln!(
            "{}: its stdin was uploaded, and is not kept once the outcome is recorded; to send it again, run the same \
             oncelet exec -i command with the same input again",
            args.name
        );
    }
    if args.wait {
        return Follow::object(&objects, &args.name, &Line::begin()).after(before).run().await;
    }
    println!("{}/{} runs once more", objects.namespace, args.name);
    Ok(ExitCode::SUCCESS)
}
