//! Which run is followed, and what a look at the object means for that. Pure.

use jiff::Timestamp;
use oncelet_api::{ContainerExec, ContainerExecStatus, ExecState, condition};

/// What the program could be found but not be executed ends with, as with `docker run`.
const NOT_EXECUTABLE: u8 = 126;
/// What a program that is not there ends with.
const NOT_FOUND: u8 = 127;

/// What is said of an outcome that was there before it was asked for.
pub(super) const RAN_BEFORE: &str = "it ran before";
/// What is said of a program that somebody else has started.
pub(super) const RUNS_ALREADY: &str = "it runs already; nothing was started";

/// A run as an object shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Its number in the daemon's store.
    pub(crate) id: i64,
    /// The engine's full ID of its container.
    pub(crate) container_id: String,
    /// That container's name.
    pub(crate) container: String,
    /// When it was started, where that is known.
    pub(crate) started: Option<Timestamp>,
}

impl Run {
    /// The run that a status shows.
    pub(crate) fn of(status: &ContainerExecStatus) -> Option<Self> {
        Some(Self {
            id: status.run_id?,
            container_id: status.container_id.clone().unwrap_or_default(),
            container: status.container_name.clone().unwrap_or_default(),
            started: status.startup_timestamp.as_ref().map(|at| at.0),
        })
    }

    /// A store that was lost and filled again from the container gives the same run another number.
    fn is(&self, other: &Self) -> bool {
        let is_dated = self.started.is_some() && self.started == other.started;
        self.container_id == other.container_id && (self.id == other.id || is_dated)
    }
}

/// The run that is followed: the first that is seen started, to its end.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    seen: Option<Run>,
    /// A run that is none of those that may be followed.
    pub(super) after: Option<i64>,
    /// The container that is meant, where that is known: what an object shows of another one is old.
    pub(super) container: Option<String>,
    /// A failed start that was there before it was asked for.
    earlier: Earlier,
}

#[derive(Debug, Default, PartialEq)]
enum Earlier {
    #[default]
    None,
    /// The one that ended then.
    At(Timestamp),
    /// The one that is being made: should it fail, it began too early to be an answer.
    Next,
}

/// What there is to do after one look at the object.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    Nothing,
    Waits {
        message: String,
    },
    /// A start failed before anybody asked here.
    EarlierFailure {
        at: Timestamp,
        message: String,
    },
    /// The start that was asked for has failed.
    FailedToStart {
        message: String,
        code: u8,
    },
    Starts,
    Runs {
        run: Run,
    },
    Over {
        run: Run,
        message: Option<String>,
        code: Option<u8>,
    },
    /// The object has gone over to another run, or the run's container is gone.
    Replaced {
        run: Run,
        /// The other run.
        by: Option<i64>,
        why: String,
    },
}

impl Tracker {
    /// The run that is followed, once it is seen.
    pub(super) fn run(&self) -> Option<&Run> {
        self.seen.as_ref()
    }

