//! From what there is to show to the status of a `ContainerExec`. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use oncelet_api::{CapturedBy, ContainerExec, ContainerExecStatus, EffectiveVar, ExecState, Output, condition};
use oncelet_core::{Blocked, Capture, Outcome, RunRecord, RunState};
use oncelet_store::{LogSummary, Logs};

use crate::act::What;
use crate::observe::Observation;

/// How many of the last bytes of an output stand in the status.
const LONGEST_TAIL: usize = 2048;
/// Of a program that has left a server behind.
const HELD_OPEN: &str = "processes started by the program still hold its output open; what they write is discarded";

/// The status of `exec` that shows `what`; `None` where the status stays as it is. `is_guarded` is whether there is a policy that may
/// refuse something.
pub(crate) fn project(
    exec: &ContainerExec,
    observation: &Observation,
    what: &What,
    is_guarded: bool,
    now: Timestamp,
) -> Option<ContainerExecStatus> {
    let old = exec.status.clone().unwrap_or_default();
    let mut status = match what {
        What::Nothing => return None,
        What::Waiting { blocked, last_try } => waiting(&old, observation, blocked, last_try.as_deref()),
        What::Run { record, restored, logs, note, .. } => {
            let shown = run(record, *restored, logs.as_ref());
            ContainerExecStatus { message: shown.message.or_else(|| note.clone()), ..shown }
        }
    };
    status.observed_generation = exec.metadata.generation;
    let mut conditions =
        Conditions { old: &old.conditions, generation: exec.metadata.generation, now, new: Vec::new() };
    environment_conditions(&mut conditions, observation, what, is_guarded);
    run_conditions(&mut conditions, &status, what);
    status.conditions = conditions.new;
    Some(status)
}

/// Something stands in the way. An outcome that stands in the status stays there, unless it is that of another container.
fn waiting(
    old: &ContainerExecStatus,
    observation: &Observation,
    blocked: &Blocked,
    last_try: Option<&RunRecord>,
) -> ContainerExecStatus {
    let elsewhere = observation
        .container
        .as_ref()
        .is_some_and(|container| old.container_id.as_deref().is_some_and(|id| id != container.id.as_str()));
    let has_outcome = matches!(
        old.state,
        Some(ExecState::Finished | ExecState::Interrupted | ExecState::Unknown | ExecState::Running)
    );
    let mut status = match last_try {
        Some(record) => run(record, false, None),
        // Whoever has the bytes is to see that they are waited for.
        None if has_outcome && !elsewhere && blocked.reason != oncelet_core::Reason::StdinNotUploaded => {
            return old.clone();
        }
        None => ContainerExecStatus { state: Some(ExecState::Waiting), ..ContainerExecStatus::default() },
    };
    status.message = Some(blocked.message.clone());
    if let Some(container) = &observation.container {
        status.container_id = Some(container.id.to_string());
        status.container_name = Some(container.name.clone());
    }
    status
}

fn run(record: &RunRecord, restored: bool, logs: Option<&Logs>) -> ContainerExecStatus {
    let (started_at, finished_at, outcome) = match &record.state {
        RunState::Claimed | RunState::Starting { .. } => (None, None, None),
        RunState::Running { started_at, .. } => (Some(*started_at), None, None),
        RunState::Ended { started_at, finished_at, outcome } => (*started_at, Some(*finished_at), Some(outcome)),
    };
    let message = match outcome {
        Some(
            Outcome::Interrupted { message, .. }
            | Outcome::FailedToStart { message, .. }
            | Outcome::Unknown { message },
        ) => Some(message.clone()),
        Some(Outcome::Finished { .. }) if logs.is_some_and(|logs| logs.stdout.held_open || logs.stderr.held_open) => {
            Some(HELD_OPEN.to_owned())
        }
        Some(Outcome::Finished { .. }) | None => None,
    };
    let has_run = outcome.is_some_and(|outcome| !matches!(outcome, Outcome::FailedToStart { .. }));
    ContainerExecStatus {
        state: Some(state(&record.state)),
        message,
        restored: has_run.then_some(restored),
        startup_timestamp: started_at.map(MicroTime),
        finish_timestamp: finished_at.map(MicroTime),
        // The end of an unknown outcome is when it was found out.
        duration: started_at
            .zip(finished_at)
            .filter(|_| !matches!(outcome, Some(Outcome::Unknown { .. })))
            .map(|(start, end)| duration(start, end)),
        exit_code: outcome.and_then(Outcome::exit_code),
        effective_args: Some(record.effective.args.iter().map(|arg| arg.text.clone()).collect()),
        effective_env: Some(
            record
                .effective
                .env
                .iter()
                .map(|(name, value)| EffectiveVar { name: name.clone(), value: value.text.clone() })
                .collect(),
        ),
        container_id: Some(record.container_id.clone()),
        container_name: Some(record.container_name.clone()),
        run_id: Some(record.id.0),
        capture: Some(match record.capture {
            Capture::Supervised => CapturedBy::Supervised,
            Capture::Attached { .. } => CapturedBy::Attached,
        }),
        capture_reason: match &record.capture {
            Capture::Attached { reason } if !reason.is_empty() => Some(reason.clone()),
            _ => None,
        },
        stdout: logs.map(|logs| output(&logs.stdout)),
        stderr: logs.map(|logs| output(&logs.stderr)),
        ..ContainerExecStatus::default()
    }
}

