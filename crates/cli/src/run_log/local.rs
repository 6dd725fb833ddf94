//! The run store of this machine.

use std::path::Path;

use anyhow::Result;
use oncelet_core::{RunId, RunRecord};
use oncelet_store::{Store, Stream};
use tokio::sync::watch;

use super::{RunOf, Sink, Wanted, elsewhere, shown};
use crate::progress::Line;
use crate::runs::times;
use crate::stamps::Stamps;
use crate::stored_log::StoredLog;

/// The store in `dir` and its run that `of` is. Runs of different stores have the same numbers, so what is known of the run
/// has to agree.
pub(super) async fn open(dir: &Path, of: &RunOf) -> Result<(Store, RunId)> {
    let Ok(store) = Store::open_reader(dir).await else {
        let why = format!("the API server serves no logs, and there is no run store in {}", shown(dir));
        return Err(elsewhere(of, &why));
    };
    let run = RunId(of.run.id);
    match store.run(run).await {
        Ok(Some(record)) if is(&record, of) => Ok((store, run)),
        Ok(_) => {
            let why = format!("the API server serves no logs, and the run store in {} is not the daemon's", shown(dir));
            Err(elsewhere(of, &why))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a record is that of the run which an object shows.
fn is(record: &RunRecord, of: &RunOf) -> bool {
    let (started, _) = times(&record.state);
    of.run_names.contains(&record.key.name)
        && record.container_id == of.run.container_id
        // The object may have been looked at before the start.
        && (of.run.started.is_none() || started == of.run.started)
}

/// Prints a run of a store that is opened by who says which.
pub(crate) async fn print_stored(store: &Store, run: RunId, wanted: Wanted) -> Result<()> {
    let (_goes_on, is_over) = watch::channel(false);
    print_run(store, run, wanted, None, &is_over).await
}

pub(super) async fn print_run(
    store: &Store,
    run: RunId,
    wanted: Wanted,
    line: Option<&Line>,
    is_over: &watch::Receiver<bool>,
) -> Result<()> {
    let streams = wanted.streams().map(|stream| print_stream(store, run, wanted, stream, line, is_over));
    futures::future::try_join_all(streams).await.map(drop)
}

async fn print_stream(
    store: &Store,
    run: RunId,
    wanted: Wanted,
    stream: Stream,
    line: Option<&Line>,
    is_over: &watch::Receiver<bool>,
) -> Result<()> {
    let mut sink = Sink { to: wanted.writer(stream), line };
    let mut log = StoredLog::open(store, run, stream).await?;
    let mut stamps = Stamps::new(wanted.timestamps);
    while let Some(chunk) = log.next(|| wanted.follow && !*is_over.borrow()).await? {
        sink.write(&stamps.stamp(&chunk, 0..chunk.bytes.len()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use oncelet_core::{Capture, Effective, Program, RunKey, RunName, RunState};

    use super::*;
    use crate::follow::Run;

    const NOON: Timestamp = Timestamp::UNIX_EPOCH;

    fn of(container: &str, name: &str, started: Option<Timestamp>) -> RunOf {
        let run = Run { id: 1, container_id: container.into(), container: "db".into(), started };
        RunOf { name: "seed".into(), run_names: vec![RunName::of_object("default", name)], run }
    }

    /// Each store counts from 1.
    #[test]
    fn a_run_of_another_store_with_the_same_number_is_another_run() {
        let program = Program::default();
        let record = RunRecord {
            id: RunId(1),
            key: RunKey { ident: "c1".into(), name: RunName::of_object("default", "seed"), token: String::new() },
            container_id: "c1".into(),
            container_name: "db".into(),
            engine: String::new(),
            engine_id: None,
            object_uid: "uid".into(),
            fingerprint: program.fingerprint(),
            program,
            effective: Effective::default(),
            capture: Capture::Supervised,
            log_limit: None,
            marked_at: None,
            attempt: 1,
            claimed_at: NOON,
            state: RunState::Running { exec_id: "e".into(), started_at: NOON },
        };
        assert!(is(&record, &of("c1", "seed", Some(NOON))));
        assert!(is(&record, &of("c1", "seed", None)));
        assert!(!is(&record, &of("c2", "seed", Some(NOON))));
        assert!(!is(&record, &of("c1", "other", Some(NOON))));
        let later = Timestamp::from_second(1).unwrap();
        assert!(!is(&record, &of("c1", "seed", Some(later))));
    }
}
