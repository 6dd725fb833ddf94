//! Follows an object to the end of its run.

use std::process::ExitCode;

use anyhow::{Result, bail};
use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use oncelet_api::ExecState;
use oncelet_core::RunId;

use crate::logs;
use crate::objects::Objects;
use crate::progress::Line;
use crate::stdin::{Input, Uploads};

/// What this ends with where the program's own exit code is not known.
const NOT_KNOWN: u8 = 125;
/// What this ends with where the program could not be started, as with `docker exec`.
const NOT_STARTED: u8 = 126;

/// Follows an object to the end of its run.
pub(crate) struct Follow<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) name: &'a str,
    /// Only a later run counts.
    pub(crate) after: Option<i64>,
    /// Ends where the program cannot be started, instead of waiting until it can be.
    pub(crate) gives_up: bool,
    /// What the program reads from stdin, to be uploaded when the object waits for it.
    pub(crate) input: Option<&'a Input>,
}

impl Follow<'_> {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let line = Line::begin();
        let code = self.follow(&line).await;
        line.end();
        code
    }

    async fn follow(&self, line: &Line) -> Result<ExitCode> {
        line.waits(self.name.to_owned());
        let mut changes = std::pin::pin!(watch_object(self.objects.execs(), self.name).default_backoff());
        let mut told = String::new();
        let mut log = None;
        let mut uploads = self.input.map(Uploads::of);
        while let Some(change) = changes.next().await {
            let object = match change {
                Ok(Some(object)) => object,
                Ok(None) => bail!("ContainerExec {} was deleted", self.name),
                // A daemon that is started again comes back.
                Err(error) => {
                    let message = format!("the API server does not answer, and is asked again: {error}");
                    if message != told {
                        line.say(&format!("{}: {message}", self.name));
                        told = message;
                    }
                    continue;
                }
            };
            if let Some(uploads) = &mut uploads
                && uploads.send_to(self.objects, &object, line).await?
            {
                continue;
            }
            let status = object.status.unwrap_or_default();
            let Some(state) = status.state else { continue };
            let message = status.message.unwrap_or_default();
            if matches!(state, ExecState::Waiting | ExecState::FailedToStart) {
                if self.gives_up && state == ExecState::FailedToStart {
                    line.say(&format!("error: {message}"));
                    return Ok(ExitCode::from(NOT_STARTED));
                }
                if message != told {
                    line.say(&format!("{}: {message}", self.name));
                    line.waits(format!("{} waits", self.name));
                    told = message;
                }
                continue;
            }
            let Some(run) = status.run_id.filter(|run| Some(*run) != self.after) else { continue };
            if matches!(state, ExecState::Claimed | ExecState::Starting) {
                continue;
            }
            log.get_or_insert_with(|| {
                line.runs(format!("{} runs", self.name));
                tokio::spawn(logs::follow(self.objects.paths.store(), RunId(run), line.clone()))
            });
            if state == ExecState::Running {
                continue;
            }
            if let Some(log) = log.take()
                && let Err(error) = log.await?
            {
                line.say(&format!("warning: the log cannot be read here: {error:#}"));
            }
            if status.restored == Some(true) {
                let at = status.finish_timestamp.map(|at| format!(" at {:.0}", at.0)).unwrap_or_default();
                line.say(&format!("{}: it ran before, and ended{at}; nothing was started", self.name));
            }
            if !message.is_empty() {
                line.say(&format!("{}: {message}", self.name));
            }
            let code = status.exit_code.and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(NOT_KNOWN)));
        }
        bail!("the API server ended the watch")
    }
}
