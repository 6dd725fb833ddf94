//! Carries out one decision. No policy lives here.

use std::time::Duration;

use oncelet_api::ContainerExec;
use oncelet_core::{Blocked, Decision, Reason, RunRecord};
use oncelet_engine::{Error as EngineError, ErrorKind};
use oncelet_store::Logs;

use crate::context::{Ctx, one_line};
use crate::launch::launch;
use crate::observe::Observation;
use crate::{end, recover, uploads};

/// How long until the store has what somebody else in this process is doing about a run.
pub(crate) const SOON: Duration = Duration::from_millis(200);

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
        /// What else there is to say while it goes on.
        note: Option<String>,
    },
    /// Nothing new: another look is on its way.
    Nothing,
}

impl Shown {
    pub(crate) fn waiting(blocked: Blocked) -> Self {
        let retry = Some(blocked.reason.retry());
        Self { what: What::Waiting { blocked, last_try: None }, retry }
    }

    pub(crate) fn run(record: RunRecord, retry: Option<Duration>) -> Self {
        Self::noted(record, retry, None)
    }

    fn noted(record: RunRecord, retry: Option<Duration>, note: Option<String>) -> Self {
        let what = What::Run { record: Box::new(record), restored: false, drift: Vec::new(), logs: None, note };
        Self { what, retry }
    }

    /// Look again at once.
    pub(crate) fn again() -> Self {
        Self::again_after(Duration::ZERO)
    }

    /// Look again soon; until then what is shown stays.
    pub(crate) fn again_after(pause: Duration) -> Self {
        Self { what: What::Nothing, retry: Some(pause) }
    }

    pub(crate) fn store_problem(error: &oncelet_store::StoreError) -> Self {
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
        Decision::End { record, by, retry } => {
            let note = end::end(ctx, exec, &record, by);
            Shown::noted(*record, Some(retry), note)
        }
        Decision::Show { record, restored, drift } => {
            // The outcome is stored: what the program was to read is not needed any more.
            if uploads::may_be_there(exec) {
                let (client, exec) = (ctx.client.clone(), exec.clone());
                ctx.watch(async move {
                    if let Err(error) = uploads::remove(&client, &exec).await {
                        tracing::warn!("what was uploaded for stdin is not removed yet: {}", one_line(&error));
                    }
                });
            }
            show(ctx, record, restored, drift, observation.logs.clone()).await
        }
        Decision::Launch { key, resolved, .. } => match &observation.container {
            Some(container) => launch(ctx, exec, container, key, *resolved).await,
            None => Shown::again(),
        },
        Decision::Recover { record } => match ctx.store.get() {
            Ok(store) => match recover::recover(ctx, &store, &record).await {
                // Not at once: somebody else here may be at it, and be about to store that the run is ours.
                Ok(()) => Shown::again_after(SOON),
                Err(blocked) => Shown::waiting(blocked),
            },
            Err(message) => Shown::waiting(Blocked { reason: Reason::StoreUnavailable, message }),
        },
    }
}

/// `known` are the summaries of its logs, where the store gave them with the run.
async fn show(
    ctx: &Ctx,
    record: Box<RunRecord>,
    restored: bool,
    drift: Vec<&'static str>,
    known: Option<Logs>,
) -> Shown {
    let logs = match (known, ctx.store.get()) {
        (Some(logs), _) => Ok(logs),
        (None, Ok(store)) => store.logs(record.id).await.map_err(|error| one_line(&error)),
        (None, Err(message)) => Err(message),
    };
    match logs {
        Ok(logs) => Shown { what: What::Run { record, restored, drift, logs: Some(logs), note: None }, retry: None },
        Err(message) => Shown::waiting(Blocked { reason: Reason::StoreUnavailable, message }),
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
