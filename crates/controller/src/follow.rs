//! Stays with a run until its end is in the store.

pub(crate) mod attached;
mod output;
pub(crate) mod supervised;

use std::time::Duration;

use jiff::Timestamp;
use oncelet_core::{ExecHint, Outcome, RunRecord};
use oncelet_engine::ExecState;
use oncelet_store::{Advance, Lease, Logs, Store, StoreError};

use crate::context::{Ctx, one_line};
use crate::runs::Care;
use crate::steps::Step;

/// How long between two looks at something that announces itself by nothing.
const LOOK: Duration = Duration::from_secs(2);
/// How long the engine's stream may go on once the container has ended: mostly it ends at once, and has the truest end in it.
const GRACE: Duration = Duration::from_secs(1);

/// A run that a task looks after.
pub(crate) struct Run {
    /// The right to move it.
    pub(crate) lease: Lease,
    /// The care for it in this process; held for the task's life.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) care: Care,
    /// How many bytes of each stream are kept: as it was stored with the run.
    pub(crate) log_limit: Option<u64>,
}

/// What the engine says of an exec, in the core's words.
pub(crate) fn hint(state: ExecState) -> ExecHint {
    match state {
        ExecState::NeverStarted => ExecHint::NeverStarted,
        ExecState::Running { .. } => ExecHint::Running,
        ExecState::Exited { exit_code } => ExecHint::Exited(exit_code),
        ExecState::Gone => ExecHint::Gone,
    }
}

/// Records the end of a run. `None` where the run is no longer ours.
async fn finish(ctx: &Ctx, store: &Store, run: &Run, at: Timestamp, outcome: Outcome, logs: Logs) -> Option<RunRecord> {
    let ended = record("outcome", || store.finish(&run.lease, at, outcome.clone(), logs.clone())).await?;
    ctx.wake(&ended.key.name);
    ctx.steps.tell(|| Step::Ended { run: Box::new(ended.clone()) });
    Some(ended)
}

/// Writes to the store until it is written, for an outcome is never dropped. `None` where the run is no longer ours. The run's
/// objects are to be woken then.
async fn record<F>(what: &str, mut write: impl FnMut() -> F) -> Option<RunRecord>
where
    F: Future<Output = Result<Advance, StoreError>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        match write().await {
            Ok(Advance::Done(record)) => {
                tracing::info!(run = %record.id, key = %record.key, "{}", record.state.name());
                return Some(record);
            }
            Ok(Advance::Lost) => {
                tracing::warn!("another daemon has taken over a run; its {what} is not ours to write");
                return None;
            }
            Err(error) => {
                tracing::error!("the {what} of a run is not stored yet: {}", one_line(&error));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(10));
            }
        }
    }
}