fn state(state: &RunState) -> ExecState {
    match state {
        RunState::Claimed => ExecState::Claimed,
        RunState::Starting { .. } => ExecState::Starting,
        RunState::Running { .. } => ExecState::Running,
        RunState::Ended { outcome, .. } => match outcome {
            Outcome::Finished { .. } => ExecState::Finished,
            Outcome::Interrupted { .. } => ExecState::Interrupted,
            Outcome::FailedToStart { .. } => ExecState::FailedToStart,
            Outcome::Unknown { .. } => ExecState::Unknown,
        },
    }
}

fn output(log: &LogSummary) -> Output {
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Output {
        bytes: number(log.bytes),
        truncated: log.truncated,
        missing_bytes: log.cut().map(|(missing, _)| number(missing)).filter(|missing| *missing > 0),
        held_open: log.held_open,
        tail: tail_text(&log.tail),
    }
}

/// The last of these bytes as text: a character that the cut went through is left out, what is not text shows as U+FFFD, and so does
/// what a terminal would obey, for clients print it as it is; some would refuse a NUL.
fn tail_text(bytes: &[u8]) -> String {
    let bytes = &bytes[bytes.len().saturating_sub(LONGEST_TAIL)..];
    let start = bytes.iter().take(4).take_while(|byte| (**byte & 0xc0) == 0x80).count();
    let is_obeyed = |character: char| character.is_control() && !matches!(character, '\n' | '\t' | '\r');
    String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).replace(is_obeyed, "\u{fffd}")
}

/// A duration as kubectl writes ages, with a fraction where it is short: `4ms`, `0.12s`, `7.3s`, `2m5s`, `3h12m`.
fn duration(start: Timestamp, end: Timestamp) -> String {
    let seconds = end.duration_since(start).as_secs_f64().max(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and far below 2^64")]
    let whole = seconds as u64;
    match whole {
        0 if seconds < 0.1 => format!("{:.0}ms", seconds * 1000.0),
        0 => format!("{seconds:.2}s"),
        1..=9 => format!("{seconds:.1}s"),
        10..=119 => format!("{whole}s"),
        120..=10_799 => format!("{}m{}s", whole / 60, whole % 60),
        _ => format!("{}h{}m", whole / 3600, whole / 60 % 60),
    }
}

/// Conditions on their way; each keeps its transition time while its status stays.
struct Conditions<'a> {
    old: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    new: Vec<Condition>,
}

impl Conditions<'_> {
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let since = self
            .old
            .iter()
            .find(|old| old.type_ == type_ && old.status == status)
            .map_or(Time(self.now), |old| old.last_transition_time.clone());
        self.new.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: since,
            observed_generation: self.generation,
        });
    }
}

