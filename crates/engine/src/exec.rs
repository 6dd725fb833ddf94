//! Running a program inside a container.

use std::{fmt, pin::Pin, str::FromStr};

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bytes::Bytes;
use futures::StreamExt;
use tokio::io::AsyncWrite;

use crate::{
    ContainerId, Engine, Error,
    engine::{CALL, SLOW_CALL},
    follow::{self, RawOutput},
    limits, patience, start_failure,
    starts::Turn,
    wire::Allowance,
};

pub use crate::follow::RunningExec;

/// The way to a program's stdin.
pub(crate) type Stdin = Pin<Box<dyn AsyncWrite + Send>>;

/// An exec's ID: 64 hexadecimal digits, given by the engine. Engines forget it minutes after the program's end, and at
/// once when they restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExecId(String);

impl ExecId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExecId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // It comes from the engine, and goes into URLs.
        if text.len() > 128 {
            return limits::refuse(format!(
                "{:?}… is not the ID of an exec",
                &text.chars().take(64).collect::<String>()
            ));
        }
        limits::check_reference(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewExec {
    /// The program and its arguments; not empty. No shell is involved.
    pub command: Vec<String>,
    /// Added to the container's environment. Of two entries of one name the later counts.
    pub env: Vec<(String, String)>,
    /// Absolute; the container's where it is not given.
    pub working_directory: Option<String>,
    /// `user`, `user:group`, `uid` or `uid:gid`; the container's where it is not given.
    pub user: Option<String>,
}

/// What comes from a running program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEvent {
    /// Bytes in the order the engine delivered them. Each stream keeps its order; how the two interleave is the
    /// engine's guess.
    Output {
        /// Where the program wrote them.
        stream: OutputStream,
        /// Any bytes, cut anywhere; not necessarily text.
        bytes: Bytes,
    },
    /// The last event.
    Ended(ExecEnd),
}

/// Where a program wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "names of streams")]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEnd {
    /// The program ended by itself, and the engine names its exit code. 128 + n if signal n killed it.
    Exited {
        /// 0–255.
        exit_code: i64,
    },
    /// The program never ran.
    ///
    /// What this rests on. Docker: the exec is over and never had a pid, which no program that ran can show, whatever
    /// it printed; its event log has no exit of it; all that came is one text on stdout. (Or, where the container
    /// stopped just then: Docker explains itself and leaves the exec untouched.) Podman forgets pids, so there: the
    /// exit code is 125–127, no pid was ever seen, nothing but Podman's own report of a runtime failure came (on
    /// stderr), and its event log has no exec of that container ending with that code since. Where that log cannot be
    /// read, the report's form alone decides.
    FailedToStart {
        /// Read from the message.
        reason: FailureReason,
        /// The engine's own message.
        message: String,
    },
    /// The container was stopped, killed, restarted or removed while the program ran, and took it along.
    Interrupted {
        /// 128 + the signal where the engine still knows it, mostly 137.
        exit_code: Option<i64>,
        /// What happened to the container.
        message: String,
    },
    /// The outcome cannot be known from this stream. The program may never have run, may run on, or may have ended.
    Lost {
        /// Why.
        reason: LostReason,
        /// In words.
        message: String,
    },
}

/// Why a program could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureReason {
    /// There is no such file.
    CommandNotFound,
    /// The file may not be executed, or is nothing that can be.
    NotExecutable,
    /// The working directory is missing, no directory, or not absolute.
    BadWorkingDirectory,
    /// The user or group is not known in the container.
    BadUser,
    /// See the message.
    Other,
}

/// Why an outcome cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// The connection broke, or what came over it made no sense.
    ConnectionBroken,
    /// The output ended and the engine could not be asked for the exit code.
    EngineUnreachable,
    /// The engine no longer knows the exec, although its container runs on: most likely the engine was restarted.
    ExecForgotten,
    /// The engine knows the exec and names no exit code.
    NoExitCode,
    /// The engine names an exit code that it is known to invent, and nothing confirms it.
    DoubtfulExitCode,
    /// Somebody else has started this exec at the same time; the outcome is theirs to see.
    StartedElsewhere,
    /// Following it was given up inside this process.
    NotFollowed,
}

