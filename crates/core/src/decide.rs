//! What to do about one object: [`decide`].

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::{EndedBy, ExecSpec, MissingInput, OnChange, Outcome, Resolved, RunKey, RunRecord, RunState};

/// Everything the world shows of one object's target and memory.
#[derive(Clone, Debug)]
pub enum Observed {
    /// The container is not known, so neither is the memory.
    NoContainer(Blocked),
    /// The container is known.
    Container {
        /// The engine's full container ID.
        id: String,
        /// Whether a program can start in it now.
        ready: Result<(), Blocked>,
        /// What the store remembers for this object's [`ExecSpec::key`].
        memory: Memory,
    },
}

/// What the store remembers of one run key.
#[derive(Clone, Debug)]
pub enum Memory {
    /// The store cannot be asked. Nothing starts in doubt.
    Unavailable {
        /// Why.
        message: String,
    },
    /// Nobody has run it.
    NeverRan {
        /// What the program would get.
        inputs: Inputs,
    },
    /// It was tried, and it provably never started.
    FailedToStart {
        /// The last try.
        record: Box<RunRecord>,
        /// What the program would get.
        inputs: Inputs,
    },
    /// It is running or over.
    Ran {
        /// The run.
        record: Box<RunRecord>,
        /// Whose it is, while it is open.
        ownership: Ownership,
    },
}

/// What the program would get, or what it waits for.
pub type Inputs = Result<Box<Resolved>, Blocked>;

/// Whose an open run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This daemon's.
    Mine,
    /// Another daemon's, which lives.
    Other,
    /// A daemon's that is gone.
    Gone,
    /// Nobody's: the run is over.
    Nobody,
}

/// Why something cannot go on now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The reason, for programs.
    pub reason: Reason,
    /// What happened, to what, and what to do, for people.
    pub message: String,
}

/// The reasons for waiting, by the names that conditions show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The engine does not answer.
    EngineUnreachable,
    /// No such `Container` object, or no such container in the engine.
    ContainerNotFound,
    /// The `Container` object has no container yet.
    ContainerNotCreated,
    /// The container is there, but stopped, paused or being removed.
    ContainerNotRunning,
    /// The container runs, and its health check does not succeed.
    ContainerNotHealthy,
    /// The container runs, and does not accept connections to a port.
    PortNotReady,
    /// The same, for longer than the object asks for.
    PortTimeout,
    /// The engine took the container and refused the program.
    EngineRefused,
    /// The store cannot be used.
    StoreUnavailable,
    /// A `ConfigMap` or one of its keys is missing.
    ConfigMapNotFound,
    /// A `Secret` or one of its keys is missing.
    SecretNotFound,
    /// A referenced field does not exist.
    FieldNotFound,
    /// What the program is to read from stdin is not uploaded, or not all of it.
    StdinNotUploaded,
    /// A dotenv file cannot be read or parsed.
    EnvFileNotUsable,
    /// The declared program differs from the recorded one, and `onChange` is `Fail`.
    ProgramChanged,
    /// No supervisor can be put into the container, and the object asks for what only a supervisor can do.
    NotSupervisable,
    /// The program is to be over before it was started.
    StopRequested,
    /// Another `ContainerExec` has to succeed first.
    DependencyNotReady,
    /// The daemon's policy does not allow what the object asks for.
    NotAllowed,
    /// The daemon has no policy, and so allows nothing.
    NoPolicy,
    /// A run of the same run key is recorded, and cannot be told to be one of the object's namespace.
    RunKeyTaken,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants are named as users see them.
        fmt::Debug::fmt(self, f)
    }
}

impl From<&MissingInput> for Blocked {
    fn from(missing: &MissingInput) -> Self {
        let reason = match missing {
            MissingInput::ConfigMap { .. } => Reason::ConfigMapNotFound,
            MissingInput::Secret { .. } => Reason::SecretNotFound,
            MissingInput::Field { .. } => Reason::FieldNotFound,
            MissingInput::EnvFile { .. } => Reason::EnvFileNotUsable,
            MissingInput::TooLong { .. } => Reason::EngineRefused,
        };
        Self { reason, message: missing.to_string() }
    }
}

