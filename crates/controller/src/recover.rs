//! Brings a run whose daemon is gone to its true end.

use std::collections::HashMap;
use std::time::Duration;

use oncelet_core::{Blocked, Capture, Finding, Ownership, Reason, RunRecord, RunState, Verdict, judge};
use oncelet_engine::ContainerId;
use oncelet_faults::gives_up;
use oncelet_store::{Advance, Filter, Lease, Store, StoreError};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::context::{Ctx, one_line};
use crate::follow::supervised::{Step, container_of, exec_id, look, watch};
use crate::follow::{self, Run, attached};
use crate::steps::Step as Told;

/// How long between two lines about how far the recovery is.
const TELL: Duration = Duration::from_secs(2);

/// How long a look is waited for.
const MOMENTS: Duration = Duration::from_secs(5);

/// Why nobody watched.
const KILLED: &str = "the oncelet that started it is gone";

/// Recovers `record` for an object that asked for it.
///
/// # Guarantees
/// Nothing is started but an exec that was provably never started, under its own ID or behind the gate in the container.
pub(crate) async fn recover(ctx: &Ctx, store: &Store, record: &RunRecord) -> Result<(), Blocked> {
    match record.capture {
        Capture::Supervised => resume(ctx, store, record).await.map_err(store_problem),
        Capture::Attached { .. } => {
            let container = container_of(record).map_err(|error| not_yet(record, &error))?;
            let verdict = verdict(ctx, record).await?;
            carry_out(ctx, store, record, container, verdict).await.map_err(store_problem)
        }
    }
}

/// The looks for runs that daemons left behind, one for each engine that has some: none waits for another.
#[derive(Default)]
pub(crate) struct Sweeps(HashMap<Option<String>, AbortOnDropHandle<Result<(), Blocked>>>);

