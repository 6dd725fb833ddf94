//! The real code of `oncelet-core`, asked in the model's small types.

use jiff::Timestamp;
use oncelet_core::{
    Capture, Decision, Effective, EndedBy, ExecHint, ExecSpec, Memory, Observed, OnChange, Outcome, Ownership, Program,
    Resolved, RunEvent, RunId, RunName, RunPolicy, RunRecord, RunState, Scope, Verdict, decide, judge,
};

use crate::world::{At, End, ExecNo, Row, Todo};

const THEN: Timestamp = Timestamp::UNIX_EPOCH;
/// Late enough for any pause between two tries to be over.
const NOW: Timestamp = Timestamp::MAX;

/// What [`decide`] says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Launch,
    Recover,
    /// Wait, mirror or show: nothing is done.
    Look,
}

/// An object, and a record to fill in.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    spec: ExecSpec,
    record: RunRecord,
}

impl Code {
    pub(crate) fn new() -> Self {
        let spec = ExecSpec {
            uid: "uid".into(),
            name: RunName::of_object("team", "seed"),
            program: Program { command: "seed".into(), ..Program::default() },
            run_policy: RunPolicy::Once,
            on_change: OnChange::Keep,
            scope: Scope::Container,
            rerun: None,
            retry: None,
            shown: None,
            end: None,
        };
        let record = RunRecord {
            id: RunId(1),
            key: spec.key("container"),
            container_id: "container".into(),
            container_name: "db".into(),
            engine: String::new(),
            engine_id: None,
            object_uid: spec.uid.clone(),
            program: spec.program.clone(),
            fingerprint: spec.program.fingerprint(),
            effective: Effective::default(),
            capture: Capture::Attached { reason: String::new() },
            log_limit: None,
            marked_at: None,
            attempt: 1,
            claimed_at: THEN,
            state: RunState::Claimed,
        };
        Self { spec, record }
    }

    /// [`decide`], and [`RunRecord::may_be_claimed_again`] as `observe::memory` asks it.
    pub(crate) fn decide(&self, found: Option<(Row, Ownership)>) -> Plan {
        let inputs =
            || Ok(Box::new(Resolved { args: vec![], env: vec![], stdin: None, effective: Effective::default() }));
        let memory = match found {
            None => Memory::NeverRan { inputs: inputs() },
            Some((row, ownership)) => {
                let record = Box::new(self.record(row));
                if record.may_be_claimed_again() {
                    Memory::FailedToStart { record, inputs: inputs() }
                } else {
                    Memory::Ran { record, ownership }
                }
            }
        };
        match decide(&self.spec, Observed::Container { id: "container".into(), ready: Ok(()), memory }, NOW) {
            Decision::Launch { .. } => Plan::Launch,
            Decision::Recover { .. } => Plan::Recover,
            Decision::Wait { .. }
            | Decision::Mirror { .. }
            | Decision::End { .. }
            | Decision::RetryStart { .. }
            | Decision::Show { .. } => Plan::Look,
        }
    }

    /// Whether the code lets a row be claimed again.
    pub(crate) fn may_be_claimed_again(&self, row: Row) -> bool {
        self.record(row).may_be_claimed_again()
    }

    fn record(&self, row: Row) -> RunRecord {
        RunRecord { attempt: row.attempt.into(), state: row.at.into(), ..self.record.clone() }
    }
}

/// [`judge`].
pub(crate) fn verdict(at: At, hint: Option<ExecHint>) -> Todo {
    match judge(&at.into(), hint) {
        Verdict::Release => Todo::Release,
        Verdict::StartExec => Todo::StartExec,
        Verdict::StillRunning => Todo::StillRunning,
        Verdict::Ended(outcome) => Todo::End(outcome.into()),
    }
}

/// [`RunState::next`]; `None` where the event is illegal.
pub(crate) fn next(at: At, event: RunEvent) -> Option<At> {
    RunState::from(at).next(event).ok().map(At::from)
}

pub(crate) fn exec_created(exec: ExecNo) -> RunEvent {
    RunEvent::ExecCreated { exec_id: exec.to_string() }
}

pub(crate) fn started() -> RunEvent {
    RunEvent::Started { at: THEN }
}

pub(crate) fn ended(end: End) -> RunEvent {
    RunEvent::Ended { at: THEN, outcome: end.into() }
}

impl From<At> for RunState {
    fn from(at: At) -> Self {
        match at {
            At::Claimed => Self::Claimed,
            At::Starting(exec) => Self::Starting { exec_id: exec.to_string() },
            At::Running(exec) => Self::Running { exec_id: exec.to_string(), started_at: THEN },
            At::Ended(end) => Self::Ended { started_at: None, finished_at: THEN, outcome: end.into() },
        }
    }
}

impl From<RunState> for At {
    fn from(state: RunState) -> Self {
        // Only the model's own numbers are ever made into IDs; another one would be an exec that is gone.
        let number = |exec_id: String| exec_id.parse().unwrap_or(ExecNo::MAX);
        match state {
            RunState::Claimed => Self::Claimed,
            RunState::Starting { exec_id } => Self::Starting(number(exec_id)),
            RunState::Running { exec_id, .. } => Self::Running(number(exec_id)),
            RunState::Ended { outcome, .. } => Self::Ended(outcome.into()),
        }
    }
}

impl From<End> for Outcome {
    fn from(end: End) -> Self {
        match end {
            End::Finished(code) => Self::Finished { exit_code: code.into() },
            End::Interrupted => Self::Interrupted { by: EndedBy::Container, message: String::new(), exit_code: None },
            End::FailedToStart => Self::FailedToStart { reason: String::new(), message: String::new() },
            End::Unknown => Self::Unknown { message: String::new() },
        }
    }
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Finished { exit_code } => Self::Finished(exit_code.try_into().unwrap_or(u8::MAX)),
            Outcome::Interrupted { .. } => Self::Interrupted,
            Outcome::FailedToStart { .. } => Self::FailedToStart,
            Outcome::Unknown { .. } => Self::Unknown,
        }
    }
}