/// What the engine says of an exec: **a hint, never the truth**.
///
/// Both engines are known to name exit codes of programs that still run, and `Running` for programs that have ended, once
/// a client has lost its connection; and they forget. Only [`RunningExec`] knows better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecState {
    /// Created, and as the engine sees it not started.
    NeverStarted,
    /// Started; the pid is the host's, and 0 while the engine is still starting it.
    Running {
        /// In the host's namespace.
        pid: i64,
    },
    /// Over.
    Exited {
        /// As the engine says. Docker says 126 for every failure to start.
        exit_code: i64,
    },
    /// Not known to the engine, any more or at all.
    Gone,
}

/// [`ExecState`] with what only this crate makes use of.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) state: ExecState,
    /// Docker keeps the pid of an exec that is over; 0 means that it never had one. Podman always says 0 then.
    pub(crate) pid: i64,
    pub(crate) container: Option<ContainerId>,
}

impl Engine {
    /// Prepares a program to run in a running container. Nothing runs yet, and an exec that is never started costs
    /// nothing and goes away with the container.
    pub async fn create_exec(&self, container: &ContainerId, new: &NewExec) -> Result<ExecId, Error> {
        self.create(container, new, false).await
    }

    pub(crate) async fn create(&self, container: &ContainerId, new: &NewExec, stdin: bool) -> Result<ExecId, Error> {
        if new.command.is_empty() {
            return limits::refuse("a program needs a command".to_owned());
        }
        limits::check(&new.command, &new.env)?;
        limits::check_text("user", new.user.as_ref())?;
        limits::check_text("working directory", new.working_directory.as_ref())?;
        let options = CreateExecOptions {
            attach_stdin: Some(stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(false),
            cmd: Some(new.command.clone()),
            env: Some(limits::joined(&new.env)),
            working_dir: new.working_directory.clone(),
            user: new.user.clone(),
            ..CreateExecOptions::default()
        };
        let _turn = self.turn(container).await;
        let created = self
            .call("exec_create", CALL, |docker| async move { docker.create_exec(container.as_str(), options).await })
            .await
            .map_err(|error| error.about_container(container.as_str()))?;
        created.id.parse()
    }

    /// Starts the program and attaches to its output.
    ///
    /// Waits while too many programs are being started. That a program cannot be started (no such command, bad user…)
    /// is not an error here but its [`ExecEnd::FailedToStart`].
    ///
    /// # Errors
    ///
    /// `NotFound`, `ContainerNotRunning`, `AlreadyStarted`: this call has started nothing. After any other error the
    /// program may or may not run.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it unknown whether the program runs.
    pub async fn start_exec(&self, exec: &ExecId) -> Result<RunningExec, Error> {
        let before = self.inspect(exec).await?;
        match before.state {
            ExecState::NeverStarted => {}
            ExecState::Gone => return Err(Error::NotFound { what: format!("exec {exec}") }),
            ExecState::Running { .. } | ExecState::Exited { .. } => {
                return Err(Error::AlreadyStarted { exec: exec.to_string() });
            }
        }
        let container =
            before.container.ok_or_else(|| Error::protocol(self.endpoint(), "an exec without a container"))?;
        let turn = self.turn(&container).await;
        // Only now: while it waited the container may have begun another life.
        let life = follow::Life::observe(self, &container).await?;
        Ok(self.start(exec, container, Some(life), turn).await?.0)
    }

    /// Starts a supervisor, which tells itself how it fares, and gives the way to its stdin. That it was started before, or
    /// is not known any more, may show only in how it ends.
    pub(crate) async fn start_supervisor(
        &self,
        exec: &ExecId,
        container: &ContainerId,
    ) -> Result<(RunningExec, Option<Stdin>), Error> {
        let turn = self.turn(container).await;
        self.start(exec, container.clone(), None, turn).await
    }

    async fn turn(&self, container: &ContainerId) -> Turn {
        let _waits = patience::wait();
        self.starts().turn(container).await
    }

    async fn start(
        &self,
        exec: &ExecId,
        container: ContainerId,
        life: Option<follow::Life>,
        turn: Turn,
    ) -> Result<(RunningExec, Option<Stdin>), Error> {
        let options = StartExecOptions { detach: false, tty: false, output_capacity: None };
        self.ready().await?;
        let allowance = Allowance::of_a_stream();
        let docker = self.client(&allowance)?;
        let started = self
            .within("exec_start", SLOW_CALL, async {
                let started = docker.start_exec(exec.as_str(), Some(options)).await;
                started.map_err(|error| Error::from_bollard(self.endpoint(), error))
            })
            .await;
        let (output, input) = match started.map_err(|error| refusal_to_start(exec, error)) {
            Ok(StartExecResults::Attached { output, input }) => {
                let output: RawOutput = Box::pin(output.inspect(move |_| allowance.renew()));
                (output, input)
            }
            Ok(StartExecResults::Detached) => {
                return Err(Error::protocol(self.endpoint(), "the engine did not attach to the program"));
            }
            // Podman looks the user up before it attaches.
            Err(Error::Rejected { status: 400..=599, message }) if start_failure::is_bad_user(&message) => {
                let reason = FailureReason::BadUser;
                return Ok((RunningExec::ended(ExecEnd::FailedToStart { reason, message }), None));
            }
            Err(error) => return Err(error),
        };
        Ok((follow::spawn(self.clone(), exec.clone(), container, life, output, turn), Some(input)))
    }

    /// What the engine says of an exec: see [`ExecState`] for how little that is worth.
    pub async fn inspect_exec(&self, exec: &ExecId) -> Result<ExecState, Error> {
        Ok(self.inspect(exec).await?.state)
    }

    pub(crate) async fn inspect(&self, exec: &ExecId) -> Result<Inspected, Error> {
        let answer =
            self.call("exec_inspect", CALL, |docker| async move { docker.inspect_exec(exec.as_str()).await }).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(Error::Rejected { status, message }) if says_gone(status, &message) => {
                return Ok(Inspected { state: ExecState::Gone, pid: 0, container: None });
            }
            Err(error) => return Err(error),
        };
        let pid = answer.pid.unwrap_or_default();
        let over = answer.can_remove.unwrap_or_default();
        let state = match (answer.running.unwrap_or_default(), answer.exit_code) {
            (true, _) => ExecState::Running { pid },
            (false, None) => ExecState::NeverStarted,
            // Podman says 0 for null; only `CanRemove` tells "created" from "ended with 0". Docker keeps the pid.
            (false, Some(0)) if pid == 0 && !over => ExecState::NeverStarted,
            (false, Some(exit_code)) => ExecState::Exited { exit_code },
        };
        Ok(Inspected { state, pid, container: answer.container_id.and_then(|id| id.parse().ok()) })
    }
}

/// Whether an engine does not know an exec any more. Podman says 500 while its container is being removed, or restarted.
fn says_gone(status: u16, message: &str) -> bool {
    let told = ["no such container", "no exec session with ID"].iter().any(|text| message.contains(text));
    status == 404 || (status == 500 && told)
}

fn refusal_to_start(exec: &ExecId, error: Error) -> Error {
    match error {
        Error::Rejected { status: 404, .. } => Error::NotFound { what: format!("exec {exec}") },
        Error::Rejected { message, .. }
            if message.contains("can only start created exec sessions")
                || start_failure::is_second_start(&message, exec) =>
        {
            Error::AlreadyStarted { exec: exec.to_string() }
        }
        other => other.about_container(exec.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_say_that_an_exec_is_gone_is_known() {
        for (status, message) in [
            (404, "No such exec instance: 0841"),
            (500, "looking up container: no such container"),
            (
                500,
                "retrieving exec session 0841 from container 64ce: no exec session with ID 0841 found in container 64ce",
            ),
        ] {
            assert!(says_gone(status, message), "{message}");
        }
        assert!(!says_gone(500, "database is locked"), "not knowing is not an end");
    }
}
