//! Carries out one decision. No policy lives here.

use std::time::Duration;

use oncelet_api::ContainerExec;
use oncelet_core::{Blocked, Decision, Reason, Resolved, RunEvent, RunKey, RunRecord};
use oncelet_engine::{Container, Error as EngineError, ErrorKind, ExecId, NewExec};
use oncelet_store::{Advance, Claim, Lease, Logs, NewRun, Store};

use crate::context::{Ctx, one_line};
use crate::convert;
use crate::follow::{self, Run};
use crate::observe::Observation;
use crate::recover;

/// What there is to show after acting.
pub(crate) struct Shown {
    /// What to show.
    pub(crate) what: What,
    /// When to look again without being called.
    pub(crate) retry: Option<Duration>,
}

/// What to show of an object.
pub(crate) enum What {
    /// Something stands in the way.
    Waiting {
        /// What.
        blocked: Blocked,
        /// The failed try that the object shows meanwhile.
        last_try: Option<Box<RunRecord>>,
    },
    /// A run, going on or over.
    Run {
        /// The run.
        record: Box<RunRecord>,
        /// Whether it ran for an earlier object.
        restored: bool,
        /// The declared fields that differ from the recorded program.
        drift: Vec<&'static str>,
        /// What it printed, once it is over.
        logs: Option<Logs>,
    },
    /// Nothing new: another look is on its way.
    Nothing,
}

impl Shown {
    fn waiting(blocked: Blocked) -> Self {
        let retry = Some(blocked.reason.retry());
        Self { what: What::Waiting { blocked, last_try: None }, retry }
    }

    fn run(record: RunRecord, retry: Option<Duration>) -> Self {
        let what = What::Run { record: Box::new(record), restored: false, drift: Vec::new(), logs: None };
        Self { what, retry }
    }

    /// Look again at once.
    fn again() -> Self {
        Self { what: What::Nothing, retry: Some(Duration::ZERO) }
    }

    fn store_problem(error: &oncelet_store::StoreError) -> Self {
        Self::waiting(Blocked { reason: Reason::StoreUnavailable, message: one_line(error) })
    }
}

/// Carries out `decision` for `exec`.
pub(crate) async fn act(ctx: &Ctx, exec: &ContainerExec, observation: &Observation, decision: Decision) -> Shown {
    match decision {
        Decision::Wait { blocked, last_try, retry } => {
            Shown { what: What::Waiting { blocked, last_try }, retry: Some(retry) }
        }
        Decision::RetryStart { record, retry } | Decision::Mirror { record, retry } => Shown::run(*record, Some(retry)),
        Decision::Show { record, restored, drift } => show(ctx, record, restored, drift).await,
        Decision::Launch { key, resolved, .. } => match &observation.container {
            Some(container) => launch(ctx, exec, container, key, *resolved).await,
            None => Shown::again(),
        },
        Decision::Recover { record } => match ctx.store.get() {
            Ok(store) => match recover::recover(ctx, &store, &record, convert::log_limit(exec)).await {
                Ok(()) => Shown::again(),
                Err(blocked) => Shown::waiting(blocked),
            },
            Err(message) => Shown::waiting(Blocked { reason: Reason::StoreUnavailable, message }),
        },
    }
}

async fn show(ctx: &Ctx, record: Box<RunRecord>, restored: bool, drift: Vec<&'static str>) -> Shown {
    let logs = match ctx.store.get() {
        Ok(store) => store.logs(record.id).await.map_err(|error| one_line(&error)),
        Err(message) => Err(message),
    };
    match logs {
        Ok(logs) => Shown { what: What::Run { record, restored, drift, logs: Some(logs) }, retry: None },
        Err(message) => Shown::waiting(Blocked { reason: Reason::StoreUnavailable, message }),
    }
}

/// Claims the run, makes its exec, and hands it to a task that starts and follows it.
///
/// # Guarantees
/// - Each step is in the store before the next has an effect: claim, then create; exec ID, then start.
/// - Dropped half-way it leaves a claim that nobody looks after, which the next look recovers.
async fn launch(ctx: &Ctx, exec: &ContainerExec, container: &Container, key: RunKey, resolved: Resolved) -> Shown {
    let store = match ctx.store.get() {
        Ok(store) => store,
        Err(message) => return Shown::waiting(Blocked { reason: Reason::StoreUnavailable, message }),
    };
    // Whoever has the care launches; everybody else sees its record soon.
    let Some(care) = ctx.runs.take(&key) else {
        return Shown { what: What::Nothing, retry: Some(Duration::from_millis(200)) };
    };
    let spec = convert::exec_spec(exec);
    let new_exec = NewExec {
        command: std::iter::once(spec.program.command.clone()).chain(resolved.args).collect(),
        env: resolved.env,
        working_directory: spec.program.working_directory.clone(),
        user: spec.program.user.clone(),
    };
    let claim = store
        .claim(NewRun {
            key,
            container_id: container.id.to_string(),
            container_name: container.name.clone(),
            engine: ctx.engine.endpoint().to_owned(),
            object_uid: spec.uid,
            program: spec.program,
            effective: resolved.effective,
            now: (ctx.now)(),
        })
        .await;
    let lease = match claim {
        Ok(Claim::Won(lease)) => lease,
        Ok(Claim::Held(..)) => return Shown::again(),
        Err(error) => return Shown::store_problem(&error),
    };
    match create_exec(ctx, &store, container, &new_exec, &lease).await {
        Ok((exec_id, record)) => {
            let run = Run { lease, care, asked_before: false, log_limit: convert::log_limit(exec) };
            ctx.tasks.spawn(follow::start_and_follow(ctx.clone(), store, run, exec_id));
            Shown::run(record, None)
        }
        Err(Some(blocked)) => {
            if let Err(error) = store.release(lease).await {
                // The claim stays and is recovered: nothing was started under it.
                tracing::warn!("a claim could not be given back: {}", one_line(&error));
            }
            Shown::waiting(blocked)
        }
        Err(None) => Shown::again(),
    }
}

/// Makes the exec and stores its ID. `Err(None)` where the claim was lost meanwhile.
async fn create_exec(
    ctx: &Ctx,
    store: &Store,
    container: &Container,
    new_exec: &NewExec,
    lease: &Lease,
) -> Result<(ExecId, RunRecord), Option<Blocked>> {
    let exec_id =
        ctx.engine.create_exec(&container.id, new_exec).await.map_err(|error| Some(blocked_by_engine(&error)))?;
    let event = RunEvent::ExecCreated { exec_id: exec_id.to_string() };
    match store.advance(lease, event).await {
        Ok(Advance::Done(record)) => Ok((exec_id, record)),
        Ok(Advance::Lost) => Err(None),
        Err(error) => Err(Some(Blocked { reason: Reason::StoreUnavailable, message: one_line(&error) })),
    }
}

/// What an error of the engine means for whoever waits.
pub(crate) fn blocked_by_engine(error: &EngineError) -> Blocked {
    let reason = match error.kind() {
        ErrorKind::NotFound => Reason::ContainerNotFound,
        ErrorKind::ContainerNotRunning => Reason::ContainerNotRunning,
        ErrorKind::Rejected | ErrorKind::InvalidRequest => Reason::EngineRefused,
        _ => Reason::EngineUnreachable,
    };
    Blocked { reason, message: one_line(error) }
}