impl Sweeps {
    /// Recovers the runs that daemons left behind, whether or not their objects exist: a record must not stay open because nobody
    /// applies its object again. What may still start is left to the object that asks for it.
    ///
    /// Returns what is in the way, as far as that shows within moments. What takes longer goes on, and no second look begins in that
    /// engine before it is over.
    pub(crate) async fn go_on(&mut self, ctx: &Ctx, store: &Store) -> Result<(), Blocked> {
        let open = store.list(Filter { open_only: true, ..Filter::default() }).await.map_err(store_problem)?;
        let mut left: HashMap<Option<String>, Vec<RunRecord>> = HashMap::new();
        for record in open {
            if let Some((record, Ownership::Gone)) = store.lookup(&record.key).await.map_err(store_problem)? {
                left.entry(record.engine_id.clone()).or_default().push(record);
            }
        }
        for (engine, runs) in left {
            self.0.entry(engine).or_insert_with(|| {
                AbortOnDropHandle::new(tokio::spawn(recover_each(ctx.clone(), store.clone(), runs)))
            });
        }
        let until = Instant::now() + MOMENTS;
        let mut all = Ok(());
        for engine in self.0.keys().cloned().collect::<Vec<_>>() {
            let Some(sweep) = self.0.get_mut(&engine) else { continue };
            if let Ok(result) = tokio::time::timeout_at(until, sweep).await {
                self.0.remove(&engine);
                // A defect in a look is one of the whole.
                all = all.and(result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
            }
        }
        all
    }
}

async fn recover_each(ctx: Ctx, store: Store, left: Vec<RunRecord>) -> Result<(), Blocked> {
    let mut all = Ok(());
    let mut told = Instant::now();
    for (done, record) in left.iter().enumerate() {
        if told.elapsed() > TELL {
            tracing::info!("recovering: looked at {done} of {} runs whose daemon is gone", left.len());
            told = Instant::now();
        }
        // One whose engine is away holds up no other.
        all = all.and(recover_alone(&ctx, &store, record).await);
    }
    all
}

async fn recover_alone(ctx: &Ctx, store: &Store, record: &RunRecord) -> Result<(), Blocked> {
    let Some(engine) = ctx.engines.of_record(record).await.map_err(|error| not_yet(record, &error))? else {
        let message = format!("run {} cannot be recovered yet: its engine, {}, is not here", record.id, record.engine);
        return Err(Blocked { reason: Reason::EngineUnreachable, message });
    };
    let ctx = &ctx.on(engine);
    if needs_no_object(ctx, record).await? {
        tracing::info!(run = %record.id, key = %record.key, "recovering");
        recover(ctx, store, record).await?;
    }
    Ok(())
}

/// Whether an open run can be brought to its end, or be given up, without anything being started.
async fn needs_no_object(ctx: &Ctx, record: &RunRecord) -> Result<bool, Blocked> {
    Ok(match record.capture {
        Capture::Supervised => {
            let seen = look(ctx, record).await.map_err(|error| not_yet(record, &error))?;
            !matches!(seen.finding, Finding::StartExec | Finding::LookAgain)
        }
        Capture::Attached { .. } => !matches!(verdict(ctx, record).await?, Verdict::StartExec),
    })
}

/// Takes over a supervised run; what became of it, its task finds out.
async fn resume(ctx: &Ctx, store: &Store, record: &RunRecord) -> Result<(), StoreError> {
    // Somebody here looks after it already.
    let Some(care) = ctx.runs.take(&record.key) else { return Ok(()) };
    // Another daemon was faster, or the run is over.
    let Some(lease) = take_over(ctx, store, record).await? else { return Ok(()) };
    if gives_up("taken-over") {
        return Ok(());
    }
    if matches!(record.state, RunState::Claimed) {
        return store.release(lease).await;
    }
    let run = Run { lease, care, log_limit: record.log_limit };
    ctx.watch(watch(ctx.clone(), store.clone(), run, record.clone(), Step::Examine));
    Ok(())
}

async fn take_over(ctx: &Ctx, store: &Store, record: &RunRecord) -> Result<Option<Lease>, StoreError> {
    let at = (ctx.now)();
    let lease = store.take_over(record, at).await?;
    if lease.is_some() {
        ctx.steps.tell(|| Told::TakenOver { run: Box::new(record.clone()), at });
    }
    Ok(lease)
}

/// Finds out what became of an open attached run.
async fn verdict(ctx: &Ctx, record: &RunRecord) -> Result<Verdict, Blocked> {
    let hint = match exec_id(&record.state) {
        None => None,
        Some(exec_id) => {
            let state = ctx.engine.inspect_exec(&exec_id).await.map_err(|error| not_yet(record, &error))?;
            Some(follow::hint(state))
        }
    };
    Ok(judge(&record.state, hint))
}

async fn carry_out(
    ctx: &Ctx,
    store: &Store,
    record: &RunRecord,
    container: ContainerId,
    verdict: Verdict,
) -> Result<(), StoreError> {
    // Somebody here looks after it already.
    let Some(care) = ctx.runs.take(&record.key) else { return Ok(()) };
    // Another daemon was faster, or the run is over.
    let Some(lease) = take_over(ctx, store, record).await? else { return Ok(()) };
    match verdict {
        Verdict::Release => store.release(lease).await,
        Verdict::StartExec => {
            let run = Run { lease, care, log_limit: record.log_limit };
            if let Some(exec_id) = exec_id(&record.state) {
                ctx.tasks.spawn(attached::start(ctx.clone(), store.clone(), run, container, exec_id, true));
            }
            Ok(())
        }
        Verdict::StillRunning => {
            let logs = store.logs(record.id).await?;
            let run = Run { lease, care, log_limit: record.log_limit };
            if let Some(exec_id) = exec_id(&record.state) {
                let life = ctx.lives.of(&ctx.engine, &container, None);
                let why = KILLED.to_owned();
                ctx.tasks.spawn(attached::await_end(ctx.clone(), store.clone(), run, life, exec_id, why, logs));
            }
            Ok(())
        }
        Verdict::Ended(outcome) => {
            let logs = store.logs(record.id).await?;
            let ended = store.finish(&lease, (ctx.now)(), attached::because(KILLED, outcome), logs).await?;
            if let Advance::Done(run) = ended {
                ctx.steps.tell(|| Told::Ended { run: Box::new(run) });
            }
            ctx.wake(&record.key.name);
            Ok(())
        }
    }
}

fn not_yet(record: &RunRecord, error: &oncelet_engine::Error) -> Blocked {
    Blocked {
        reason: Reason::EngineUnreachable,
        message: format!("run {} cannot be recovered yet: {}", record.id, one_line(error)),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "to be called by map_err")]
fn store_problem(error: StoreError) -> Blocked {
    Blocked { reason: Reason::StoreUnavailable, message: one_line(&error) }
}
