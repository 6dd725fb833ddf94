//! What a daemon asks the world, and what it makes of the answer.

use super::*;

/// Looks at what the code looks at, in its order; `None` where the engine does not answer.
pub(super) fn look(world: &World, record: &RunRecord) -> Option<Finding> {
    let hint = match exec_of(&record.state) {
        Some(exec) => Some(world.hint(&exec)?),
        None => None,
    };
    let life = world.life(&record.container_id)?;
    let gate = world.gate(&record.container_id, &record.key)?;
    Some(examine(&record.state, &gate, &life, hint))
}

pub(super) fn verdict(world: &World, record: &RunRecord) -> Option<Verdict> {
    let hint = match exec_of(&record.state) {
        Some(exec) => Some(world.hint(&exec)?),
        None => None,
    };
    Some(judge(&record.state, hint))
}

pub(super) fn exec_of(state: &RunState) -> Option<String> {
    match state {
        RunState::Starting { exec_id } | RunState::Running { exec_id, .. } => Some(exec_id.clone()),
        RunState::Claimed | RunState::Ended { .. } => None,
    }
}

pub(super) fn saw(witnessed: &Witnessed) -> Task {
    Task::Finish { started: Some(witnessed.started_at), outcome: witnessed.outcome(), finished: witnessed.finished_at }
}

pub(super) fn failed(world: &World) -> Task {
    let outcome = Outcome::FailedToStart { reason: "CommandNotFound".into(), message: String::new() };
    Task::Finish { started: None, outcome, finished: world.now }
}
