//! A run: its states, the events that move it, and the one place that rejects illegal ones.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Effective, Fingerprint, Program, RunKey};

/// The number of a run in its store; later runs have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many bytes of each output are kept where the object does not say it: 100 MiB.
pub const DEFAULT_LOG_LIMIT: u64 = 100 * 1024 * 1024;

/// One run, as the store remembers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// Its number.
    pub id: RunId,
    /// What it is remembered by.
    pub key: RunKey,
    /// The engine's full ID of the container it ran in.
    pub container_id: String,
    /// The container's name when the run was claimed.
    pub container_name: String,
    /// The engine's address when the run was claimed; for people, never part of an identity.
    pub engine: String,
    /// What told the engine from another one behind the same address, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_id: Option<String>,
    /// The UID of the object for which it ran.
    pub object_uid: String,
    /// The program as declared.
    pub program: Program,
    /// The program's fingerprint.
    pub fingerprint: Fingerprint,
    /// The environment and arguments it got, secrets masked.
    pub effective: Effective,
    /// How many bytes of each output are kept; all, of a run from before there was a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_limit: Option<u64>,
    /// Who watches over it.
    pub capture: Capture,
    /// When a person said how it had ended, where nobody else knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marked_at: Option<Timestamp>,
    /// How often it was tried: above 1 where earlier tries failed to start.
    pub attempt: u32,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// Where it is.
    pub state: RunState,
}

/// Who watches over a program, and so what outlives whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "capture", rename_all_fields = "camelCase")]
pub enum Capture {
    /// A supervisor inside the container: its record outlives the daemon and the engine's.
    Supervised,
    /// The daemon itself, through the engine: when it is killed in the middle, the outcome cannot be known.
    Attached {
        /// Why there is no supervisor, for people.
        reason: String,
    },
}

impl Capture {
    /// Its name, as users see it in `status.capture`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Supervised => "Supervised",
            Self::Attached { .. } => "Attached",
        }
    }
}

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all_fields = "camelCase")]
pub enum RunState {
    /// The right to run is ours; no exec exists in the engine.
    Claimed,
    /// The engine has an exec; the program may or may not have been started.
    Starting {
        /// The engine's exec ID.
        exec_id: String,
    },
    /// The program was started.
    Running {
        /// The engine's exec ID.
        exec_id: String,
        /// When it was started.
        started_at: Timestamp,
    },
    /// The run is over. Nothing but a person changes it, save that [`Outcome::FailedToStart`] may be claimed again.
    Ended {
        /// When the program was started, where that is known.
        started_at: Option<Timestamp>,
        /// When it ended, or when that was found out.
        finished_at: Timestamp,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// The program exited by itself.
    Finished {
        /// Its exit code.
        exit_code: i64,
    },
    /// Something or somebody else ended it. It counts as run.
    Interrupted {
        /// Who.
        by: EndedBy,
        /// What happened, for people.
        message: String,
        /// The exit code, where the engine knows one.
        exit_code: Option<i64>,
    },
    /// It never ran, so it may be tried again.
    FailedToStart {
        /// A word for programs: `CommandNotFound`, `BadUser`, …
        reason: String,
        /// The engine's own message.
        message: String,
    },
    /// What happened cannot be known. It counts as run.
    Unknown {
        /// Why it cannot be known.
        message: String,
    },
}

/// Who ended a program that did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndedBy {
    /// Its container stopped, restarted or was removed.
    Container,
    /// `spec.stop`.
    Stop,
    /// `spec.timeoutSeconds`.
    Timeout,
    /// Its object was deleted, with `onDelete: Kill`.
    Delete,
}

impl EndedBy {
    /// The reason that conditions show.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Container => "Interrupted",
            Self::Stop => "Stopped",
            Self::Timeout => "DeadlineExceeded",
            Self::Delete => "Deleted",
        }
    }
}

