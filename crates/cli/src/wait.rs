//! `oncelet wait`, `oncelet exec` and `oncelet rerun`: a run as if its program was started here.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use oncelet_api::{Container, ContainerExec, ContainerExecSpec, EnvVar, ExecState, RERUN_ANNOTATION};
use oncelet_core::{Fingerprint, RunId};
use serde_json::json;

use crate::args::{Exec, Rerun, Wait};
use crate::clock::now;
use crate::logs;
use crate::objects::Objects;
use crate::progress::Line;

/// What this ends with where the program's own exit code is not known.
const NOT_KNOWN: u8 = 125;
/// What this ends with where the program could not be started, as with `docker exec`.
const NOT_STARTED: u8 = 126;

/// Waits for the object's run, and ends as its program did.
pub(crate) async fn wait(args: Wait) -> Result<ExitCode> {
    let objects = Objects::new(args.cluster).await?;
    objects.exec(&args.name).await?;
    Follow { objects: &objects, name: &args.name, after: None, gives_up: false }.run().await
}

/// Asks for one more run.
pub(crate) async fn rerun(args: Rerun) -> Result<ExitCode> {
    let objects = Objects::new(args.cluster).await?;
    let before = objects.exec(&args.name).await?.status.and_then(|status| status.run_id);
    ask_again(&objects.execs(), &args.name).await.context("the API server did not take it")?;
    if args.wait {
        return Follow { objects: &objects, name: &args.name, after: before, gives_up: false }.run().await;
    }
    println!("{}/{} runs once more", objects.namespace, args.name);
    Ok(ExitCode::SUCCESS)
}

/// Says on an object that its program is to run once more.
pub(crate) async fn ask_again(execs: &Api<ContainerExec>, name: &str) -> Result<(), kube::Error> {
    let value = now().as_microsecond().to_string();
    let patch = json!({"metadata": {"annotations": {RERUN_ANNOTATION: value}}});
    execs.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Runs a program once in a container, or gives back what came of it when it was run before.
pub(crate) async fn exec(args: Exec) -> Result<ExitCode> {
    let objects = Objects::new(args.cluster).await?;
    let spec = spec(&objects, &args.container, args.command, args.env, args.workdir, args.user).await?;
    let name = match args.name {
        Some(name) => name,
        // The same program in the same container is the same run.
        None => format!("exec-{}", &Fingerprint::of_bytes(json!(spec).to_string().as_bytes()).to_string()[..12]),
    };
    let object = ContainerExec::new(&name, spec);
    match objects.execs().create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(kube::Error::Api(error)) if error.code == 409 => {
            if objects.exec(&name).await?.spec != object.spec {
                bail!(
                    "ContainerExec {}/{name} is there with another program: delete it, or take another --name",
                    objects.namespace
                );
            }
        }
        Err(error) => return Err(error).context("the API server did not take it"),
    }
    Follow { objects: &objects, name: &name, after: None, gives_up: true }.run().await
}

async fn spec(
    objects: &Objects,
    container: &str,
    command: Vec<String>,
    env: Vec<String>,
    working_directory: Option<String>,
    user: Option<String>,
) -> Result<ContainerExecSpec> {
    let ours = Api::<Container>::namespaced(objects.client.clone(), &objects.namespace);
    let is_ours = ours.get_opt(container).await.context("the API server does not answer")?.is_some();
    let env = env.into_iter().map(|pair| match pair.split_once('=') {
        Some((name, value)) => Ok(EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }),
        None => bail!("--env takes NAME=VALUE, not {pair:?}"),
    });
    let mut command = command.into_iter();
    Ok(ContainerExecSpec {
        container_name: is_ours.then(|| container.to_owned()),
        engine_container: (!is_ours).then(|| container.to_owned()),
        command: command.next().unwrap_or_default(),
        // As written: the shell has substituted what it wanted to.
        args: command.map(|arg| arg.replace("$(", "$$(")).collect(),
        env: env.collect::<Result<_>>()?,
        working_directory,
        user,
        ..ContainerExecSpec::default()
    })
}

/// Follows an object to the end of its run.
struct Follow<'a> {
    objects: &'a Objects,
    name: &'a str,
    /// Only a later run counts.
    after: Option<i64>,
    /// Ends where the program cannot be started, instead of waiting until it can be.
    gives_up: bool,
}

impl Follow<'_> {
    async fn run(self) -> Result<ExitCode> {
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