    /// Takes in an object that was there before it was asked for; gives back what to say of it, if anything.
    pub(super) fn found(&mut self, object: &ContainerExec) -> Option<&'static str> {
        let status = object.status.as_ref().filter(|status| !self.is_old(status))?;
        match status.state? {
            ExecState::Waiting => {}
            ExecState::Claimed | ExecState::Starting => self.earlier = Earlier::Next,
            ExecState::Running => {
                self.earlier = Earlier::Next;
                return Some(RUNS_ALREADY);
            }
            ExecState::FailedToStart => {
                self.earlier = status.finish_timestamp.as_ref().map_or(Earlier::Next, |at| Earlier::At(at.0));
            }
            ExecState::Finished | ExecState::Interrupted | ExecState::Unknown => return Some(RAN_BEFORE),
        }
        None
    }

    /// The failure that was seen last is no answer.
    pub(super) fn forget_failure(&mut self) {
        self.earlier = Earlier::Next;
    }

    /// What a look at the object means.
    pub(super) fn look(&mut self, status: &ContainerExecStatus) -> Look {
        let Some(state) = status.state else { return Look::Nothing };
        let message = status.message.clone().unwrap_or_default();
        if self.seen.is_none() && self.is_old(status) {
            let message = "the daemon has not looked at the container that is meant now".to_owned();
            return Look::Waits { message };
        }
        let run = Run::of(status).filter(|run| Some(run.id) != self.after);
        if let Some(gone_over) = self.gone_over(status, run.as_ref()) {
            return gone_over;
        }
        if state == ExecState::Waiting {
            return Look::Waits { message };
        }
        let Some(run) = run else { return Look::Nothing };
        match state {
            ExecState::Waiting => Look::Waits { message },
            ExecState::FailedToStart => {
                // It was taken for started, and was not.
                self.seen = None;
                self.failed(status, message)
            }
            ExecState::Claimed | ExecState::Starting => Look::Starts,
            ExecState::Running => {
                self.seen = Some(run.clone());
                Look::Runs { run }
            }
            ExecState::Finished | ExecState::Interrupted | ExecState::Unknown => {
                self.seen = Some(run.clone());
                let code = status.exit_code.and_then(|code| u8::try_from(code).ok());
                Look::Over { run, message: status.message.clone().filter(|it| !it.is_empty()), code }
            }
        }
    }

    /// Whether a status tells of another container than the one that is meant.
    fn is_old(&self, status: &ContainerExecStatus) -> bool {
        self.container.as_ref().zip(status.container_id.as_ref()).is_some_and(|(meant, shown)| meant != shown)
    }

    /// Whether the object shows another run than the one that is followed.
    fn gone_over(&self, status: &ContainerExecStatus, run: Option<&Run>) -> Option<Look> {
        let seen = self.seen.as_ref()?;
        if run.is_some_and(|run| run.is(seen)) {
            return None;
        }
        let container = &seen.container;
        let why = match (run, status.container_id.as_ref()) {
            (_, Some(id)) if *id != seen.container_id => format!("container {container} was replaced"),
            (Some(_), _) => "the object was asked for one more run".to_owned(),
            // Its container cannot be found any more, and will not come back.
            (None, None) if is_container_gone(status) => format!("container {container} is gone"),
            (None, _) => return None,
        };
        Some(Look::Replaced { run: seen.clone(), by: run.map(|run| run.id), why })
    }

    fn failed(&mut self, status: &ContainerExecStatus, message: String) -> Look {
        let at = status.finish_timestamp.as_ref().map(|at| at.0);
        match (&self.earlier, at) {
            (Earlier::At(earlier), Some(at)) if at == *earlier => Look::EarlierFailure { at, message },
            (Earlier::Next, Some(at)) => {
                self.earlier = Earlier::At(at);
                Look::EarlierFailure { at, message }
            }
            _ => Look::FailedToStart { message, code: failure_code(status) },
        }
    }
}

fn condition<'a>(
    status: &'a ContainerExecStatus,
    type_: &str,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    status.conditions.iter().find(|it| it.type_ == type_)
}

fn is_container_gone(status: &ContainerExecStatus) -> bool {
    condition(status, condition::CONTAINER_READY)
        .is_some_and(|it| it.status == "False" && it.reason == "ContainerNotFound")
}

/// What a start that failed ends with.
fn failure_code(status: &ContainerExecStatus) -> u8 {
    let reason = condition(status, condition::STARTED).map(|it| it.reason.as_str());
    if reason == Some("CommandNotFound") { NOT_FOUND } else { NOT_EXECUTABLE }
}

/// What to say where not all that the program wrote was kept, and so printed: an exit code alone would not tell it.
pub(super) fn incomplete(status: &oncelet_api::ContainerExecStatus) -> Option<String> {
    let of = |name: &str, output: &Option<oncelet_api::Output>| {
        let missing = output.as_ref()?.missing_bytes?;
        Some(format!("{missing} bytes of {name}"))
    };
    let missing: Vec<_> = of("stdout", &status.stdout).into_iter().chain(of("stderr", &status.stderr)).collect();
    let what = missing.join(" and ");
    (!missing.is_empty()).then(|| {
        format!("warning: {what} were not kept: the output is longer than logLimitBytes, or there was no room for it")
    })
}

/// What differs between the program that is declared and the one that ran.
pub(super) fn drift(status: &ContainerExecStatus) -> Option<String> {
    condition(status, condition::SPEC_DRIFTED).filter(|it| it.status == "True").map(|it| it.message.clone())
}

#[cfg(test)]
mod tests;
