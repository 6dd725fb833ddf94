//! Brings a run whose daemon is gone to its true end.

use oncelet_core::{Blocked, Ownership, Reason, RunRecord, RunState, Verdict, judge};
use oncelet_engine::ExecId;
use oncelet_store::{Filter, Store, StoreError};

use crate::context::{Ctx, one_line};
use crate::follow::{self, Run};

/// Why nobody watched.
const KILLED: &str = "the oncelet that started it is gone";

/// Recovers `record` for an object that asked for it.
///
/// # Guarantees
/// Nothing is started but an exec that was provably never started, under its own ID.
pub(crate) async fn recover(
    ctx: &Ctx,
    store: &Store,
    record: &RunRecord,
    log_limit: Option<u64>,
) -> Result<(), Blocked> {
    let verdict = examine(ctx, record).await?;
    carry_out(ctx, store, record, verdict, log_limit).await.map_err(store_problem)
}

/// Recovers the runs that daemons left behind, whether or not their objects exist: a record must not stay open
/// because nobody applies its object again. What may still start is left to the object that asks for it.
pub(crate) async fn recover_all(ctx: &Ctx, store: &Store) -> Result<(), Blocked> {
    let open = store.list(Filter { open_only: true, ..Filter::default() }).await.map_err(store_problem)?;
    for record in open {
        let found = store.lookup(&record.key).await.map_err(store_problem)?;
        if !matches!(found, Some((_, Ownership::Gone))) {
            continue;
        }
        let verdict = examine(ctx, &record).await?;
        if matches!(verdict, Verdict::StillRunning | Verdict::Ended(_)) {
            tracing::info!(run = %record.id, key = %record.key, "recovering");
            carry_out(ctx, store, &record, verdict, None).await.map_err(store_problem)?;
        }
    }
    Ok(())
}

/// Finds out what became of an open run.
async fn examine(ctx: &Ctx, record: &RunRecord) -> Result<Verdict, Blocked> {
    let hint = match exec_id(&record.state) {
        None => None,
        Some(exec_id) => {
            let state = ctx.engine.inspect_exec(&exec_id).await.map_err(|error| Blocked {
                reason: Reason::EngineUnreachable,
                message: format!("run {} cannot be recovered yet: {}", record.id, one_line(&error)),
            })?;
            Some(follow::hint(state))
        }
    };
    Ok(judge(&record.state, hint))
}

async fn carry_out(
    ctx: &Ctx,
    store: &Store,
    record: &RunRecord,
    verdict: Verdict,
    log_limit: Option<u64>,
) -> Result<(), StoreError> {
    // Somebody here looks after it already.
    let Some(care) = ctx.runs.take(&record.key) else { return Ok(()) };
    // Another daemon was faster, or the run is over.
    let Some(lease) = store.take_over(record, (ctx.now)()).await? else { return Ok(()) };
    match verdict {
        Verdict::Release => store.release(lease).await,
        Verdict::StartExec => {
            let run = Run { lease, care, asked_before: true, log_limit };
            if let Some(exec_id) = exec_id(&record.state) {
                ctx.tasks.spawn(follow::start_and_follow(ctx.clone(), store.clone(), run, exec_id));
            }
            Ok(())
        }
        Verdict::StillRunning => {
            let logs = store.logs(record.id).await?;
            let run = Run { lease, care, asked_before: true, log_limit };
            if let Some(exec_id) = exec_id(&record.state) {
                ctx.tasks.spawn(follow::await_end(ctx.clone(), store.clone(), run, exec_id, KILLED.to_owned(), logs));
            }
            Ok(())
        }
        Verdict::Ended(outcome) => {
            let logs = store.logs(record.id).await?;
            store.finish(&lease, (ctx.now)(), follow::because(KILLED, outcome), logs).await?;
            ctx.wake(&record.key.name);
            Ok(())
        }
    }
}

/// The exec of an open run; an ID that is none is not known to the engine either.
fn exec_id(state: &RunState) -> Option<ExecId> {
    match state {
        RunState::Starting { exec_id } | RunState::Running { exec_id, .. } => exec_id.parse().ok(),
        RunState::Claimed | RunState::Ended { .. } => None,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "to be called by map_err")]
fn store_problem(error: StoreError) -> Blocked {
    Blocked { reason: Reason::StoreUnavailable, message: one_line(&error) }
}