fn environment_conditions(conditions: &mut Conditions, observation: &Observation, what: &What, is_guarded: bool) {
    if let Some(refused) = &observation.refused {
        conditions.set(condition::ALLOWED, "False", &refused.reason.to_string(), &refused.message);
    } else if is_guarded {
        conditions.set(condition::ALLOWED, "True", "Policy", "");
    }
    match observation.not_ready() {
        // Nobody has looked.
        Some(blocked) if blocked.reason.is_refusal() => {
            conditions.set(condition::CONTAINER_READY, "Unknown", &blocked.reason.to_string(), &blocked.message);
        }
        Some(blocked) => {
            conditions.set(condition::CONTAINER_READY, "False", &blocked.reason.to_string(), &blocked.message);
        }
        None => conditions.set(condition::CONTAINER_READY, "True", "Running", "the container runs"),
    }
    let failed = match what {
        What::Waiting { blocked, .. } if blocked.reason == oncelet_core::Reason::StoreUnavailable => {
            Some(blocked.message.as_str())
        }
        _ => observation.store_problem(),
    };
    match failed {
        Some(message) => conditions.set(condition::STORE_AVAILABLE, "False", "StoreUnavailable", message),
        None => conditions.set(condition::STORE_AVAILABLE, "True", "Open", "the run store is open"),
    }
}

fn run_conditions(conditions: &mut Conditions, status: &ContainerExecStatus, what: &What) {
    let reason = status.state.map_or_else(String::new, |state| format!("{state:?}"));
    let message = status.message.as_deref().unwrap_or_default();
    let blocked = match what {
        What::Waiting { blocked, .. } => Some(blocked.reason.to_string()),
        _ => None,
    };
    let failed_to_start = match what {
        What::Run { record, .. } | What::Waiting { last_try: Some(record), .. } => match &record.state {
            RunState::Ended { outcome: Outcome::FailedToStart { reason, .. }, .. } => Some(reason.clone()),
            _ => None,
        },
        _ => None,
    };

    let ended_by = match what {
        What::Run { record, .. } => match &record.state {
            RunState::Ended { outcome: Outcome::Interrupted { by, .. }, .. } => Some(by.reason()),
            _ => None,
        },
        _ => None,
    };

    match (&status.startup_timestamp, status.state) {
        (Some(at), _) => {
            let message = format!("the program was started at {:.0}", at.0);
            conditions.set(condition::STARTED, "True", "Started", &message);
        }
        (None, Some(ExecState::Unknown | ExecState::Interrupted)) => {
            conditions.set(condition::STARTED, "Unknown", &reason, message);
        }
        (None, _) => {
            let why = blocked.as_ref().or(failed_to_start.as_ref()).unwrap_or(&reason);
            conditions.set(condition::STARTED, "False", why, message);
        }
    }

    let complete = matches!(status.state, Some(ExecState::Finished | ExecState::Interrupted | ExecState::Unknown));
    if complete {
        let restored = if status.restored == Some(true) { "restored from an earlier run: " } else { "" };
        let how = match status.exit_code {
            Some(code) => format!("{restored}exit code {code}"),
            None => format!("{restored}{message}"),
        };
        conditions.set(condition::COMPLETE, "True", &reason, &how);
        match (status.state, status.exit_code) {
            (Some(ExecState::Finished), Some(0)) => conditions.set(condition::SUCCEEDED, "True", "ExitCodeZero", ""),
            (Some(ExecState::Finished), _) => conditions.set(condition::SUCCEEDED, "False", "ExitCodeNotZero", &how),
            _ => conditions.set(condition::SUCCEEDED, "False", ended_by.unwrap_or(&reason), message),
        }
    } else {
        conditions.set(condition::COMPLETE, "False", &reason, message);
        conditions.set(condition::SUCCEEDED, "Unknown", &reason, message);
    }

    match what {
        What::Run { drift, .. } if !drift.is_empty() => {
            let message = format!("the recorded run had another {}; see oncelet runs show", drift.join(", "));
            conditions.set(condition::SPEC_DRIFTED, "True", "ProgramChanged", &message);
        }
        What::Waiting { blocked, .. } if blocked.reason == oncelet_core::Reason::ProgramChanged => {
            conditions.set(condition::SPEC_DRIFTED, "True", "ProgramChanged", &blocked.message);
        }
        _ => conditions.set(condition::SPEC_DRIFTED, "False", "Same", ""),
    }
}

#[cfg(test)]
pub(crate) mod tests;
