//! What the container's disk, its life and the engine say of a run.

use jiff::Timestamp;
use oncelet_core::{Description, EndedBy, Finding, Gate, Life, RunRecord, RunState, Witnessed, examine};
use oncelet_engine::supervise::{Claim, Exit, Record, StopReason};
use oncelet_engine::{ContainerId, ContainerState, Error as EngineError, ExecId};

use super::super::hint;
use crate::context::Ctx;

/// What is known of a run beside the store.
pub(crate) struct Seen {
    /// What follows.
    pub(crate) finding: Finding,
    pub(super) gate: Gate,
    pub(super) life: Life,
    pub(super) record: Option<Record>,
}

/// Looks at the container's disk, its life and the exec.
///
/// # Guarantees
/// Each is looked at after what it could overtake: an exec that is over has left its traces in the gate, and so has a
/// container that has stopped.
pub(crate) async fn look(ctx: &Ctx, run: &RunRecord) -> Result<Seen, EngineError> {
    let hint = match exec_id(&run.state) {
        Some(exec_id) => Some(hint(ctx.engine.inspect_exec(&exec_id).await?)),
        None => None,
    };
    let container = container_of(run)?;
    let mut life = life_of(ctx, &container).await?;
    let user = run.program.user.as_deref();
    let record = ctx.engine.read_record(&container, &run.key.digest(), user).await?;
    if record.is_none() {
        // The disk may have gone between the two looks.
        life = life_of(ctx, &container).await?;
    }
    let gate = record.as_ref().map_or(Gate::Open, |record| gate(run, record));
    let finding = examine(&run.state, &gate, &life, hint).of_program(&run.program);
    Ok(Seen { finding, gate, life, record })
}

/// The container of a run. It was stored as the engine gave it; should it be no ID, nothing can be asked of it.
pub(crate) fn container_of(run: &RunRecord) -> Result<ContainerId, EngineError> {
    run.container_id.parse().map_err(|_| EngineError::InvalidRequest {
        message: format!("run {} is of a container whose ID is none: {:?}", run.id, run.container_id),
    })
}

/// The exec of an open run; an ID that is none is not known to the engine either.
pub(crate) fn exec_id(state: &RunState) -> Option<ExecId> {
    match state {
        RunState::Starting { exec_id } | RunState::Running { exec_id, .. } => exec_id.parse().ok(),
        RunState::Claimed | RunState::Ended { .. } => None,
    }
}

async fn life_of(ctx: &Ctx, container: &ContainerId) -> Result<Life, EngineError> {
    Ok(match ctx.engine.container(container.as_str()).await? {
        Some(container) => life(&container.state),
        None => Life::Gone,
    })
}

fn life(state: &ContainerState) -> Life {
    match state {
        ContainerState::Running { started_at } => Life::Runs { since: *started_at },
        ContainerState::Paused => Life::Runs { since: None },
        ContainerState::Exited { finished_at, .. } => Life::Stopped { since: *finished_at },
        // Between two lives nothing runs in it.
        ContainerState::Restarting | ContainerState::Created => Life::Stopped { since: None },
        // Its disk goes before it does.
        ContainerState::Removing | ContainerState::Dead => Life::Gone,
    }
}

fn gate(run: &RunRecord, record: &Record) -> Gate {
    let unsound = record.unsound.clone().or_else(|| strange(run, record));
    if let Some(message) = unsound {
        return Gate::Unsound { message };
    }
    match &record.exit {
        Some(exit) => Gate::Recorded(witnessed(exit)),
        None => Gate::Closed {
            claimed_at: record.claim.as_ref().map(|claim| time(claim.at_us)),
            started_at: record.started.as_ref().map(|started| time(started.at_us)),
            container_started_at: record.claim.as_ref().and_then(described).and_then(|it| it.container_started_at),
        },
    }
}

/// Why a record is not that of the launch that the store knows, where it knows of a start.
///
/// A launch is named by the moment of its claim in the store and by its object. The nonce beside them is another one after a
/// take-over. Before a start is known, the record of an earlier launch is as good: it is that of an exec that was given
/// up and came late, or of a run that the store has lost, and is taken back.
fn strange(run: &RunRecord, record: &Record) -> Option<String> {
    if !matches!(run.state, RunState::Running { .. }) {
        return None;
    }
    let description = described(record.claim.as_ref()?)?;
    (description.key != run.key || !description.is_of(run))
        .then(|| "it is the record of another launch than the one whose start is stored".to_owned())
}

/// More than lies beside any claim: it came in an order, which is one variable of an environment.
const LONGEST_DESCRIPTION: usize = 128 * 1024;

/// What lies beside a claim. Whoever runs code in the container may have written it: it is bounded, as it goes into the store and
/// the status.
pub(super) fn described(claim: &Claim) -> Option<Description> {
    let text = claim.description.to_string();
    serde_json::from_str(&text).ok().filter(|_| text.len() <= LONGEST_DESCRIPTION)
}

pub(super) fn witnessed(exit: &Exit) -> Witnessed {
    Witnessed {
        started_at: time(exit.started_us),
        finished_at: time(exit.finished_us),
        exit_code: exit.end.exit_code(),
        ended_by: exit.stopped.as_ref().map(|stopped| match stopped.by {
            StopReason::Stop => EndedBy::Stop,
            StopReason::Timeout => EndedBy::Timeout,
            StopReason::Delete => EndedBy::Delete,
        }),
    }
}

/// A time in the record. One that is none says that its clock was wrong.
fn time(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use oncelet_core::RunKey;
    use serde_json::json;

    use super::*;
    use crate::status::tests::record;

    fn recorded(description: &Description) -> Record {
        let supervisor = json!({"pid": 1, "startTicks": 1, "bootId": "b"});
        let claim =
            json!({"version": 3, "nonce": "n", "atUs": 1, "supervisor": supervisor, "description": description});
        let end = json!({"startedUs": 1, "finishedUs": 2, "elapsedUs": 1, "end": {"code": 0},
            "stdout": {"bytes": 0, "kept": 0}, "stderr": {"bytes": 0, "kept": 0}});
        let read = |value| serde_json::from_value(value).unwrap();
        Record { claim: Some(read(claim)), exit: Some(serde_json::from_value(end).unwrap()), ..Record::default() }
    }

    #[test]
    fn once_a_start_is_stored_only_the_record_of_that_launch_counts() {
        let exec_id = "e".repeat(64);
        let running = record(RunState::Running { exec_id: exec_id.clone(), started_at: Timestamp::UNIX_EPOCH });
        let its = Description {
            key: running.key.clone(),
            object_uid: running.object_uid.clone(),
            program: running.program.clone(),
            effective: running.effective.clone(),
            log_limit: None,
            claimed_at: running.claimed_at,
            container_started_at: None,
        };
        assert!(matches!(gate(&running, &recorded(&its)), Gate::Recorded(_)));
        let starting = record(RunState::Starting { exec_id });
        for other in [
            Description { claimed_at: Timestamp::MAX, ..its.clone() },
            Description { object_uid: "another".into(), ..its.clone() },
            Description { key: RunKey { token: "another".into(), ..its.key.clone() }, ..its.clone() },
        ] {
            assert!(matches!(gate(&running, &recorded(&other)), Gate::Unsound { .. }), "{other:?}");
            // Before that, an exec that was given up may have come late.
            assert!(matches!(gate(&starting, &recorded(&other)), Gate::Recorded(_)), "{other:?}");
        }
    }
}
