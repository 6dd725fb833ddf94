//! Whether the work goes on: what health endpoints tell, and metrics of the reconciles.
//!
//! Names of metrics are those of controller-runtime (<https://book.kubebuilder.io/reference/metrics-reference>) where it has
//! the same thing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use oncelet_engine::Patience;
use tokio::time::Instant;

use crate::context::one_line;
use crate::work::Action;

/// The reconcile of an exec is short, but for its waits for the engine: one that takes longer than this hangs.
const HUNG: Duration = Duration::from_mins(5);
/// The sweep for runs without a daemon comes every ten seconds, and does not wait for what it begins.
const STILL: Duration = Duration::from_mins(2);

const BEGINNING: &str = "the controller is beginning";

/// A kind of objects that are reconciled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// As metrics name it.
    pub(crate) name: &'static str,
    /// Whether a reconcile that lasts is one that hangs.
    ends_soon: bool,
}

impl Kind {
    pub(crate) const CONTAINER_EXEC: Self = Self { name: "containerexec", ends_soon: true };
    /// Pulling an image takes as long as it takes.
    pub(crate) const CONTAINER: Self = Self { name: "container", ends_soon: false };
}

/// What is known of the work. Clones share it.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// When the last sweep began, and why the store cannot be used then; `None` before the controller runs.
    swept: Option<(Instant, Result<(), String>)>,
    /// The reconciles that go on and are to end soon, by number: of what, since when, and how far they wait for an engine.
    running: HashMap<u64, (String, Instant, Patience)>,
    reconciles: u64,
    /// Why a watch does not work now, by kind.
    watches: HashMap<&'static str, Result<(), String>>,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the daemon does no work any more, which only a restart can help; `None` where it does. An engine that does not answer is
    /// no reason: another daemon would wait for it as well.
    pub fn stuck(&self) -> Option<String> {
        let state = self.state();
        let busy =
            state.running.values().filter_map(|(object, begun, patience)| Some((object, patience.busy_since(*begun)?)));
        let hung = busy.filter(|(_, since)| since.elapsed() > HUNG).min_by_key(|(_, since)| *since);
        if let Some((object, since)) = hung {
            return Some(format!("the reconcile of {object} goes on for {} s", since.elapsed().as_secs()));
        }
        let still = state.swept.as_ref().map(|(at, _)| at.elapsed()).filter(|since| *since > STILL);
        still.map(|since| format!("the last look for abandoned runs was {} s ago", since.as_secs()))
    }

    /// Whether the controller has begun, and each of its watches works.
    pub fn watches(&self) -> Result<(), String> {
        let state = self.state();
        if state.watches.len() < 2 {
            return Err(BEGINNING.to_owned());
        }
        state.watches.values().find_map(|watch| watch.clone().err()).map_or(Ok(()), Err)
    }

    /// Whether the store can be used.
    pub fn store(&self) -> Result<(), String> {
        self.state().swept.as_ref().map_or_else(|| Err(BEGINNING.to_owned()), |(_, store)| store.clone())
    }

    /// A sweep has begun, with or without a store.
    pub(crate) fn swept(&self, store: Result<(), String>) {
        self.state().swept = Some((Instant::now(), store));
    }

    /// What came of the latest step of the watch of a kind.
    pub(crate) fn watched<T>(&self, kind: Kind, step: &Result<T, watcher::Error>) {
        let works =
            step.as_ref().map(drop).map_err(|error| format!("the watch of {}s: {}", kind.name, one_line(error)));
        self.state().watches.insert(kind.name, works);
    }

    /// A reconcile, measured.
    pub(crate) async fn reconcile<K, E>(
        &self,
        kind: Kind,
        object: &K,
        work: impl Future<Output = Result<Action, E>>,
    ) -> Result<Action, E>
    where
        K: Resource<DynamicType = ()>,
    {
        let controller = kind.name;
        let patience = Patience::default();
        let running = Running::begin(self.clone(), object, kind, patience.clone());
        let result = patience.during(work).await;
        let outcome = if result.is_ok() { "success" } else { "error" };
        metrics::counter!("controller_runtime_reconcile_total", "controller" => controller, "result" => outcome)
            .increment(1);
        metrics::histogram!("controller_runtime_reconcile_time_seconds", "controller" => controller)
            .record(running.since.elapsed());
        result
    }
}

/// A reconcile that goes on, until dropped.
struct Running {
    progress: Progress,
    number: u64,
    controller: &'static str,
    since: Instant,
}

impl Running {
    fn begin<K: Resource<DynamicType = ()>>(progress: Progress, object: &K, kind: Kind, patience: Patience) -> Self {
        let (since, controller) = (Instant::now(), kind.name);
        let mut state = progress.state();
        state.reconciles += 1;
        let number = state.reconciles;
        if kind.ends_soon {
            let name = format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any());
            state.running.insert(number, (name, since, patience));
        }
        drop(state);
        metrics::gauge!("controller_runtime_active_workers", "controller" => controller).increment(1);
        Self { progress, number, controller, since }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.progress.state().running.remove(&self.number);
        metrics::gauge!("controller_runtime_active_workers", "controller" => self.controller).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use oncelet_api::{Container, ContainerExec, ContainerExecSpec};

    use super::*;

    /// A daemon whose loop stands still, or one of whose reconciles never ends, is not taken for one that works.
    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_does_nothing_any_more_is_found_out() {
        let progress = Progress::default();
        assert!(progress.store().is_err() && progress.watches().is_err(), "nothing is known before it begins");
        assert_eq!(progress.stuck(), None, "a daemon that begins is not stuck");
        progress.swept(Ok(()));
        tokio::time::advance(STILL * 9 / 10).await;
        assert_eq!(progress.stuck(), None);
        tokio::time::advance(STILL / 5).await;
        assert!(progress.stuck().unwrap().contains("abandoned runs"));
        progress.swept(Ok(()));
        assert_eq!(progress.stuck(), None);

        let exec = ContainerExec::new("seed", ContainerExecSpec::default());
        let running = Running::begin(progress.clone(), &exec, Kind::CONTAINER_EXEC, Patience::default());
        for _ in 0..4 {
            tokio::time::advance(STILL * 9 / 10).await;
            progress.swept(Ok(()));
        }
        assert!(progress.stuck().unwrap().contains("ContainerExec /seed"));
        drop(running);
        assert_eq!(progress.stuck(), None);

        // That of a container may be pulling an image.
        let container: Container =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "db"}, "spec": {"mode": "session"}}))
                .unwrap();
        let _pulls = Running::begin(progress.clone(), &container, Kind::CONTAINER, Patience::default());
        for _ in 0..4 {
            tokio::time::advance(STILL * 9 / 10).await;
            progress.swept(Ok(()));
        }
        assert_eq!(progress.stuck(), None);
    }
}