/// The one thing to do now.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Nothing can be done: say why, look again when something changes and at the latest after `retry`.
    Wait {
        /// Why.
        blocked: Blocked,
        /// The failed try that stands in the store, if that is what the object shows.
        last_try: Option<Box<RunRecord>>,
        /// When to look again without being called.
        retry: Duration,
    },
    /// Claim `key` and run the program.
    Launch {
        /// The key to claim.
        key: RunKey,
        /// The container to run in.
        container_id: String,
        /// What the program gets.
        resolved: Box<Resolved>,
    },
    /// Show a run that is going on, here or under another daemon.
    Mirror {
        /// The run.
        record: Box<RunRecord>,
        /// When to look again without being called.
        retry: Duration,
    },
    /// End the program, and show its run meanwhile.
    End {
        /// The run.
        record: Box<RunRecord>,
        /// Who wants it.
        by: EndedBy,
        /// When to look again without being called.
        retry: Duration,
    },
    /// Its daemon is gone: find out what happened.
    Recover {
        /// The run.
        record: Box<RunRecord>,
    },
    /// Show a failed start, and try again after `retry`.
    RetryStart {
        /// The failed try.
        record: Box<RunRecord>,
        /// How long until the next try.
        retry: Duration,
    },
    /// Show the recorded outcome.
    Show {
        /// The run.
        record: Box<RunRecord>,
        /// Whether it ran for an earlier object, so that this one gets it back.
        restored: bool,
        /// The declared fields that differ from the recorded program.
        drift: Vec<&'static str>,
    },
}

/// How long to wait for something that announces itself by an event: the net under a lost event.
const SAFETY_NET: Duration = Duration::from_secs(30);
/// How long to wait for something that announces itself by nothing.
const POLL: Duration = Duration::from_secs(2);

/// Decides what to do about an object, given what was observed at `now`.
///
/// # Guarantees
/// - [`Decision::Launch`] only where the store was asked and holds no run of the key, or one that failed to start.
/// - A recorded outcome is shown whether or not the container runs.
pub fn decide(spec: &ExecSpec, observed: Observed, now: Timestamp) -> Decision {
    let (container_id, ready, memory) = match observed {
        Observed::NoContainer(blocked) => return wait(blocked),
        Observed::Container { id, ready, memory } => (id, ready, memory),
    };
    match memory {
        Memory::Unavailable { message } => wait(Blocked { reason: Reason::StoreUnavailable, message }),
        Memory::NeverRan { .. } if spec.end.is_some() => wait(not_to_be_started()),
        Memory::FailedToStart { record, .. } if spec.end.is_some() => {
            wait_showing(not_to_be_started(), known_to(spec, record))
        }
        Memory::NeverRan { inputs } => launch(spec, container_id, ready, inputs, None),
        Memory::FailedToStart { record, inputs } => match pause_before_retry(spec, &record, now) {
            Some(retry) => Decision::RetryStart { record, retry },
            None => launch(spec, container_id, ready, inputs, known_to(spec, record)),
        },
        Memory::Ran { record, ownership } => match ownership {
            Ownership::Nobody => show(spec, record),
            Ownership::Mine => mirror(spec, record, SAFETY_NET),
            Ownership::Other => mirror(spec, record, POLL),
            Ownership::Gone => Decision::Recover { record },
        },
    }
}

fn wait(blocked: Blocked) -> Decision {
    wait_showing(blocked, None)
}

fn wait_showing(blocked: Blocked, last_try: Option<Box<RunRecord>>) -> Decision {
    let retry = blocked.reason.retry();
    Decision::Wait { blocked, last_try, retry }
}

fn not_to_be_started() -> Blocked {
    let message = "the program was not started, since its end is asked for already".to_owned();
    Blocked { reason: Reason::StopRequested, message }
}

/// Shows a run that goes on, and ends it where that is wanted. Any daemon may end a program: that moves no record.
fn mirror(spec: &ExecSpec, record: Box<RunRecord>, retry: Duration) -> Decision {
    match spec.end {
        Some(by) => Decision::End { record, by, retry },
        None => Decision::Mirror { record, retry },
    }
}

