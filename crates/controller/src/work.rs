//! The work queue of one kind, and the loop that empties it.
//!
//! As client-go's (<https://pkg.go.dev/k8s.io/client-go/util/workqueue>): an object that is called for is looked at once, however often
//! it was called for before that; never twice at a time; and once more after, where it was called for meanwhile.
//! kube's `Controller` does the same through a timer, which lets each call wait for 1 to 3 ms: longer than most looks take.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::time::{DelayQueue, delay_queue};
use tracing::Instrument;

use crate::context::one_line;
use crate::exec::Error;
use crate::objects::Objects;
use crate::progress::{Kind, Progress};

/// How long before another look where the API server refused something.
const REFUSED: Duration = Duration::from_secs(5);

/// When to look at an object again that nobody calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    requeue_after: Option<Duration>,
}

impl Action {
    /// After this long, at the latest.
    pub(crate) fn requeue(after: Duration) -> Self {
        Self { requeue_after: Some(after) }
    }

    /// Never.
    pub(crate) fn await_change() -> Self {
        Self { requeue_after: None }
    }
}

/// What calls for looks at the objects of a kind.
pub(crate) struct Calls<Touched, Triggers, All> {
    /// The objects that have changed themselves.
    pub(crate) touched: Touched,
    /// The names of those that something else calls for.
    pub(crate) triggers: Triggers,
    /// Calls for all of them.
    pub(crate) all: All,
}

/// Has objects looked at by `reconcile` whenever something calls for it, until `shutdown`; what is being looked at then is looked at
/// to the end.
///
/// Each look is at the newest version that is known. An object that `objects` does not show is not looked at: it is gone.
pub(crate) async fn run<K, Look>(
    kind: Kind,
    progress: Progress,
    objects: Objects<K>,
    calls: Calls<
        impl Stream<Item = Result<K, watcher::Error>>,
        impl Stream<Item = ObjectRef<K>>,
        impl Stream<Item = ()>,
    >,
    reconcile: impl Fn(Arc<K>) -> Look,
    shutdown: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    Look: Future<Output = Result<Action, Error>> + Send + 'static,
{
    // Fused: each is polled again after another had something.
    let (mut touched, mut triggers, mut all) =
        (pin!(calls.touched.fuse()), pin!(calls.triggers.fuse()), pin!(calls.all.fuse()));
    let mut work = Work {
        kind,
        progress,
        objects,
        reconcile,
        looks: JoinSet::new(),
        looked_at: HashMap::new(),
        later: DelayQueue::new(),
        due: HashMap::new(),
    };
    loop {
        // Cancel-safe, each of them: what was not taken stays where it is.
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(object) = touched.next() => match object {
                Ok(object) => work.call(ObjectRef::from_obj(&object)),
                Err(error) => tracing::warn!("{}", one_line(&error)),
            },
            Some(name) = triggers.next() => work.call(name),
            Some(()) = all.next() => {
                for object in work.objects.shown().state() {
                    work.call(ObjectRef::from_obj(&*object));
                }
            }
            Some(look) = work.looks.join_next() => work.done(look),
            Some(due) = work.later.next() => {
                let name = due.into_inner();
                work.due.remove(&name);
                work.call(name);
            }
        }
    }
    while let Some(look) = work.looks.join_next().await {
        rethrow(look);
    }
}

struct Work<K: Resource<DynamicType = ()> + 'static, F> {
    kind: Kind,
    progress: Progress,
    objects: Objects<K>,
    reconcile: F,
    looks: JoinSet<(ObjectRef<K>, Action)>,
    /// The objects that are being looked at, and since when another look is called for.
    looked_at: HashMap<ObjectRef<K>, Option<Waiting>>,
    later: DelayQueue<ObjectRef<K>>,
    /// What is in `later`.
    due: HashMap<ObjectRef<K>, delay_queue::Key>,
}

impl<K, F, Look> Work<K, F>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    F: Fn(Arc<K>) -> Look,
    Look: Future<Output = Result<Action, Error>> + Send + 'static,
{
    fn call(&mut self, name: ObjectRef<K>) {
        match self.looked_at.get_mut(&name) {
            Some(again) => {
                again.get_or_insert_with(|| Waiting::begin(self.kind));
            }
            None => self.begin(name, Waiting::begin(self.kind)),
        }
    }

    fn begin(&mut self, name: ObjectRef<K>, waiting: Waiting) {
        if let Some(key) = self.due.remove(&name) {
            self.later.remove(&key);
        }
        let Some(object) = self.objects.get(&name) else { return };
        self.looked_at.insert(name.clone(), None);
        let (kind, progress) = (self.kind, self.progress.clone());
        let span = tracing::info_span!("reconcile", object = %name);
        let look = span.in_scope(|| (self.reconcile)(Arc::clone(&object)));
        let measured = async move {
            drop(waiting);
            let action = progress.reconcile(kind, &*object, look).await.unwrap_or_else(|error| {
                tracing::warn!(object = %object.name_any(), "{}", one_line(&error));
                Action::requeue(REFUSED)
            });
            (name, action)
        };
        self.looks.spawn(measured.instrument(span));
    }

    fn done(&mut self, look: Result<(ObjectRef<K>, Action), JoinError>) {
        let (name, action) = rethrow(look);
        match (self.looked_at.remove(&name).flatten(), action.requeue_after) {
            (Some(again), _) => self.begin(name, again),
            (None, Some(Duration::ZERO)) => self.call(name),
            (None, Some(after)) => {
                let key = self.later.insert(name.clone(), after);
                self.due.insert(name, key);
            }
            (None, None) => {}
        }
    }
}

/// A defect in a look is one of the whole.
fn rethrow<T>(look: Result<T, JoinError>) -> T {
    look.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// An object that waits for a look, until dropped.
///
/// Names of metrics are those of client-go's work queue.
struct Waiting {
    kind: Kind,
    since: Instant,
}

impl Waiting {
    fn begin(kind: Kind) -> Self {
        metrics::counter!("workqueue_adds_total", "name" => kind.name).increment(1);
        metrics::gauge!("workqueue_depth", "name" => kind.name).increment(1);
        Self { kind, since: Instant::now() }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!("workqueue_depth", "name" => self.kind.name).decrement(1);
        metrics::histogram!("workqueue_queue_duration_seconds", "name" => self.kind.name).record(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests;
