//! Runs that are watched over inside the container.
//!
//! [`Engine::supervise`] puts the supervisor into the container → [`Engine::create_supervised`] → (the caller stores the
//! [`ExecId`]) → [`Engine::start_supervised`] → [`SupervisedRun::next`] until [`SupervisedEvent::Ended`] → (the caller stores
//! the outcome) → [`SupervisedRun::stored`].
//!
//! # Guarantees
//! - Of all execs of one run in one container, however many are started by whomever, at most one starts the program.
//! - The end that a supervisor tells is on the container's disk before: [`Engine::read_record`] finds it there, also in a
//!   stopped container, until the container is removed.
//! - The program fails for nothing that happens to its output. It waits for whoever reads it only where the container's disk has no
//!   room for it, and only for seconds where nothing is read.

mod archive;
#[cfg(test)]
mod fuzz;
mod install;
mod port;
mod run;
mod voice;
mod whose;

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use oncelet_shim::frame::Frame;
use oncelet_shim::{ORDER_VARIABLE, Order, Place, Task};

use crate::{ContainerId, Engine, Error, ExecId, FailureReason, NewExec, OutputStream};
use voice::Voice;

pub use install::Supervisor;
pub(crate) use install::Supervisors;
pub use oncelet_shim::{Claim, End, Exit, Record, Started, StdinDigest, StopReason, Written};
pub use port::{PortProbe, PortState, PortTry};
pub use run::SupervisedRun;

/// The largest order that fits into one variable, with something to spare.
const LARGEST_ORDER: usize = 96 * 1024;
/// How many runs fit into an order to forget them.
pub const FORGET_AT_ONCE: usize = 128;
/// How long small tasks of the supervisor may take.
const TASK: Duration = Duration::from_secs(30);

/// The bytes that a program reads from its stdin. An error ends them, and nothing is started then.
pub type StdinSource = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What a supervised run is to be like.
#[derive(Clone, Debug)]
pub struct Supervision {
    /// The run: 32 hex digits made of its key.
    pub run: String,
    /// Names the claim in the store.
    pub nonce: String,
    /// After how long the program is to be ended.
    pub timeout: Option<Duration>,
    /// How long it has from SIGTERM to SIGKILL then.
    pub grace: Duration,
    /// What the program reads from its stdin; it is empty where nothing is given. The bytes are handed to
    /// [`Engine::start_supervised`].
    pub stdin: Option<StdinDigest>,
    /// How many bytes of each output are wanted. The rest is counted and takes no room in the container, but for its last bytes, which
    /// stand in the record of the end.
    pub log_limit: Option<u64>,
    /// What is kept with the claim in the container, for a daemon that has lost its store. Left out where it is too long.
    pub description: serde_json::Value,
}

/// What comes from a supervised run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupervisedEvent {
    /// The program was started.
    Started {
        /// When, by the clock of the container's machine.
        at: Timestamp,
    },
    /// Bytes of an output, in order.
    Output {
        /// Which.
        stream: OutputStream,
        /// How many bytes of it came before these.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The last event.
    Ended(SupervisedEnd),
}

/// How following a supervised run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupervisedEnd {
    /// The program is over. Output that did not come is on the container's disk: [`Engine::read_output`].
    Exited(Exit),
    /// Somebody else has claimed the run: nothing was started by this exec.
    Refused,
    /// The program could not be started, and never ran.
    FailedToStart {
        /// Why.
        reason: FailureReason,
        /// In words.
        message: String,
    },
    /// What arrived for the program's stdin is not what [`Supervision::stdin`] announces. Nothing was started, and the run may
    /// be started again.
    StdinIncomplete {
        /// Why.
        message: String,
    },
    /// The supervisor could not do its work, and has started nothing: no room for the record or for the program's stdin.
    Unusable {
        /// Why.
        message: String,
    },
    /// Nobody has claimed the run.
    NoClaim,
    /// The supervisor and the program are gone, and nothing tells how the program ended.
    Abandoned {
        /// What is known.
        message: String,
    },
    /// The stream broke. What became of the run stands on the container's disk.
    Lost {
        /// How.
        message: String,
    },
}

impl Engine {
    /// Prepares a program to run under a supervisor. Nothing runs yet.
    pub async fn create_supervised(
        &self,
        supervisor: &Supervisor,
        new: &NewExec,
        supervision: &Supervision,
    ) -> Result<ExecId, Error> {
        let task = |description| Task::Run {
            place: Place::new(supervisor.container().as_str(), &supervision.run),
            nonce: supervision.nonce.clone(),
            timeout_seconds: supervision.timeout.map(|limit| limit.as_secs()),
            grace_seconds: supervision.grace.as_secs(),
            stdin: supervision.stdin.clone(),
            log_limit: supervision.log_limit,
            description,
        };
        let mut order = written(task(supervision.description.clone()));
        if order.len() > LARGEST_ORDER {
            order = written(task(serde_json::Value::Null));
        }
        let mut command = vec![supervisor.path(), "--".to_owned()];
        command.extend_from_slice(&new.command);
        let mut env = new.env.clone();
        env.push((ORDER_VARIABLE.to_owned(), order));
        self.create(supervisor.container(), &NewExec { command, env, ..new.clone() }, true).await
    }