impl Reason {
    /// Whether the policy is why.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::NotAllowed | Self::NoPolicy)
    }

    /// How long to wait before looking again without being called.
    pub fn retry(self) -> Duration {
        match self {
            Self::ContainerNotFound
            | Self::ContainerNotCreated
            | Self::ContainerNotRunning
            | Self::FieldNotFound
            | Self::NotSupervisable
            | Self::StopRequested
            | Self::DependencyNotReady
            | Self::PortNotReady
            | Self::PortTimeout
            | Self::NotAllowed
            | Self::NoPolicy
            | Self::RunKeyTaken
            | Self::ProgramChanged => SAFETY_NET,
            Self::EngineUnreachable
            | Self::EngineRefused
            | Self::StoreUnavailable
            // Not every engine tells when that changes.
            | Self::ContainerNotHealthy
            | Self::ConfigMapNotFound
            | Self::SecretNotFound
            | Self::StdinNotUploaded
            | Self::EnvFileNotUsable => POLL,
        }
    }
}

fn launch(
    spec: &ExecSpec,
    container_id: String,
    ready: Result<(), Blocked>,
    inputs: Inputs,
    last_try: Option<Box<RunRecord>>,
) -> Decision {
    if let Err(blocked) = ready {
        return wait_showing(blocked, last_try);
    }
    match inputs {
        Ok(resolved) => Decision::Launch { key: spec.key(&container_id), container_id, resolved },
        Err(blocked) => wait_showing(blocked, last_try),
    }
}

/// The failed try, where it is one of this object's, or one that it has shown already. A failure of an earlier object is no
/// answer to a new one.
fn known_to(spec: &ExecSpec, record: Box<RunRecord>) -> Option<Box<RunRecord>> {
    (record.object_uid == spec.uid || spec.shown == Some(record.id)).then_some(record)
}

/// How long until a program that failed to start may be tried again; `None` for now.
///
/// The cause may go away without a sign (the command gets installed), so tries go on, from 1 s doubling to 256 s. A new
/// object, another program and whoever asks for it need not wait: somebody has just changed something. Of two objects that
/// share the run each does so once, or they would take turns without a pause.
fn pause_before_retry(spec: &ExecSpec, record: &RunRecord, now: Timestamp) -> Option<Duration> {
    let RunState::Ended { finished_at, .. } = &record.state else { return None };
    let is_new = record.object_uid != spec.uid && spec.shown != Some(record.id);
    // A moment that has not come yet would have every try until then repeated at once.
    let is_asked_for = spec.retry.is_some_and(|before| *finished_at < before && before <= now);
    if is_new || is_asked_for || record.program != spec.program {
        return None;
    }
    let pause = Duration::from_secs(1 << (record.attempt.clamp(1, 9) - 1));
    // A clock that was set back must not make a pause longer than the pause is.
    let waited = Duration::try_from(now.duration_since(*finished_at)).unwrap_or_default();
    pause.checked_sub(waited).filter(|left| !left.is_zero())
}

fn show(spec: &ExecSpec, record: Box<RunRecord>) -> Decision {
    let drift = record.program.differences(&spec.program);
    if !drift.is_empty() && spec.on_change == OnChange::Fail {
        let message = format!(
            "{} differs from the program that ran in this container (run {}), and onChange is Fail; \
             delete the object and apply it with the old program, or with onChange: Keep or Rerun",
            drift.join(", "),
            record.id
        );
        return wait(Blocked { reason: Reason::ProgramChanged, message });
    }
    let restored = record.object_uid != spec.uid;
    Decision::Show { record, restored, drift }
}

impl RunRecord {
    /// Whether the key of this run may be claimed again: only where it provably never started.
    pub fn may_be_claimed_again(&self) -> bool {
        matches!(self.state, RunState::Ended { outcome: Outcome::FailedToStart { .. }, .. })
    }
}

#[cfg(test)]
mod tests;