/// What moves a run on. Each is written to the store before the effect that follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// The engine made an exec, not started yet.
    ExecCreated {
        /// The engine's exec ID.
        exec_id: String,
    },
    /// The engine started the program.
    Started {
        /// When.
        at: Timestamp,
    },
    /// The gate in the container shows that its exec has started nothing: back to a claim, so that another exec may be
    /// made. Should the old exec start late, the gate lets only one of the two through.
    Withdrawn,
    /// The run is over.
    Ended {
        /// When.
        at: Timestamp,
        /// How.
        outcome: Outcome,
    },
}

/// An event that the state of a run does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {state} cannot take the event {event:?}")]
pub struct IllegalEvent {
    state: &'static str,
    event: RunEvent,
}

impl RunState {
    /// The state after `event`: the only place where the arrows of the drawing are written down.
    pub fn next(self, event: RunEvent) -> Result<Self, IllegalEvent> {
        match (self, event) {
            (Self::Claimed, RunEvent::ExecCreated { exec_id }) => Ok(Self::Starting { exec_id }),
            (Self::Starting { .. }, RunEvent::Withdrawn) => Ok(Self::Claimed),
            (Self::Starting { exec_id }, RunEvent::Started { at }) => Ok(Self::Running { exec_id, started_at: at }),
            // Before Running only a failed start, a container that went away and an unknown end are possible: an exit
            // code needs a start.
            (Self::Starting { .. }, RunEvent::Ended { at, outcome })
                if !matches!(outcome, Outcome::Finished { .. }) =>
            {
                Ok(Self::Ended { started_at: None, finished_at: at, outcome })
            }
            (Self::Running { started_at, .. }, RunEvent::Ended { at, outcome }) => {
                // A program that did not start has no start time, although the engine took the request.
                let started_at = (!matches!(outcome, Outcome::FailedToStart { .. })).then_some(started_at);
                Ok(Self::Ended { started_at, finished_at: at, outcome })
            }
            (state, event) => Err(IllegalEvent { state: state.name(), event }),
        }
    }

    /// The state's name, as users see it in `status.state`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Claimed => "Claimed",
            Self::Starting { .. } => "Starting",
            Self::Running { .. } => "Running",
            Self::Ended { outcome, .. } => outcome.name(),
        }
    }

    /// Whether the run is over.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

impl Outcome {
    /// The outcome's name, as users see it in `status.state`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Finished { .. } => "Finished",
            Self::Interrupted { .. } => "Interrupted",
            Self::FailedToStart { .. } => "FailedToStart",
            Self::Unknown { .. } => "Unknown",
        }
    }

    /// The exit code, where there is one.
    pub fn exit_code(&self) -> Option<i64> {
        match self {
            Self::Finished { exit_code } => Some(*exit_code),
            Self::Interrupted { exit_code, .. } => *exit_code,
            Self::FailedToStart { .. } | Self::Unknown { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    fn finished() -> RunEvent {
        RunEvent::Ended { at: AT, outcome: Outcome::Finished { exit_code: 0 } }
    }

    #[test]
    fn an_exit_code_needs_a_start() {
        let starting = RunState::Starting { exec_id: "e".into() };
        assert!(starting.clone().next(finished()).is_err());
        assert!(starting.next(RunEvent::Started { at: AT }).unwrap().next(finished()).is_ok());
        assert!(RunState::Claimed.next(finished()).is_err());
    }

    #[test]
    fn an_ended_run_takes_no_event() {
        let ended =
            RunState::Ended { started_at: None, finished_at: AT, outcome: Outcome::Unknown { message: "x".into() } };
        for event in [finished(), RunEvent::Started { at: AT }, RunEvent::ExecCreated { exec_id: "e".into() }] {
            let error = ended.clone().next(event).unwrap_err();
            assert!(error.to_string().starts_with("a run that is Unknown cannot take"), "{error}");
        }
    }

    #[test]
    fn a_program_that_failed_to_start_has_no_start_time() {
        let running = RunState::Running { exec_id: "e".into(), started_at: AT };
        let outcome = Outcome::FailedToStart { reason: "CommandNotFound".into(), message: "x".into() };
        let ended = running.next(RunEvent::Ended { at: AT, outcome }).unwrap();
        assert!(matches!(ended, RunState::Ended { started_at: None, .. }));
    }
}
