//! What every reconcile needs.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::ObjectRef;
use oncelet_api::{Container, ContainerExec};
use oncelet_core::RunName;
use oncelet_engine::{Engine, Error as EngineError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::echo::Echoes;
use crate::engines::Engines;
use crate::events::Events;
use crate::gate::StoreGate;
use crate::lives::Lives;
use crate::objects::Objects;
use crate::policy::Policies;
use crate::ports::Ports;
use crate::retention;
use crate::runs::Runs;
use crate::steps::Steps;

/// Shared by all reconciles.
#[derive(Clone)]
pub(crate) struct Context {
    /// The API server.
    pub(crate) client: Client,
    /// Where the container at hand runs.
    pub(crate) engine: Engine,
    /// All engines.
    pub(crate) engines: Engines,
    /// What objects may use.
    pub(crate) policies: Policies,
    /// Where runs are remembered.
    pub(crate) store: StoreGate,
    /// The `Container` objects.
    pub(crate) containers: Objects<Container>,
    /// The `ContainerExec` objects.
    pub(crate) execs: Objects<ContainerExec>,
    /// The runs that this process follows.
    pub(crate) runs: Runs,
    /// The tasks that follow attached runs: how they end is known only as long as these live.
    pub(crate) tasks: TaskTracker,
    /// The containers in which it follows them.
    pub(crate) lives: Lives,
    /// The programs that this process is ending.
    pub(crate) endings: Runs,
    /// The ports that execs wait for.
    pub(crate) ports: Ports,
    /// Where its objects are.
    pub(crate) objects: retention::Objects,
    /// The statuses that were computed last.
    pub(crate) echoes: Echoes,
    /// Ends everything that goes on without harm in another process.
    pub(crate) shutdown: CancellationToken,
    /// Asks for a look at the objects of a run that has moved.
    pub(crate) wake: mpsc::UnboundedSender<RunName>,
    /// Where Kubernetes events are told.
    pub(crate) events: Events,
    /// Whoever wants to know what happens to runs.
    pub(crate) steps: Steps,
    /// The clock.
    pub(crate) now: fn() -> Timestamp,
}

impl Context {
    /// The same, for a container in `engine`.
    pub(crate) fn on(self: &Arc<Self>, engine: Engine) -> Ctx {
        Arc::new(Self { engine, ..(**self).clone() })
    }

    /// The `Container` that `exec` is for, if it names one that is there.
    pub(crate) fn container_of(&self, exec: &ContainerExec) -> Option<Arc<Container>> {
        let name = exec.spec.container_name.as_ref()?;
        self.containers.get(&ObjectRef::new(name).within(exec.metadata.namespace.as_deref().unwrap_or_default()))
    }

    /// The same, for what `exec` is for.
    pub(crate) fn for_exec(self: &Arc<Self>, exec: &ContainerExec) -> Result<Ctx, EngineError> {
        let object = self.container_of(exec);
        let name = match &object {
            Some(container) => &container.spec.engine,
            None => &exec.spec.engine,
        };
        Ok(self.on(self.engines.named(name.as_deref())?))
    }

    /// Runs `task` until the end of the controller. It looks after something that outlives this process.
    pub(crate) fn watch(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(task).await });
    }

    /// Asks for a look at the objects that share the run of this name.
    pub(crate) fn wake(&self, name: &RunName) {
        // The receiver is gone only when the controller ends, and then nobody needs to look.
        let _ = self.wake.send(name.clone());
    }
}

/// A context as the reconciles share it.
pub(crate) type Ctx = Arc<Context>;

/// An error and its causes on one line, as conditions and logs show it.
pub(crate) fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own text.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