    /// Starts a supervised program and listens to its supervisor. `stdin` gives the bytes that [`Supervision::stdin`]
    /// announced. They are sent at the pace at which the container takes them, as long as the returned value lives; the program
    /// is started once all of them are there.
    ///
    /// # Errors
    /// As [`Engine::start_exec`]. Whatever the error, the gate lets the program be started once.
    pub async fn start_supervised(
        &self,
        container: &ContainerId,
        exec: &ExecId,
        stdin: Option<StdinSource>,
    ) -> Result<SupervisedRun, Error> {
        let (running, input) = self.start_supervisor(exec, container).await?;
        let voice = input.map(|input| Voice::new(input, stdin));
        Ok(SupervisedRun::new(self.clone(), container.clone(), running, voice, [0, 0]))
    }

    /// Listens to the supervisor of a run that was claimed before, from the given bytes of stdout and stderr on, and up to
    /// `log_limit` of each. `user` is that of the program.
    pub async fn follow_supervised(
        &self,
        container: &ContainerId,
        run: &str,
        user: Option<&str>,
        from: [u64; 2],
        log_limit: Option<u64>,
    ) -> Result<SupervisedRun, Error> {
        let supervisor = self.supervise(container, user).await?;
        let task = Task::Follow {
            place: Place::new(container.as_str(), run),
            stdout_from: from[0],
            stderr_from: from[1],
            log_limit,
        };
        let exec = self.create_task(&supervisor, task, user, true).await?;
        let (running, input) = self.start_supervisor(&exec, container).await?;
        let voice = input.map(|input| Voice::new(input, None));
        Ok(SupervisedRun::new(self.clone(), container.clone(), running, voice, from))
    }

    /// Ends the program of a run and its children: SIGTERM, the grace, SIGKILL. Returns when nothing of it is left, at once
    /// where nothing runs.
    pub async fn stop_supervised(
        &self,
        container: &ContainerId,
        run: &str,
        user: Option<&str>,
        by: StopReason,
        grace: Duration,
    ) -> Result<(), Error> {
        let place = Place::new(container.as_str(), run);
        let task = Task::Stop { place, by, grace_seconds: grace.as_secs() };
        self.do_task(container, task, user, grace + TASK).await
    }

    /// Removes the output of ended runs from the container.
    pub async fn clean_output(
        &self,
        container: &ContainerId,
        runs: &[String],
        user: Option<&str>,
    ) -> Result<(), Error> {
        let places = runs.iter().map(|run| Place::new(container.as_str(), run)).collect();
        self.do_task(container, Task::Clean { places }, user, TASK).await
    }

    /// Removes all of runs that are over from the container, so that their programs may be started again. At most
    /// [`FORGET_AT_ONCE`] of them; an error may be about one alone.
    pub async fn forget_runs(&self, container: &ContainerId, runs: &[String], user: Option<&str>) -> Result<(), Error> {
        let places = |runs: &[String]| runs.iter().map(|run| Place::new(container.as_str(), run)).collect::<Vec<_>>();
        self.do_task(container, Task::Forget { places: places(runs) }, user, TASK).await?;
        if self.supervisors().number(container, user) == Some(0) {
            return Ok(());
        }
        // What is among root's runs, or was made when everybody could write there, only root can remove.
        let mut left = Vec::new();
        for run in runs {
            if self.stat(container, &Place::new(container.as_str(), run).gate()).await?.is_some() {
                left.push(run.clone());
            }
        }
        if !left.is_empty() {
            self.do_task(container, Task::Forget { places: places(&left) }, Some("0"), TASK).await?;
        }
        Ok(())
    }

    async fn create_task(
        &self,
        supervisor: &Supervisor,
        task: Task,
        user: Option<&str>,
        stdin: bool,
    ) -> Result<ExecId, Error> {
        let new = NewExec {
            command: vec![supervisor.path()],
            env: vec![(ORDER_VARIABLE.to_owned(), written(task))],
            working_directory: Some("/".to_owned()),
            user: user.map(str::to_owned),
        };
        self.create(supervisor.container(), &new, stdin).await
    }

    /// Has a small task done.
    async fn do_task(
        &self,
        container: &ContainerId,
        task: Task,
        user: Option<&str>,
        limit: Duration,
    ) -> Result<(), Error> {
        let supervisor = self.supervise(container, user).await?;
        let supervisor_error = |message| Error::Supervisor { container: container.to_string(), message };
        match Box::pin(self.answer_to(&supervisor, task, user, limit)).await? {
            Ok(Frame::Done) => Ok(()),
            Ok(Frame::Unusable(refusal)) => Err(supervisor_error(refusal.message)),
            Err(SupervisedEnd::FailedToStart { message, .. } | SupervisedEnd::Lost { message }) => {
                Err(supervisor_error(message))
            }
            Ok(other) => {
                Err(Error::protocol(self.endpoint(), format!("the supervisor answered with {}", other.name())))
            }
            Err(other) => Err(Error::protocol(self.endpoint(), format!("the supervisor ended with {other:?}"))),
        }
    }

    /// The first answer to a task, or what came instead.
    async fn answer_to(
        &self,
        supervisor: &Supervisor,
        task: Task,
        user: Option<&str>,
        limit: Duration,
    ) -> Result<Result<Frame, SupervisedEnd>, Error> {
        let exec = self.create_task(supervisor, task, user, false).await?;
        self.within("exec_answer", limit, async {
            let (running, _) = self.start_supervisor(&exec, supervisor.container()).await?;
            Ok(run::first_frame(running).await)
        })
        .await
    }
}

fn written(task: Task) -> String {
    // Plain structs of text and numbers always have a form in JSON.
    serde_json::to_string(&Order::new(task)).unwrap_or_default()
}
