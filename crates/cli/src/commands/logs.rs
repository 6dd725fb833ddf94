//! `oncelet logs`: what a program wrote, byte for byte.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use oncelet_api::ContainerExec;
use oncelet_store::{Store, Stream};
use tokio::sync::watch;

use crate::args::Logs;
use crate::follow::Run;
use crate::objects::Objects;
use crate::output::one_line;
use crate::run_log::{self, RunOf, Wanted};
use crate::runs;

/// How long an API server has to say whether it has an object of a name.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the log of a run: that which an object shows or, by number and of what no object shows, one of the store.
pub(crate) async fn logs(args: Logs) -> Result<()> {
    let only = match (args.stdout, args.stderr) {
        (true, _) => Some(Stream::Stdout),
        (_, true) => Some(Stream::Stderr),
        _ => None,
    };
    let wanted = Wanted { only, follow: args.follow, timestamps: args.timestamps };
    let data = args.cluster.data.clone();
    let mut elsewhere = None;
    if args.run.parse::<i64>().is_err() {
        match shown(&args).await {
            Ok(Some((objects, object, run))) => {
                let (_goes_on, is_over) = watch::channel(false);
                let of = RunOf::new(&object, &run);
                return run_log::print(&objects, &of, wanted, None, is_over).await;
            }
            Ok(None) => {}
            Err(error) => elsewhere = Some(error),
        }
    }
    let recorded = async {
        let store = runs::open(data).await?;
        let run = runs::find(&store, &args.run).await?.id;
        anyhow::Ok::<(Store, _)>((store, run))
    };
    match (recorded.await, elsewhere) {
        (Ok((store, run)), _) => run_log::print_stored(&store, run, wanted).await,
        (Err(error), Some(elsewhere)) => Err(anyhow!("{}; {}", one_line(&error), one_line(&elsewhere))),
        (Err(error), None) => Err(error),
    }
}

/// The run that an object of this name shows; `None` where there is no such object, or it has not run.
async fn shown(args: &Logs) -> Result<Option<(Objects, ContainerExec, Run)>> {
    let mut cluster = args.cluster.clone();
    // As in the list of runs.
    let name = match args.run.split_once('/') {
        Some((namespace, name)) if !name.contains('/') => {
            cluster.namespace = Some(namespace.to_owned());
            name.to_owned()
        }
        Some(_) => return Ok(None),
        None => args.run.clone(),
    };
    // What is no name of an object is asked of the store alone.
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) || name.is_empty() {
        return Ok(None);
    }
    let objects = Objects::new(cluster).await?;
    let asked = tokio::time::timeout(PATIENCE, async { objects.execs().get_opt(&name).await });
    let object = asked.await.map_err(anyhow::Error::from).and_then(|found| Ok(found?));
    let Some(object) = object.context("the API server does not answer")? else { return Ok(None) };
    let run = object.status.as_ref().and_then(Run::of);
    Ok(run.map(|run| (objects, object, run)))
}
