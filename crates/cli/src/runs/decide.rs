//! What a person decides about runs.

use std::path::Path;

use anyhow::{Context, Result, bail};
use oncelet_controller::Fate;
use oncelet_core::{Capture, RunRecord};
use oncelet_engine::{ContainerId, Engine, ErrorKind};
use oncelet_store::Store;

use super::{container, find};
use crate::args::{RunsForget, RunsGc, RunsMark};
use crate::clock::now;
use crate::output;
use crate::paths::Paths;
use crate::table::Table;

/// The store, to change it. Daemons may use it meanwhile.
async fn open(dir: &Path) -> Result<Store> {
    // Not `open` alone: that makes a store where there is none.
    Store::open_reader(dir).await?.close().await;
    Ok(Store::open(dir, now()).await?)
}

pub(super) async fn mark(args: RunsMark) -> Result<()> {
    let store = open(&Paths::new(args.data)?.store()).await?;
    let result = async {
        let record = find(&store, &args.run).await?;
        let marked = store.mark(record.id, args.exit_code, now()).await?;
        println!("run {} ({}) counts as finished with exit code {}", marked.id, marked.key.name, args.exit_code);
        Ok(())
    };
    let result = result.await;
    store.close().await;
    result
}

pub(super) async fn forget(args: RunsForget) -> Result<()> {
    let engine = Engine::connect(&args.engine.engine)?;
    let record = forget_run(&Paths::new(args.data)?.store(), &engine, &args.run).await?;
    println!(
        "run {} ({}) is forgotten; its program runs again when its object asks for it",
        record.id, record.key.name
    );
    Ok(())
}

/// Forgets a run in the store and in its container.
pub(crate) async fn forget_run(store_dir: &Path, engine: &Engine, run: &str) -> Result<RunRecord> {
    let store = open(store_dir).await?;
    let result = async {
        let record = find(&store, run).await?;
        if !record.state.is_ended() {
            bail!("run {} is {}; it cannot be forgotten before it is over", record.id, record.state.name());
        }
        // The container first: should this be cut off, the store still knows the run, and it can be forgotten again.
        forget_in_container(&engine_of(&record, engine).await?, &record).await?;
        store.forget(record.id).await?;
        Ok(record)
    };
    let result = result.await;
    store.close().await;
    result
}

/// The engine that has the container of a run: `usual`, or the one whose address is recorded.
async fn engine_of(record: &RunRecord, usual: &Engine) -> Result<Engine> {
    let Some(wanted) = &record.engine_id else { return Ok(usual.clone()) };
    if usual.identity().await? == *wanted {
        return Ok(usual.clone());
    }
    if let Ok(endpoint) = record.engine.parse()
        && let Ok(recorded) = Engine::connect(&endpoint)
        && recorded.identity().await.is_ok_and(|identity| identity == *wanted)
    {
        return Ok(recorded);
    }
    bail!(
        "run {} ran in an engine at {} that is neither there now nor at {}; say where it is with --engine",
        record.id,
        record.engine,
        usual.endpoint()
    )
}

/// Opens the gate in the container again.
async fn forget_in_container(engine: &Engine, record: &RunRecord) -> Result<()> {
    if matches!(record.capture, Capture::Attached { .. }) {
        return Ok(());
    }
    let id: ContainerId = record.container_id.parse()?;
    let container = format!("container {}", container(&record.container_name, &record.container_id));
    if engine.container(id.as_str()).await?.is_none() {
        // What it remembered went with it.
        return Ok(());
    }
    let (run, user) = (record.key.digest(), record.program.user.as_deref());
    if !engine.has_record(&id, &run, user).await? {
        return Ok(());
    }
    match engine.forget_runs(&id, &[run], user).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ContainerNotRunning => {
            bail!("{container} remembers the run, too, and has to run to forget it; start it and try again")
        }
        Err(error) => Err(error).with_context(|| format!("{container} remembers the run, too, and does not forget it")),
    }
}

pub(super) async fn gc(args: RunsGc) -> Result<()> {
    let store = open(&Paths::new(args.data)?.store()).await?;
    let engine = Engine::connect(&args.engine.engine)?;
    let collected = oncelet_controller::collect(&engine, &store, now()).await;
    store.close().await;
    let collected = collected.map_err(anyhow::Error::msg)?;
    if output::structured(&collected, args.output)? {
        return Ok(());
    }
    if collected.is_empty() {
        eprintln!("No runs in containers of this engine are recorded.");
        return Ok(());
    }
    let mut table = Table::new(vec!["CONTAINER", "RUNS", "WHAT"]).with_sentences_last();
    for one in &collected {
        let fate = match one.fate {
            Fate::Present => "kept: the container is there".to_owned(),
            Fate::Absent { since } => format!("kept: the container is gone since {since:.0}, not for an hour yet"),
            Fate::Forgotten => "forgotten: the container is gone".to_owned(),
        };
        table.row(vec![container(&one.name, &one.container_id).into(), one.runs.to_string().into(), fate.into()]);
    }
    table.print()
}
