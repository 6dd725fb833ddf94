//! What a run wrote, wherever it can be read: from the API server where that serves logs, and else from the run store of this
//! machine, once it is certain that the store's run is the one that is meant. All commands that print output do it here.

mod api;
mod local;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use kube::ResourceExt;
use oncelet_api::ContainerExec;
use oncelet_core::RunName;
use oncelet_store::Stream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::follow::Run;
use crate::objects::Objects;
use crate::output::is_broken_pipe;
use crate::progress::Line;

pub(crate) use self::local::print_stored;

/// How long between two tries to go on with a log that broke off.
const PAUSE: Duration = Duration::from_millis(300);

/// Which run of which object.
#[derive(Clone, Debug)]
pub(crate) struct RunOf {
    /// The object.
    name: String,
    /// What its runs are remembered by: one of these.
    run_names: Vec<RunName>,
    /// The run that it shows.
    run: Run,
}

impl RunOf {
    pub(crate) fn new(object: &ContainerExec, run: &Run) -> Self {
        Self { name: object.name_any(), run_names: oncelet_controller::run_names(object), run: run.clone() }
    }
}

/// What to print of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Which stream; both without.
    pub(crate) only: Option<Stream>,
    /// Go on until the run is over.
    pub(crate) follow: bool,
    /// The time before each line.
    pub(crate) timestamps: bool,
}

impl Wanted {
    /// Both streams to the end, byte for byte.
    pub(crate) const ALL: Self = Self { only: None, follow: true, timestamps: false };

    fn streams(self) -> impl Iterator<Item = Stream> {
        Stream::ALL.into_iter().filter(move |stream| self.only.is_none_or(|only| only == *stream))
    }

    /// Where a stream goes. The only one that is asked for goes where a pipe finds it.
    fn writer(self, stream: Stream) -> Box<dyn Write + Send> {
        match stream {
            Stream::Stderr if self.only.is_none() => Box::new(std::io::stderr()),
            Stream::Stdout | Stream::Stderr => Box::new(std::io::stdout()),
        }
    }
}

/// Where a log's bytes go.
struct Sink<'a> {
    to: Box<dyn Write + Send>,
    line: Option<&'a Line>,
}

impl Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(line) = self.line {
            return line.write(&mut self.to, bytes);
        }
        self.to.write_all(bytes)?;
        Ok(self.to.flush()?)
    }
}

/// Prints a run's log. `is_over` says whether the object shows the run over: then its log is complete.
pub(crate) async fn print(
    objects: &Objects,
    of: &RunOf,
    wanted: Wanted,
    line: Option<&Line>,
    is_over: watch::Receiver<bool>,
) -> Result<()> {
    if api::is_served(objects, &is_over).await? {
        return api::print(objects, of, wanted, line, is_over).await;
    }
    let store = local::open(&objects.paths.store(), of).await?;
    local::print_run(&store.0, store.1, wanted, line, &is_over).await
}

/// The printing of a run that is followed.
pub(crate) struct Printing {
    task: JoinHandle<Result<()>>,
    is_over: watch::Sender<bool>,
}

impl Printing {
    /// Begins to print what `run` of `object` writes.
    pub(crate) fn begin(objects: &Objects, object: &ContainerExec, run: &Run, line: &Line) -> Self {
        let (objects, of, line) = (objects.clone(), RunOf::new(object, run), line.clone());
        let (sender, is_over) = watch::channel(false);
        let task = tokio::spawn(async move { print(&objects, &of, Wanted::ALL, Some(&line), is_over).await });
        Self { task, is_over: sender }
    }

    /// The run is over, or is not followed any further: prints what is left.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.is_over.send_replace(true);
        match (&mut self.task).await? {
            // Whoever reads it has seen enough; the exit code still counts.
            Err(error) if is_broken_pipe(&error) => Ok(()),
            printed => printed,
        }
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Says how to get at the output of a run from where its store is.
fn elsewhere(of: &RunOf, why: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "the output of run {} cannot be read here: {why}; on the daemon's machine: oncelet logs {} (with the daemon's --data-dir)",
        of.run.id,
        of.run.id
    )
}

fn shown(dir: &Path) -> String {
    dir.display().to_string()
}
